"""What becomes of what a plugin prints? Bounded three times: by its pipe, by its rate, by a line's end.

The pipe holds 64 KiB and neither side waits on it: a sandbox that prints more loses the rest, and the
worker reads when the sandbox ends, at most once. Then a rate per plugin decides what reaches the log.
"""

from __future__ import annotations

import os

MAX_READ_BYTES = 65_536
LAST_LINES, LAST_CHARACTERS = 10, 2000
"""Kept for a crash report."""
BURST_BYTES, RATE_BYTES_S = 65_536, 4096
"""Per plugin and worker: a traceback a second is fine, a flood is counted."""


def read(pipe: int) -> bytes:
    """All that a dead or dying sandbox wrote and its pipe held; never blocks."""
    try:
        return os.read(pipe, MAX_READ_BYTES)
    except BlockingIOError:
        return b""


def escape(text: bytes) -> str:
    """Printable text: bytes that are no UTF-8, and control characters but the line feed, as \\x escapes."""
    decoded = text.decode("utf-8", "backslashreplace")
    if decoded.isascii() and decoded.replace("\n", "").isprintable():
        return decoded
    return "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in decoded
    )


def last_lines(text: str) -> str:
    """The end of it, for a report on a failure."""
    return "\n".join(text.rstrip("\n").split("\n")[-LAST_LINES:])[-LAST_CHARACTERS:]


class Meter:
    """A token bucket of bytes for one plugin's output."""

    __slots__ = ("_at", "_room", "dropped")

    def __init__(self, now: float) -> None:
        self._at = now
        self._room = float(BURST_BYTES)
        self.dropped = 0
        """Bytes refused since the last take() that passed."""

    def take(self, size: int, now: float) -> bool:
        """May `size` bytes go to the log at `now` (monotonic)? Refused ones are counted."""
        self._room = min(float(BURST_BYTES), self._room + (now - self._at) * RATE_BYTES_S)
        self._at = now
        if size > self._room:
            self.dropped += size
            return False
        self._room -= size
        return True
