"""What has become of a message so far? Its `.state` file: one line per attempt or word of an admin."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

import msgspec

from forkd.fs import REAL, Fs, sync_name
from forkd.queue.envelope import Envelope

SUFFIX = ".state"

MAX_STATE_BYTES = 64 << 20
"""Bounds what is read; 1,000 recipients over the 50 attempts of five days take below 20 MiB."""


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of one recipient in one attempt."""

    recipient: int
    """Index into the envelope's recipients: the same address may stand there twice."""
    status: str
    """delivered | deferred | failed"""
    enhanced: str
    text: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line: an attempt and what it brought; or, without outcomes, that it is held or released."""

    at: float
    """Unix time of its end, seconds."""
    next_try_at: float = 0.0
    """Unix time; 0: none is left to try."""
    outcomes: tuple[Outcome, ...] = ()
    hold: str | None = None
    """Given: from here on held for that reason; the empty string: released."""


class State:
    """All lines of a message, taken together. The last outcome of a recipient counts, and the last hold."""

    __slots__ = ("attempts", "hold", "last", "lines", "next_try_at", "torn")

    def __init__(self) -> None:
        self.lines = 0
        self.attempts = 0
        self.hold: str | None = None
        """Why it is held; empty: released; None: nothing was said since it came in (held() knows then)."""
        self.next_try_at = 0.0
        self.last: dict[int, Outcome] = {}
        self.torn = False
        """The file does not end in a whole line: the next append begins with a line end."""

    def add(self, attempt: Attempt) -> None:
        """Take one line in."""
        self.lines += 1
        if attempt.hold is not None:
            self.hold = attempt.hold
            return
        self.attempts += 1
        self.next_try_at = attempt.next_try_at
        for outcome in attempt.outcomes:
            self.last[outcome.recipient] = outcome

    def held(self, envelope: Envelope) -> str:
        """Why the message is not to be delivered now; empty: it is."""
        return envelope.hold if self.hold is None else self.hold

    def open(self, recipients: int) -> list[int]:
        """Those of 0..recipients-1 that are neither delivered nor failed."""
        last = self.last
        return [i for i in range(recipients) if i not in last or last[i].status == "deferred"]

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


def _pieces(fs: Fs, fd: int) -> Iterable[bytes]:
    offset, size = 0, min(fs.size(fd), MAX_STATE_BYTES)
    while offset < size:
        piece = fs.read(fd, size - offset, offset)
        if not piece:
            return
        offset += len(piece)
        yield piece


def append(message_path: str, attempt: Attempt, state: State, *, durable: bool = True, fs: Fs = REAL) -> None:
    """Record a line; `state` is what load() gave, and takes the line in.

    Once this returns the line survives a power cut. Blocks for one file sync, the first time
    for one directory sync too. Raises OSError: then the line may be there, whole, torn, or not.
    """
    path = message_path + SUFFIX
    fresh = state.lines == 0
    fd = fs.append(path)
    try:
        fs.write(fd, (b"\n" if state.torn else b"", encode(attempt)))
        if durable:
            fs.sync(fd)
    except OSError:
        # How much of the line is there nobody knows: an empty line more does no harm.
        state.torn = True
        raise
    finally:
        fs.close(fd)
    if durable and fresh:
        sync_name(fs, path)
    state.torn = False
    state.add(attempt)


def remove(
    message_path: str,
    *,
    has_state: bool,
    put: Callable[[str], bool] | None = None,
    fs: Fs = REAL,
) -> None:
    """Remove a message that is done with, then its state.

    In this order: a message without its state would be delivered again to all; a state without its
    message means nothing (recovery removes it). Not synced: after a power cut it may be back, and
    is then delivered again or, where its state says so, removed again. Raises OSError.

    put  takes the file away instead of unlinking it, if it can (recycle.Bin)
    """
    if put is None or not put(message_path):
        fs.unlink(message_path)
    if has_state:
        fs.unlink(message_path + SUFFIX)
