"""How does mail get into a Maildir, for good? (cr.yp.to/proto/maildir.html, plus the syncs it leaves out)"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Sequence

from forkd.config.maildir_schema import Maildir as Settings
from forkd.deliver import fields
from forkd.deliver.mailboxes import Mailboxes, UnusualNameError
from forkd.deliver.transport import Delivery, Result, Target, refused_by_system
from forkd.fs import REAL, Fs, make_dirs, sync_name
from forkd.message.edits import LineEnd, stream
from forkd.queue.format import Damaged
from forkd.queue.stored import StoredMessage

TMP = "tmp"
_GROUP_FILE, _GROUP_FOLDER = 0o660, 0o070
"""With `group`: of a file; what a folder has more of (a setgid bit that it was born with stays)."""


class Maildir:
    """[transport.NAME] kind = "maildir": virtual mailboxes, owned by whoever runs qmgr.

    Of each mail: written to tmp/ with Return-Path and Delivered-To on top and LF line ends, synced,
    renamed to new/; then one sync of each new/ touched, shared by the whole batch. Only then is it
    delivered. A folder that is missing is made with the first mail, where nothing else is said. Which folder
    it is: mailboxes.py.

    root      where a relative path begins
    host      part of the file names: machines that share a store differ in it
    durable   false: queue.durability = "none", nothing is synced
    """

    parallel = 2
    """One thread writes while the other waits for the disk; more only fight for the interpreter."""
    batch = 32

    def __init__(
        self, name: str, settings: Settings, *, root: str, host: str, durable: bool = True, fs: Fs = REAL
    ) -> None:
        self.name = name
        self._settings = settings
        self._boxes = Mailboxes(settings, root)
        # Inverse of what a reader may see in a file name (cr.yp.to/proto/maildir.html).
        self._host = host.replace("/", r"\057").replace(":", r"\072")
        self._count = itertools.count()
        self._durable = durable
        self._fs = fs

    def destination(self, target: Target) -> str:  # noqa: ARG002 - Transport
        """One for all."""
        return ""

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

    def _write(self, message: StoredMessage, target: Target, results: list[Result]) -> tuple[str, str]:
        """Bring the mail to the mailbox' tmp/ and say what will be true once it is published.

        Returns folder and file name; no name when it went wrong. Raises Damaged.
        """
        fs, name = self._fs, self._new_name()
        folder, fd = "", -1
        try:
            if fields.passed_here(message, target):
                results.append(Result(target, "failed", "5.4.6", "mail loop: Delivered-To is there already"))
                return "", ""
            folder, fd, where = self._open(target, name)
            pieces = stream(
                message.chunks(),
                message.envelope.trace,
                message.envelope.edits,
                line_end=LineEnd.LF,
                top=fields.return_path(message.envelope.sender) + fields.delivered_to(target),
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
        except UnusualNameError as error:
            results.append(Result(target, "failed", "5.1.1", str(error)))
            return "", ""
        except OSError as error:
            self._drop(fd, f"{folder}/{TMP}/{name}" if folder else "")
            results.append(refused_by_system(target, error))
            return "", ""
        except Damaged:
            self._drop(fd, f"{folder}/{TMP}/{name}")
            raise
        results.append(Result(target, "delivered", "2.0.0", where))
        return folder, name

    def _publish(
        self, folder: str, files: list[tuple[int, int, str]], answers: list[list[Result] | Damaged]
    ) -> None:
        """Rename one mailbox' files to new/ and sync it; what fails becomes deferred."""
        fs, renamed = self._fs, []
        error: OSError | None = None
        for number, place, name in files:
            try:
                self._rename(folder, name)
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

    def _rename(self, folder: str, name: str) -> None:
        old, new = f"{folder}/{TMP}/{name}", f"{folder}/new/{name}"
        try:
            self._fs.rename(old, new)
        except FileNotFoundError:
            # Some tools leave an empty new/ out when they copy a Maildir.
            self._make(folder)
            self._fs.rename(old, new)

    # --- folders ------------------------------------------------------------------------------------

    def _open(self, target: Target, name: str) -> tuple[str, int, str]:
        """A new file in the tmp/ of the folder that this recipient's mail goes to: that folder, its
        descriptor, and where that is, in words. Raises OSError, UnusualNameError."""
        settings, boxes = self._settings, self._boxes
        inbox = boxes.inbox(target)
        if settings.subfolder != "never" and (subfolder := boxes.subfolder(inbox, target)):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return subfolder, self._create(subfolder, name), f"in maildir folder {target.detail}"
            if settings.subfolder == "create" and not (settings.catch_all and _missing(inbox)):
                self._make(inbox)
                self._make(subfolder, within=inbox)
                return subfolder, self._create(subfolder, name), f"in maildir folder {target.detail}"
        try:
            return inbox, self._create(inbox, name), "in maildir"
        except FileNotFoundError:
            where = "in maildir"
            if everybody := boxes.catch_all(target):
                inbox, where = everybody, "in catch-all maildir"
                with contextlib.suppress(FileNotFoundError):
                    return inbox, self._create(inbox, name), where
            self._make(inbox)
            return inbox, self._create(inbox, name), where

    def _create(self, folder: str, name: str) -> int:
        """Raises FileNotFoundError where there is no such Maildir; OSError."""
        fd = self._fs.create(f"{folder}/{TMP}/{name}", 0o600)
        if self._settings.group:
            try:
                os.fchmod(fd, _GROUP_FILE)
            except OSError:
                self._drop(fd, f"{folder}/{TMP}/{name}")
                raise
        return fd

    def _make(self, folder: str, *, within: str = "") -> None:
        """A mailbox, or a folder of one. tmp/ is made last: whoever finds it knows that new/ and the names
        above are on disk, also when another thread, or a process that was killed, began to make them."""
        fs = self._fs
        if within and os.path.islink(folder):  # noqa: PTH114
            # Not ours to make: whoever may write in here too (`group`) could have put it anywhere.
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), folder)
        missing = _missing_levels(folder) if self._settings.group else []
        make_dirs(fs, folder)
        if within:
            # So Maildir++ tells a folder from a Maildir of its own.
            with contextlib.suppress(FileExistsError):
                fs.close(fs.create(f"{folder}/maildirfolder", 0o600))
        for part in ("new", "cur"):
            with contextlib.suppress(FileExistsError):
                fs.mkdir(f"{folder}/{part}", 0o700)
        sync_name(fs, f"{folder}/new")
        for made in (*missing, f"{folder}/new", f"{folder}/cur") if self._settings.group else ():
            self._open_to_group(made)
        with contextlib.suppress(FileExistsError):
            fs.mkdir(f"{folder}/{TMP}", 0o700)
        if self._settings.group:
            self._open_to_group(f"{folder}/{TMP}")

    def _open_to_group(self, folder: str) -> None:
        # Never a link: what it leads to is not the mailbox', whoever put it there.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(fd, (os.fstat(fd).st_mode & 0o7777) | _GROUP_FOLDER)
        finally:
            os.close(fd)

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
        if path:
            with contextlib.suppress(OSError):
                self._fs.unlink(path)


def _missing(folder: str) -> bool:
    return not os.path.isdir(f"{folder}/{TMP}")  # noqa: PTH112 - plain text paths, as all of them here


def _missing_levels(folder: str) -> list[str]:
    """`folder` and what is above it, as far as it is not there."""
    levels = []
    while not os.path.exists(folder):  # noqa: PTH110
        levels.append(folder)
        folder = os.path.dirname(folder)  # noqa: PTH120
    return levels


def _defer(answers: list[list[Result] | Damaged], number: int, place: int, why: OSError) -> None:
    results = answers[number]
    assert isinstance(results, list)
    results[place] = refused_by_system(results[place].target, why)
