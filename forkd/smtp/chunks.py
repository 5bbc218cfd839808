"""Which octets is a message that comes in chunks? BDAT of RFC 3030, without BINARYMIME."""

from __future__ import annotations

from forkd.smtp.content import Content
from forkd.smtp.events import ChunkEnd, DataChunk, DataEnd, Refused
from forkd.smtp.lines import Input
from forkd.smtp.reply import Reply


class ChunkReader(Content):
    """Reads one message in counted chunks; begin() says how many octets the next one has.

    The client says where it ends, so dots mean nothing here. Bare line ends, NUL and the limit are judged
    as everywhere (Content), over the borders of chunks: a CRLF may be cut in two by one. A message
    whose last line has no end is given one, so that whoever stores it may rely on it (Postfix does so
    too); an empty one stays empty.
    """

    __slots__ = ("_chunk", "_ends_line", "_held", "_last", "_left", "octets")

    def __init__(self, limit: int, *, normalize: bool = True) -> None:
        super().__init__(limit, normalize=normalize)
        self._chunk = 0
        self._left = 0
        self._last = False
        self._held = b""
        """A CR that only the next octet explains."""
        self._ends_line = True
        """Nothing was given yet, or CRLF was last."""
        self.octets = 0
        """Announced so far by all chunks; known before they are read."""

    def begin(self, octets: int, *, last: bool) -> None:
        """The next octets are a chunk of so many."""
        self._chunk = self._left = octets
        self._last = last
        self.octets += octets

    def next_event(self, source: Input) -> DataChunk | ChunkEnd | DataEnd | None:
        """A piece of the message, or the end of the chunk or of the message; None: octets are missing."""
        while self._left:
            block = source.take(self._left)
            if not block:
                return None
            self._left -= len(block)
            if piece := self._feed(block):
                return DataChunk(piece)
        if not self._last:
            return ChunkEnd(self._chunk)
        if piece := self._tail():
            return DataChunk(piece)
        return DataEnd(self.size, self.fault)

    def _feed(self, block: bytes) -> bytes:
        if self._held:
            block = self._held + block
            self._held = b""
        if block[-1:] == b"\r":
            self._held = b"\r"
            block = block[:-1]
        if not block:
            return b""
        self._ends_line = block[-2:] == b"\r\n" or (block[-1:] == b"\n" and self._normalize)
        return self.judge(block)

    def _tail(self) -> bytes:
        """What the end of the message still makes of it: a CR that stayed alone, a line without an end."""
        tail = self._held
        if tail or not self._ends_line:
            self._held = b""
            self._ends_line = True
            return self.judge(tail) + self.judge(b"\r\n")
        return b""


class RefusedChunk:
    """Reads over a chunk that nobody wants, then gives the refusal (RFC 3030 2).

    smtputf8  the message that ended with the refusal was one of RFC 6531
    """

    __slots__ = ("_left", "_reply", "smtputf8")

    def __init__(self, octets: int, reply: Reply, *, smtputf8: bool = False) -> None:
        self._left = octets
        self._reply = reply
        self.smtputf8 = smtputf8

    def next_event(self, source: Input) -> Refused | None:
        """The refusal, once the chunk has been read; None: octets are missing."""
        while self._left:
            block = source.take(self._left)
            if not block:
                return None
            self._left -= len(block)
        return Refused(self._reply, "BDAT")
