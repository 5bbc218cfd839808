"""Which octets does a message become on its way out, by DATA or by BDAT? (RFC 5321 4.5.2, RFC 3030)"""

from __future__ import annotations


class _Lines:
    """Makes every line end CRLF, over the borders of pieces, and ends the last line.

    A bare LF becomes CRLF and a bare CR a space, as on the way in (Content): what goes out must not be
    read in two ways, whoever has written it (RFC 5321 2.3.8). Cost: a replacement and two memchr a piece.
    """

    __slots__ = ("_held", "_line_start")

    def __init__(self) -> None:
        self._held = b""
        """A CR that only the next octet explains."""
        self._line_start = True
        """Nothing has gone yet, or CRLF went last."""

    def _even(self, piece: bytes) -> bytes:
        """The piece, but for a CR at its end."""
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece[-1:] == b"\r":
            self._held = b"\r"
            piece = piece[:-1]
        between = piece.replace(b"\r\n", b"")
        if b"\n" in between or b"\r" in between:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        return piece

    def _rest(self) -> bytes:
        """What the end makes of it."""
        if self._held or not self._line_start:
            rest = b" \r\n" if self._held else b"\r\n"
            self._held = b""
            return rest
        return b""


class DotWriter(_Lines):
    """For DATA: a dot before each line that begins with one, and the dot that ends it all."""

    __slots__ = ()

    def feed(self, piece: bytes) -> bytes:
        """What to send of a piece; little more than the piece itself is ever held."""
        piece = self._even(piece)
        if not piece:
            return b""
        stuffed = piece.replace(b"\r\n.", b"\r\n..")
        if self._line_start and piece[:1] == b".":
            stuffed = b"." + stuffed
        self._line_start = piece[-2:] == b"\r\n"
        return stuffed

    def end(self) -> bytes:
        """What to send at the end."""
        return self._rest() + b".\r\n"


class ChunkWriter(_Lines):
    """For BDAT: counted pieces, as they are. One chunk is held at most."""

    __slots__ = ("_chunk", "_octets", "_parts")

    def __init__(self, chunk_octets: int) -> None:
        super().__init__()
        self._chunk = chunk_octets
        self._parts: list[bytes] = []
        self._octets = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The chunks that are full now, each with its command."""
        piece = self._even(piece)
        if piece:
            self._line_start = piece[-2:] == b"\r\n"
            self._parts.append(piece)
            self._octets += len(piece)
        return self._full() if self._octets > self._chunk else []

    def end(self) -> list[bytes]:
        """The chunks that are left; the last is the last, and may be empty."""
        rest = self._rest()
        self._parts.append(rest)
        self._octets += len(rest)
        chunks = self._full()
        data = b"".join(self._parts)
        self._parts = []
        chunks.append(b"BDAT %d LAST\r\n%b" % (len(data), data))
        return chunks

    def _full(self) -> list[bytes]:
        """Whole chunks, while more than one is there: the last is kept, since it may be the last."""
        data, size = b"".join(self._parts), self._chunk
        full = max(0, (len(data) - 1) // size)
        self._parts = [data[full * size :]]
        self._octets = len(data) - full * size
        return [b"BDAT %d\r\n%b" % (size, data[i * size : (i + 1) * size]) for i in range(full)]
