"""What parts has a message? A bounded, tolerant walk through MIME, for checks rather than for reading.

A check must see whatever some mail reader might show, so this walk believes little: every boundary line
counts, the closing one too; preamble and epilogue are parts; all names that a part gives itself are told,
not only the first; parts inside attached messages are walked as well. Where readers differ in how they
take a malformed message, the usual reading comes first and the odd ones after it, as further parts
without a `span`:

- a field that may stand there once and stands there twice, a parameter likewise
- a line in a header that is no field: the header ends there, or the line is passed over
- a line that only begins with the boundary (RFC 2046 5.1.1 says that this suffices)
- a boundary where the type is no multipart, a multipart or an attached message that is base64

Nothing here raises on what a message says, and work is bounded by MAX_PARTS, MAX_DEPTH, MAX_HEADERS_BYTES,
MAX_PADDED and MAX_READ: `Walk.cut` says that a bound was met. It is said before the part that met it is
given, so who stops there has done little work.

Standard library only: this module also runs inside sandboxes.
"""

from __future__ import annotations

import re

from forkd.sdk.headers import MAX_FIELDS, MAX_HEADER_BYTES, Headers
from forkd.sdk.mime_fields import (
    MAX_SAME,
    beyond_bounds,
    distinct,
    file_names,
    media_type,
    parameter,
    token_of,
)
from forkd.sdk.mime_part import CODED, Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "MAX_DEPTH",
    "MAX_HEADERS_BYTES",
    "MAX_PADDED",
    "MAX_PARTS",
    "MAX_READ",
    "Part",
    "Walk",
    "file_names",
    "parameter",
]

MAX_PARTS = 2_000
"""Real mail has below 100."""
MAX_DEPTH = 32
"""Of multiparts and attached messages within each other; real mail has below 10."""
MAX_HEADERS_BYTES = MAX_HEADER_BYTES
"""Of all headers in a message together; a digest of 100 mails has half of it."""
MAX_PADDED = 100_000
"""Signs of padding in all base64; software that pads each KiB needs 25,000 for 25 MiB."""
MAX_READ = 40
"""How often a message's octets are read, in search of boundaries. Undoing an encoding counts for so many:"""
_DECODING = 16

_END_OF_HEADER = re.compile(rb"\n\r?\n")
_FIELD_OR_FOLD = re.compile(rb"[!-9;-~]+[ \t]*:|[ \t]+[^\s]")
_LF = 10
_ATTACHED = ("message/rfc822", "message/global", "message/news")


class _Entity:
    """Something with a header of its own, still to be looked at.

    usual  it lies in the message itself, and every reader finds it there.
    """

    __slots__ = ("buffer", "default", "depth", "end", "start", "usual")

    def __init__(
        self, buffer: bytes, place: tuple[int, int], depth: int, default: str = "text/plain", *, usual: bool
    ) -> None:
        self.buffer = buffer
        self.start, self.end = place
        self.depth = depth
        self.default = default
        self.usual = usual


class Walk:
    """The parts of one message: iterate once.

    cut  after the walk: a bound, of this module or of forkd.sdk.headers, kept it from seeing everything.
    """

    __slots__ = ("_headers", "_message", "_met", "_odd", "_padded", "_read", "_seen", "_todo", "cut")

    def __init__(self, message: bytes) -> None:
        """Take a whole message, header and body."""
        self._message = message
        self._todo = [_Entity(message, (0, len(message)), 0, usual=True)]
        self._odd: list[_Entity] = []
        self._met: set[tuple[int, int]] = set()
        """Places in the message that were looked at."""
        self._seen = 0
        self._headers = 0
        self._padded = 0
        self._read = MAX_READ * (len(message) + MAX_HEADERS_BYTES)
        """Octets that may still be read."""
        self.cut = False

    def __iter__(self) -> Iterator[Part]:
        while self._todo or self._odd:
            entity = self._todo.pop() if self._todo else self._odd.pop()
            if entity.buffer is self._message:
                place = (entity.start, entity.end)
                if place in self._met:
                    continue
                self._met.add(place)
            self._seen += 1
            if self._seen > MAX_PARTS:
                self.cut = True
                return
            headers, body = _header(entity.buffer, entity.start, entity.end)
            self._headers += body - entity.start
            if self._headers > MAX_HEADERS_BYTES:
                self.cut = True
                return
            if len(headers) >= MAX_FIELDS or body - entity.start >= MAX_HEADER_BYTES:
                self.cut = True
            yield from self._entity(entity, headers, body, usual=entity.usual)
            if not _ends_empty(entity, body):
                other = _header_with_strange_lines(entity.buffer, entity.start, entity.end)
                if other is not None:
                    self._headers += other[1] - entity.start
                    yield from self._entity(entity, *other, usual=False)

    def _entity(self, entity: _Entity, headers: Headers, body: int, *, usual: bool) -> Iterator[Part]:
        buffer, end, depth = entity.buffer, entity.end, entity.depth
        if beyond_bounds(headers):
            self.cut = True
        fields = headers.get_all("Content-Type")[:MAX_SAME] or [""]
        types = distinct(media_type(field) or entity.default for field in fields)
        coded = headers.get_all("Content-Transfer-Encoding")[:MAX_SAME]
        encodings = distinct(map(token_of, coded))
        marks = distinct(mark for field in fields for mark in parameter(field, "boundary") if mark)
        if len(marks) > MAX_SAME:
            self.cut = True
            del marks[MAX_SAME:]
        part = Part(buffer, (body, end), headers, types[0], depth)
        if usual and buffer is self._message:
            part.span = (body, end)
        if "base64" in encodings and self._may_read(end - body):
            self._padded += buffer.count(b"=", body, end)
            self.cut = self.cut or self._padded > MAX_PADDED
        if depth >= MAX_DEPTH:
            self.cut = self.cut or bool(marks) or types[0] in _ATTACHED
            yield part
            return
        multipart = types[0].startswith("multipart/") and any(parameter(fields[0], "boundary"))
        if multipart:
            yield from self._multipart(entity, body, marks[0], types[0], usual=usual)
        elif types[0] in _ATTACHED:
            self._attached(entity, part, body, usual=usual)
            if part.names:
                yield part
        else:
            yield part
        # From here on what only some readers do.
        for other in types[1:]:
            if other in _ATTACHED:
                self._attached(entity, part, body, usual=False)
            elif not other.startswith("multipart/"):
                yield _other(part, other, part.encoding)
        if not multipart:
            for encoding in encodings[1:]:
                yield _other(part, part.content_type, encoding)
        for place, mark in enumerate(marks):
            self._strange_pieces(entity, body, mark, seen=multipart and place == 0)
        if marks:
            for encoding in CODED:
                if encoding in encodings and self._may_read(_DECODING * (end - body)):
                    inside = b"Content-Type: %b\r\n\r\n" % "; ".join(fields).encode("utf-8", "replace")
                    inside += _other(part, "", encoding).content()
                    self._odd.append(_Entity(inside, (0, len(inside)), depth + 1, usual=False))

    def _multipart(
        self, entity: _Entity, body: int, mark: str, media_type: str, *, usual: bool
    ) -> Iterator[Part]:
        """As RFC 2046 5.1 has it, but that what stands around the parts is looked at as well."""
        buffer, depth = entity.buffer, entity.depth
        inner = "message/rfc822" if media_type == "multipart/digest" else "text/plain"
        lines = self._boundary_lines(entity, body, mark)
        pieces = list(_pieces(buffer, body, entity.end, [line for line in lines if line[2]]))
        if len(pieces) > 1 and not buffer[slice(*pieces[-1])].strip():
            del pieces[-1]  # an epilogue that says nothing, as nearly always
        preamble, *rest = pieces
        if buffer[slice(*preamble)].strip():
            # No part to MIME, text to an old reader.
            yield Part(buffer, preamble, None, "text/plain", depth + 1)
        found = [_Entity(buffer, piece, depth + 1, inner, usual=usual) for piece in reversed(rest)]
        (self._todo if usual else self._odd).extend(found)

    def _strange_pieces(self, entity: _Entity, body: int, mark: str, *, seen: bool) -> None:
        """What lies between all lines that begin with the boundary; seen: between boundary lines it was."""
        buffer = entity.buffer
        lines = self._boundary_lines(entity, body, mark)
        if seen and all(exact for *_, exact in lines):
            return
        pieces = list(_pieces(buffer, body, entity.end, lines))[1:]
        self._odd += [
            _Entity(buffer, piece, entity.depth + 1, usual=False)
            for piece in reversed(pieces)
            if buffer[slice(*piece)].strip()
        ]

    def _attached(self, entity: _Entity, part: Part, body: int, *, usual: bool) -> None:
        whole = _Entity(entity.buffer, (body, entity.end), entity.depth + 1, usual=usual)
        if part.encoding not in CODED:
            (self._todo if usual else self._odd).append(whole)
            return
        if not self._may_read(_DECODING * (entity.end - body)):
            return
        inside = part.content()
        self._todo.append(_Entity(inside, (0, len(inside)), entity.depth + 1, usual=False))
        whole.usual = False
        self._odd.append(whole)

    def _boundary_lines(self, entity: _Entity, body: int, mark: str) -> list[tuple[int, int, bool]]:
        if not self._may_read(entity.end - body):
            return []
        lines = _boundary_lines(entity.buffer, body, entity.end, mark)
        self.cut = self.cut or len(lines) > MAX_PARTS
        return lines

    def _may_read(self, octets: int) -> bool:
        """Charge for reading so many octets; false, and cut, when that is more than there may be."""
        self._read -= octets
        self.cut = self.cut or self._read < 0
        return self._read >= 0


def _other(part: Part, content_type: str, encoding: str) -> Part:
    """The same octets, taken for something else."""
    other = Part(part._buffer, (part._start, part._end), None, content_type, part.depth)
    other.encoding, other.charset, other.names = encoding, part.charset, part.names
    return other


def _header(buffer: bytes, start: int, end: int) -> tuple[Headers, int]:
    """The fields of the entity at start:end, and where its body begins."""
    if buffer.startswith((b"\n", b"\r\n"), start, end):
        return Headers(b""), start + (1 if buffer.startswith(b"\n", start) else 2)
    found = _END_OF_HEADER.search(buffer, start, end)
    headers = Headers(buffer[start : found.end() if found else end])
    return headers, min(start + headers.body_offset, end)


def _ends_empty(entity: _Entity, body: int) -> bool:
    """The header ends with an empty line, or with the entity."""
    header = entity.buffer[entity.start : body]
    return body >= entity.end or header in (b"\n", b"\r\n") or header.endswith((b"\n\n", b"\n\r\n"))


def _header_with_strange_lines(buffer: bytes, start: int, end: int) -> tuple[Headers, int] | None:
    """The header of readers that pass over a line which is no field; None: there is no end of a header."""
    found = _END_OF_HEADER.search(buffer, start, end)
    if found is None:
        return None
    lines = buffer[start : min(found.end(), start + MAX_HEADER_BYTES)].splitlines(keepends=True)
    return Headers(b"".join(line for line in lines if _FIELD_OR_FOLD.match(line))), found.end()


def _boundary_lines(buffer: bytes, start: int, end: int, mark: str) -> list[tuple[int, int, bool]]:
    """Lines that begin with the boundary: start, end, and is there nothing else but white space?

    At most one more than MAX_PARTS.
    """
    mark_line = b"--" + mark.encode("utf-8", "replace").rstrip(b" \t")
    found: list[tuple[int, int, bool]] = []
    # Behind a line end it is looked for in C: a mark that stands a million times in its lines costs nothing.
    at_once = buffer.startswith(mark_line, start, end)
    at = start if at_once else buffer.find(b"\n" + mark_line, start, end) + 1 or -1
    while at >= 0 and len(found) <= MAX_PARTS:
        after = at + len(mark_line)
        line_end = buffer.find(b"\n", after, end) + 1 or end
        rest = buffer[after:line_end].removeprefix(b"--")
        found.append((at, line_end, not rest.strip(b" \t\r\n")))
        at = buffer.find(b"\n" + mark_line, line_end - 1, end) + 1 or -1
    return found


def _pieces(
    buffer: bytes, start: int, end: int, lines: Iterable[tuple[int, int, bool]]
) -> Iterator[tuple[int, int]]:
    """What lies between the lines; the first piece is the preamble."""
    at = start
    for line, line_end, _ in lines:
        yield at, max(at, _before_line_end(buffer, line))
        at = line_end
    yield at, max(at, end)


def _before_line_end(buffer: bytes, at: int) -> int:
    """The line end before a boundary belongs to the boundary (RFC 2046 5.1.1)."""
    if buffer.endswith(b"\r\n", 0, at):
        return at - 2
    return at - 1 if buffer.endswith(b"\n", 0, at) else at
