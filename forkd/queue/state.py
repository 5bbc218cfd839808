"""What has become of a message so far? Its `.state` file: one line per attempt or word of an admin.

A message to 10,000 members of a list that is deferred for days would fill the disk with lines, and reading
them would take longer each time. So a file that has grown to several times what it says is written anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Callable, Iterable, Sequence

import msgspec

from forkd.fs import REAL, Fs, sync_name
from forkd.queue.envelope import Envelope, Recipient
from forkd.queue.outcome import Outcome, bounded

SUFFIX = ".state"

NEW = ".new"
"""Behind SUFFIX: the file that is to take its place."""

MAX_STATE_BYTES = 128 << 20
"""What is larger was not written by us: it is not read at all, since a half of it would be a lie."""
SHORTEN_BYTES = 1 << 20
"""A file that grows beyond this, and beyond so many times its first line, is written anew as one line."""
SHORTEN_TIMES = 3


class Before(msgspec.Struct, frozen=True, array_like=True):
    """What earlier lines said beside the last outcomes, when one line took the place of all."""

    attempts: int
    warned: bool
    """State.warned."""
    tries: tuple[tuple[int, int, float], ...]
    """Recipient, how often it was tried, when it was last."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line: an attempt and what it brought; or, without outcomes, that it is held or released."""

    at: float
    """Unix time of its end, seconds."""
    next_try_at: float = 0.0
    """Unix time; 0: none is left to try."""
    outcomes: tuple[Outcome, ...] = ()
    hold: str | None = None
    """Given: from here on held for that reason; the empty string: released."""
    untried: bool = False
    """No attempt: they were given up, or their sender was told of a delay, while they waited for a
    destination that is away; or the attempt goes on for others, and these have the mail already."""
    told: tuple[int, ...] = ()
    """Recipients whose outcome stands in an earlier line, and is told now (Outcome.told)."""
    before: Before | None = None
    """Given: no attempt, but all that was written so far, with the last outcome of each recipient."""


class State:
    """All lines of a message, taken together. The last outcome of a recipient counts, and the last hold."""

    __slots__ = (
        "_warned", "attempts", "ended", "first_bytes", "hold", "last", "lines", "next_try_at", "size", "torn",
        "tries",
    )  # fmt: skip

    def __init__(self) -> None:
        self.lines = 0
        self.size = 0
        """Octets of the file."""
        self.first_bytes = 0
        """Of its first line."""
        self.attempts = 0
        self.hold: str | None = None
        """Why it is held; empty: released; None: nothing was said since it came in (held() knows then)."""
        self.next_try_at = 0.0
        self.last: dict[int, Outcome] = {}
        self.tries: dict[int, int] = {}
        """Of each recipient that was tried: how often."""
        self.ended: dict[int, float] = {}
        """Of each that was tried: when it was last, Unix time."""
        self._warned = False
        self.torn = False
        """The file does not end in a whole line: the next append begins with a line end."""

    def add(self, attempt: Attempt) -> None:
        """Take one line in."""
        self.lines += 1
        if attempt.hold is not None:
            self.hold = attempt.hold
            return
        self.next_try_at = attempt.next_try_at
        for outcome in attempt.outcomes:
            self.last[outcome.recipient] = outcome
        if attempt.before is not None:
            self.attempts, self._warned = attempt.before.attempts, attempt.before.warned
            self.tries = {index: tries for index, tries, _ in attempt.before.tries}
            self.ended = {index: ended for index, _, ended in attempt.before.tries}
            return
        for index in attempt.told:
            if index in self.last:
                self.last[index] = self.last[index].as_told()
        self._warned = self.warned
        if attempt.untried:
            return
        self.attempts += 1
        for outcome in attempt.outcomes:
            self.tries[outcome.recipient] = self.tries.get(outcome.recipient, 0) + 1
            self.ended[outcome.recipient] = attempt.at

    def together(self, at: float) -> list[Attempt]:
        """Lines that say the same as all of them, as few as there may be."""
        tries = tuple((index, tries, self.ended[index]) for index, tries in self.tries.items())
        lines = [
            Attempt(
                at=at,
                next_try_at=self.next_try_at,
                outcomes=tuple(bounded(self.last.values())),
                before=Before(self.attempts, self.warned, tries),
            )
        ]
        if self.hold is not None:
            lines.append(Attempt(at=at, hold=self.hold))
        return lines

    def held(self, envelope: Envelope) -> str:
        """Why the message is not to be delivered now; empty: it is."""
        return envelope.hold if self.hold is None else self.hold

    @property
    def warned(self) -> bool:
        """The delay warning is out, or nobody wanted it: once for each message, whomever it was about."""
        return self._warned or any(o.told and o.status == "deferred" for o in self.last.values())

    def open(self, recipients: Sequence[Recipient]) -> list[int]:
        """Those of the envelope's that are neither delivered nor failed, by their place there."""
        last = self.last
        return [
            i
            for i, recipient in enumerate(recipients)
            if not recipient.fate and (i not in last or last[i].status == "deferred")
        ]

    def failed(self) -> list[int]:
        """Recipients that failed for good, in order."""
        return sorted(i for i, outcome in self.last.items() if outcome.status == "failed")


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Attempt)


def encode(attempt: Attempt) -> bytes:
    """The line: CRC-32 of the JSON as eight hex digits, a space, the JSON, LF."""
    body = _encoder.encode(attempt)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def decode(data: bytes) -> State:
    """What the whole lines say. Lines that a power cut tore are passed over: those recipients are tried
    again, a duplicate at worst (FORMAT.md)."""
    state = State()
    for line in data.split(b"\n"):
        attempt = _line(line)
        if attempt is not None:
            state.add(attempt)
    state.torn = not data.endswith(b"\n") and bool(data)
    state.size, state.first_bytes = len(data), data.find(b"\n") + 1
    return state


def _line(line: bytes) -> Attempt | None:
    body = line[9:]
    if line[:9] != b"%08x " % zlib.crc32(body):
        return None
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def load(message_path: str, *, fs: Fs = REAL) -> State:
    """The state of the message at that path; an empty one when nothing was recorded. Raises OSError."""
    try:
        fd = fs.open(message_path + SUFFIX)
    except FileNotFoundError:
        return State()
    try:
        return decode(b"".join(_pieces(fs, fd)))
    finally:
        fs.close(fd)


def history(message_path: str, *, fs: Fs = REAL) -> list[Attempt]:
    """Every whole line of it, oldest first: how it came to be as it is. Raises OSError."""
    try:
        fd = fs.open(message_path + SUFFIX)
    except FileNotFoundError:
        return []
    try:
        lines = b"".join(_pieces(fs, fd)).split(b"\n")
    finally:
        fs.close(fd)
    return [attempt for attempt in map(_line, lines) if attempt is not None]


def _pieces(fs: Fs, fd: int) -> Iterable[bytes]:
    offset, size = 0, fs.size(fd)
    if size > MAX_STATE_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    while offset < size:
        piece = fs.read(fd, size - offset, offset)
        if not piece:
            return
        offset += len(piece)
        yield piece


def append(
    message_path: str,
    attempt: Attempt,
    state: State,
    *,
    durable: bool = True,
    fs: Fs = REAL,
    shorten_bytes: int = SHORTEN_BYTES,
) -> None:
    """Record a line; `state` is what load() gave, and takes the line in.

    Once this returns the line survives a power cut. Blocks for one file sync, the first time, and when the
    file is written anew since it became long, for one directory sync too.
    Raises OSError: then the line may be there, whole, torn, or not.
    """
    path = message_path + SUFFIX
    fresh = state.lines == 0
    line = encode(attempt)
    fd = fs.append(path)
    try:
        fs.write(fd, (b"\n" if state.torn else b"", line))
        if durable:
            fs.sync(fd)
            if fresh:
                sync_name(fs, path)
    except OSError:
        # How much of the line is there nobody knows: an empty line more does no harm.
        state.torn = True
        if fresh:
            # Else the next line would take its name for one that is on disk.
            with contextlib.suppress(OSError):
                fs.unlink(path)
        raise
    finally:
        fs.close(fd)
    state.torn = False
    state.size += len(line)
    state.first_bytes = state.first_bytes or len(line)
    state.add(attempt)
    if state.size > max(shorten_bytes, SHORTEN_TIMES * state.first_bytes):
        _shorten(path, state, attempt.at, durable=durable, fs=fs)


def _shorten(path: str, state: State, at: float, *, durable: bool, fs: Fs) -> None:
    """Put one line in the place of all. The old file counts until the new one, whole and synced, has its
    name; where that cannot be made, the next append tries again.

    Raises OSError: the new name may not survive a power cut, nor then what is appended to it.
    """
    new, lines = path + NEW, [encode(attempt) for attempt in state.together(at)]
    with contextlib.suppress(OSError):
        fs.unlink(new)
    try:
        fd = fs.create(new, 0o640)
        try:
            fs.write(fd, lines)
            if durable:
                fs.sync(fd)
        finally:
            fs.close(fd)
        fs.rename(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            fs.unlink(new)
        return
    state.size, state.first_bytes = sum(map(len, lines)), len(lines[0])
    if durable:
        sync_name(fs, path)


def secure(message_path: str, *, fs: Fs = REAL) -> None:
    """Make what load() read survive a power cut: who wrote it may have been killed before its sync.

    Blocks for one file sync. Raises OSError.
    """
    fd = fs.append(message_path + SUFFIX)
    try:
        fs.sync(fd)
    finally:
        fs.close(fd)


def remove(
    message_path: str,
    *,
    has_state: bool,
    put: Callable[[str], bool] | None = None,
    fs: Fs = REAL,
) -> None:
    """Remove a message that is done with, then its state.

    In this order: a message without its state would be delivered again to all; a state without its
    message means nothing (recovery removes it, also one that could not be removed here). Not synced: after
    a power cut the message may be back, and is then delivered again or, where its state says so, removed
    again. Raises OSError: the message is still there.

    put  takes the file away instead of unlinking it, if it can (recycle.Bin)
    """
    if put is None or not put(message_path):
        fs.unlink(message_path)
    if has_state:
        with contextlib.suppress(OSError):
            fs.unlink(message_path + SUFFIX)
