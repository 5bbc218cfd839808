"""How does mail get into a Maildir, for good? (cr.yp.to/proto/maildir.html, plus the syncs it leaves out)"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Sequence

from forkd.deliver.transport import Delivery, Result, Target, refused_by_system
from forkd.fs import REAL, Fs, make_dirs, sync_name
from forkd.message.edits import LineEnd, stream
from forkd.message.header import values
from forkd.queue.format import Damaged
from forkd.queue.stored import StoredMessage

TMP = "tmp"

_SAFE = re.compile(r"[a-z0-9_=+-][a-z0-9._=+-]*")
_UNSAFE_OCTET = re.compile(rb"[^a-zA-Z0-9._=+-]|^\.")
MAX_PART = 200
"""Octets of one path component (NAME_MAX is 255); longer names are cut and told apart by a sum."""

_LOOP_HINT = re.compile(rb"^delivered-to", re.IGNORECASE | re.MULTILINE)


class Maildir:
    """[transport.NAME] kind = "maildir": virtual mailboxes, owned by whoever runs qmgr.

    Of each mail: written to tmp/ with Return-Path and Delivered-To on top and LF line ends, synced,
    renamed to new/; then one sync of each new/ touched, shared by the whole batch. Only then is it
    delivered. Where a plugin rewrote the recipient, X-Original-To says what the client had said, as
    Postfix does. A folder that is missing is made with the first mail.

    root      where a relative `path` begins
    path      may hold {domain} and {user}, both made safe for a path
    host      part of the file names: machines that share a store differ in it
    durable   false: queue.durability = "none", nothing is synced
    """

    parallel = 2
    """One thread writes while the other waits for the disk; more only fight for the interpreter."""
    batch = 32

    def __init__(
        self, name: str, *, path: str, root: str, host: str, durable: bool = True, fs: Fs = REAL
    ) -> None:
        self.name = name
        self._path = path if path.startswith("/") else f"{root}/{path}"
        # Inverse of what a reader may see in a file name (cr.yp.to/proto/maildir.html).
        self._host = host.replace("/", r"\057").replace(":", r"\072")
        self._count = itertools.count()
        self._durable = durable
        self._fs = fs

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        """As Transport.deliver. Blocks for one file sync per target and one directory sync per mailbox."""
        answers: list[list[Result] | Damaged] = []
        written: dict[str, list[tuple[int, int, str]]] = {}
        for number, delivery in enumerate(deliveries):
            results: list[Result] = []
            names: list[tuple[str, str]] = []
            try:
                for target in delivery.targets:
                    names.append(self._write(delivery.message, target, results))
            except Damaged as damage:
                self._forget(names)
                answers.append(damage)
                continue
            answers.append(results)
            for place, (folder, name) in enumerate(names):
                if name:
                    written.setdefault(folder, []).append((number, place, name))
        for folder, files in written.items():
            self._publish(folder, files, answers)
        return answers

    def folder(self, target: Target) -> str:
        """The Maildir of a recipient."""
        return self._path.replace("{domain}", safe(target.domain)).replace("{user}", safe(target.mailbox))

    def _write(self, message: StoredMessage, target: Target, results: list[Result]) -> tuple[str, str]:
        """Bring the mail to the mailbox' tmp/ and say what will be true once it is published.

        Returns folder and file name; no name when it went wrong. Raises Damaged.
        """
        fs, folder, name = self._fs, self.folder(target), self._new_name()
        path = f"{folder}/{TMP}/{name}"
        fd = -1
        try:
            if _passed_here(message, target):
                results.append(Result(target, "failed", "5.4.6", "mail loop: Delivered-To is there already"))
                return "", ""
            fd = self._create(folder, path)
            pieces = stream(
                message.chunks(),
                message.envelope.trace,
                message.envelope.edits,
                line_end=LineEnd.LF,
                top=_top(message.envelope.sender, target),
            )
            if message.in_memory:
                fs.write(fd, list(pieces))
            else:
                for piece in pieces:
                    fs.write(fd, (piece,))
            if self._durable:
                fs.sync(fd)
            closing, fd = fd, -1
            fs.close(closing)
        except OSError as error:
            self._drop(fd, path)
            results.append(refused_by_system(target, error))
            return "", ""
        except Damaged:
            self._drop(fd, path)
            raise
        results.append(Result(target, "delivered", "2.0.0", "in maildir"))
        return folder, name

    def _publish(
        self, folder: str, files: list[tuple[int, int, str]], answers: list[list[Result] | Damaged]
    ) -> None:
        """Rename one mailbox' files to new/ and sync it; what fails becomes deferred."""
        fs, renamed = self._fs, []
        error: OSError | None = None
        for number, place, name in files:
            try:
                fs.rename(f"{folder}/{TMP}/{name}", f"{folder}/new/{name}")
                renamed.append((number, place, name))
            except OSError as why:
                self._drop(-1, f"{folder}/{TMP}/{name}")
                _defer(answers, number, place, why)
        if not renamed or not self._durable:
            return
        try:
            fd = fs.open_dir(f"{folder}/new")
            try:
                fs.sync_dir(fd)
            finally:
                fs.close(fd)
        except OSError as why:
            error = why
        if error is not None:
            for number, place, name in renamed:
                # A reader may have seen it already: then it comes twice, which is allowed.
                self._drop(-1, f"{folder}/new/{name}")
                _defer(answers, number, place, error)

    def _create(self, folder: str, path: str) -> int:
        try:
            return self._fs.create(path, 0o600)
        except FileNotFoundError:
            self._make(folder)
            return self._fs.create(path, 0o600)

    def _make(self, folder: str) -> None:
        """A mailbox. tmp/ is made last: whoever finds it knows that new/ and the names above are on disk,
        also when another thread, or a process that was killed, began to make them."""
        fs = self._fs
        make_dirs(fs, folder)
        for part in ("new", "cur"):
            with contextlib.suppress(FileExistsError):
                fs.mkdir(f"{folder}/{part}", 0o700)
        sync_name(fs, f"{folder}/new")
        with contextlib.suppress(FileExistsError):
            fs.mkdir(f"{folder}/{TMP}", 0o700)

    def _new_name(self) -> str:
        now = time.time_ns() // 1000
        return f"{now // 1_000_000}.M{now % 1_000_000:06d}P{os.getpid()}Q{next(self._count)}.{self._host}"

    def _forget(self, names: list[tuple[str, str]]) -> None:
        for folder, name in names:
            if name:
                self._drop(-1, f"{folder}/{TMP}/{name}")

    def _drop(self, fd: int, path: str) -> None:
        """Close and remove as far as it goes; tmp/ is cleaned by readers after 36 hours anyway."""
        with contextlib.suppress(OSError):
            if fd >= 0:
                self._fs.close(fd)
        with contextlib.suppress(OSError):
            self._fs.unlink(path)


def safe(part: str) -> str:
    """A domain or user as one path component: never empty, never `..`, no two names alike.

    Small letters, digits and `. _ = + -` stay; every other octet, and a dot in front, becomes %XX.
    """
    text = part.lower()
    if _SAFE.fullmatch(text) and len(text) <= MAX_PART:
        return text
    octets = text.encode("utf-8", "surrogateescape")
    text = _UNSAFE_OCTET.sub(lambda found: b"%%%02X" % found[0][0], octets).decode("ascii") or "%"
    if len(text) > MAX_PART:
        import hashlib  # noqa: PLC0415 - only names nobody has

        text = text[: MAX_PART - 34] + "%%" + hashlib.blake2b(octets, digest_size=16).hexdigest()
    return text


def _top(sender: str, target: Target) -> str:
    original = f"X-Original-To: {target.original}\r\n" if target.original else ""
    return f"Return-Path: <{sender}>\r\n{original}Delivered-To: {target.address}\r\n"


def _passed_here(message: StoredMessage, target: Target) -> bool:
    """Was it delivered to this very address before, and forwarded back to us? (as qmail and Postfix check)"""
    for piece in message.chunks():
        head = piece[: piece.find(b"\r\n\r\n") + 2 or len(piece)]
        if not _LOOP_HINT.search(head):
            return False
        return target.address.lower().encode("utf-8", "replace") in (
            value.lower() for value in values(head, b"delivered-to")
        )
    return False


def _defer(answers: list[list[Result] | Damaged], number: int, place: int, why: OSError) -> None:
    results = answers[number]
    assert isinstance(results, list)
    results[place] = refused_by_system(results[place].target, why)
