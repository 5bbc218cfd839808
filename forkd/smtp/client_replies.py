"""What does a server's reply say, whatever octets it is made of? (RFC 5321 4.2, RFC 2034 4)"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from forkd.smtp.reply import Reply

MAX_REPLY_OCTETS: Final = 65_536
"""Of all lines of a reply, those read over too. Beyond it the server is not one."""
MAX_LINE_OCTETS: Final = 12_288
"""Kept of a line: the longest has a challenge (RFC 4954 4); RFC 5321 4.5.3.1.5 allows 512."""
KEPT_CHARACTERS: Final = 2_000
"""Kept of a reply's text, where it is for a log, a report or another client: a thousand recipients may each
have one."""

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
"""A code alone is a reply too (RFC 5321 4.2)."""
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |\Z)", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """What came is no reply, or none that can be told from the next: nothing can be believed any more."""

    why: str
    said: str = ""
    """The beginning of it, made printable; for the log."""


class ReplyReader:
    """Cuts replies from octets, in any pieces. After a Violation it is not asked again.

    Lenient, because real servers need it and nothing is smuggled by it: a bare LF ends a line, as CRLF
    does; longer lines than allowed are cut; whatever is not printable becomes "?". Not lenient about
    which reply it is: another code in a further line, or another mark than space or hyphen, is a violation.
    """

    __slots__ = ("_buffer", "_code", "_kept", "_lines", "_octets", "_over")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._over = 0
        """Octets of the unfinished line that were thrown away, because it is too long."""
        self._start_over()

    def _start_over(self) -> None:
        self._code = 0
        self._lines: list[str] = []
        self._kept = 0
        self._octets = 0
        """Of the reply's finished lines."""

    def __bool__(self) -> bool:
        """Octets are there that no reply has told of yet."""
        return bool(self._buffer) or bool(self._code)

    def receive(self, data: bytes) -> None:
        """Take what the server sent."""
        self._buffer += data

    def clear(self) -> None:
        """Forget all of it."""
        self._buffer.clear()
        self._over = 0
        self._start_over()

    def next_reply(self, *, keep: int = KEPT_CHARACTERS) -> Reply | Violation | None:
        """The next reply; None: octets are missing.

        keep  characters of its text; the first line is always kept up to as many.
        """
        buffer = self._buffer
        while (end := buffer.find(b"\n")) >= 0:
            self._octets += self._over + end + 1
            if self._octets > MAX_REPLY_OCTETS:
                return Violation("a reply without end")
            line = bytes(buffer[: min(end, MAX_LINE_OCTETS)])
            del buffer[: end + 1]
            self._over = 0
            found = self._line(line.removesuffix(b"\r"), keep)
            if found is not None:
                return found
        if self._octets + self._over + len(buffer) > MAX_REPLY_OCTETS:
            return Violation("a reply without end")
        if len(buffer) > MAX_LINE_OCTETS:
            self._over += len(buffer) - MAX_LINE_OCTETS
            del buffer[MAX_LINE_OCTETS:]
        return None

    def _line(self, line: bytes, keep: int) -> Reply | Violation | None:
        match = _LINE.fullmatch(line)
        if match is None:
            return self._violation("no SMTP reply", line)
        code = int(match[1])
        if self._code not in (0, code):
            return self._violation("two codes in one reply", line)
        self._code = code
        text = printable(match[3] or b"")[: max(0, keep - self._kept)]
        if text or not self._lines:
            self._lines.append(text)
            self._kept += len(text)
        if match[2] == b"-":
            return None
        lines = self._lines
        self._start_over()
        return _reply(code, lines)

    def _violation(self, why: str, said: bytes) -> Violation:
        return Violation(why, printable(said[:200]).rstrip("?"))


def _reply(code: int, lines: list[str]) -> Reply:
    """With its enhanced code taken out of the text, where it has one that fits."""
    first = _ENHANCED.match(lines[0])
    if first is None or first[1][0] != str(code)[0]:
        return Reply(code, None, tuple(lines))
    texts = []
    for line in lines:
        match = _ENHANCED.match(line)
        texts.append(line[match.end() :] if match is not None and match[1] == first[1] else line)
    return Reply(code, first[1], tuple(texts))


def printable(octets: bytes) -> str:
    """Text that may stand in a log, a report or another reply: UTF-8 where it is, "?" where it is not."""
    text = octets.decode("utf-8", "replace")
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() and c != "\ufffd" else "?" for c in text)
