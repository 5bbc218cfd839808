"""Where does a message end that comes by DATA, and which octets is it? (RFC 5321 4.1.1.4, 4.5.2)"""

from __future__ import annotations

from forkd.smtp.content import Content
from forkd.smtp.events import DataChunk, DataEnd
from forkd.smtp.lines import Input

_HELD = (b"\r", b".", b".\r")


class DataReader(Content):
    """Reads one message off the wire: finds its end, undoes dot-stuffing, judges its octets (Content).

    The end is CRLF.CRLF and nothing else, so that no two servers on the way can disagree about it
    (SMTP smuggling; RFC 5321 4.1.1.4, 2.3.8). The CRLF of the DATA command counts as the first one.
    A dot is removed only where a real CRLF precedes it. A line that begins with a dot, or is one, only
    since it was normalised stays what it is: the next hop stuffs it again.

    Cost: one search and what Content.judge() does per block (65 KiB in about 40 µs).
    """

    __slots__ = ("_held", "_line_start", "finished", "rest")

    def __init__(self, limit: int, *, normalize: bool = True) -> None:
        # As Content's, written out: one is made for every message.
        self._limit = limit
        self._normalize = normalize
        self._bare = self._nul = self.finished = False
        self.size = 0
        self._held = b""
        """At most two octets that only the next block explains: one of _HELD."""
        self._line_start = True
        """What was read up to here, without _held, ended in CRLF."""
        self.rest = b""
        """When finished (CRLF.CRLF was read): what came behind it."""

    def next_event(self, source: Input) -> DataChunk | DataEnd | None:
        """A piece of the message, or its end; None: octets are missing."""
        if not self.finished:
            block = source.take()
            if block:
                chunk = self.feed(block)
                if self.rest:
                    source.give_back(self.rest)
                if chunk:
                    return DataChunk(chunk)
            if not self.finished:
                return None
        return DataEnd(self.size, self.fault)

    def feed(self, block: bytes) -> bytes:
        """The message's octets in a block off the wire; may be empty. Not to be called once finished."""
        if self._held:
            block = self._held + block
            self._held = b""
        if self._line_start and block[:1] == b".":
            if block[:3] == b".\r\n":
                self.finished = True
                self.rest = block[3:]
                return b""
            if block in _HELD:
                self._held = block
                return b""
            block = block[1:]
        # What begins with a dot is rare, so one search answers for the end and for stuffing alike.
        dot = block.find(b"\r\n.")
        if dot >= 0:
            end = block.find(b"\r\n.\r\n", dot)
            if end >= 0:
                self.finished = True
                self.rest = block[end + 5 :]
                block = block[: end + 2]
            else:
                block = self._hold(block)
            if dot != end:
                block = block.replace(b"\r\n.", b"\r\n")
        elif block[-1:] == b"\r":
            block = self._hold(block)
        if not block:
            return b""
        self._line_start = block[-2:] == b"\r\n"
        return self.judge(block)

    def _hold(self, block: bytes) -> bytes:
        """Keep back what may be the beginning of CRLF, or of the end; what is left ends in no half of it."""
        for tail, octets in ((b"\r\n.\r", 2), (b"\r\n.", 1), (b"\r", 1)):
            if block.endswith(tail):
                self._held = block[-octets:]
                return block[:-octets]
        return block
