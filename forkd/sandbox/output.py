"""What becomes of what a plugin prints? Bounded three times: by its pipe, by its rate, by a line's end.

The pipe holds 64 KiB and neither side waits on it: a sandbox that prints more loses the rest, and the
worker reads when the sandbox ends, at most once. Then a rate per plugin decides what reaches the log; a
password that the sandbox was told does not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable

from forkd.rpc import records

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


def scrubbed(text: str, passwords: Iterable[str]) -> str:
    """`text` that a plugin had a hand in, with SECRET for passwords: it may print or raise what it was given.

    Also as Python and JSON write a string, and as escape() writes all that.
    """
    forms: set[str] = set()
    for password in passwords:
        octets = password.encode("utf-8", "surrogatepass")
        plain = {
            password,
            *(write(password)[1:-1] for write in (repr, ascii, json.dumps, _json)),
            repr(octets)[2:-1],
        }
        forms |= plain
        forms.update(escape(form.encode("utf-8", "surrogatepass")) for form in plain)
    forms.discard("")
    if not forms:
        return text
    # In one go, the longest first: what was put in is not searched again.
    longest_first = sorted(forms, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda _: records.SECRET, text)


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


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
