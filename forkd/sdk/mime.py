"""What parts has a message? A bounded, tolerant walk through MIME, for checks rather than for reading.

A check must see whatever some mail reader might show, so this walk believes little: every boundary line
counts, the closing one too; preamble and epilogue are parts; all names that a part gives itself are told,
not only the first; parts inside attached messages are walked as well. Nothing here raises on what a
message says, and work is bounded by MAX_PARTS and MAX_DEPTH: `Walk.cut` says that a bound was met.

Standard library only: this module also runs inside sandboxes.
"""

from __future__ import annotations

import binascii
import re

from forkd.sdk.headers import Headers, decode_words, text_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PARTS = 2_000
"""Real mail has below 100."""
MAX_DEPTH = 32
"""Of multiparts and attached messages within each other; real mail has below 10."""

_PARAMETER = re.compile(
    r""";\s*([!#$%&+\-^_`{|}~\w.']+?)(?:\*(\d{1,3}))?(\*)?\s*=\s*("(?:[^"\\]|\\.)*"?|[^\s;]*)""", re.DOTALL
)
"""name, continuation, extended (RFC 2231 3, 4), value; tolerant of what RFC 2045 forbids."""
_END_OF_HEADER = re.compile(rb"\n\r?\n")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_TYPE = re.compile(r"[\w!#$&^.+\-]+/[\w!#$&^.+\-]+")
_ATTACHED = ("message/rfc822", "message/global", "message/news")


class Part:
    """One leaf of the tree: neither a multipart nor an attached message.

    content_type  lower case, `text/plain` where none is given or it has no form
    names         every file name the part gives itself, decoded, in the order found; often none
    encoding      its Content-Transfer-Encoding, lower case
    depth         0 for a message without parts
    charset       of a text, as declared, lower case; `us-ascii` where none is
    span          where its octets lie in the message, (start, end); None inside an attached message that was
                  base64 or quoted-printable
    """

    __slots__ = (
        "_buffer",
        "_end",
        "_start",
        "charset",
        "content_type",
        "depth",
        "encoding",
        "names",
        "span",
    )

    def __init__(
        self,
        buffer: bytes,
        place: tuple[int, int],
        headers: Headers | None,
        content_type: str,
        depth: int,
    ) -> None:
        """Made by Walk: the octets buffer[start:end] at `place`, below `headers`."""
        self._buffer = buffer
        self._start, self._end = place
        self.content_type = content_type
        self.depth = depth
        self.encoding = "7bit"
        self.charset = "us-ascii"
        self.names: list[str] = []
        self.span: tuple[int, int] | None = None
        if headers is not None:
            declared = parameter(headers.get("Content-Type") or "", "charset")
            self.charset = declared[0].strip().lower() if declared else "us-ascii"
            self.encoding = _token(headers.get("Content-Transfer-Encoding") or "7bit")
            self.names = file_names(headers)

    def raw(self) -> bytes:
        """Its octets as they stand in the message."""
        return self._buffer[self._start : self._end]

    def content(self, limit: int = 1 << 30) -> bytes:
        """Its octets with base64 and quoted-printable undone, the first `limit` of them.

        What is damaged is decoded as far as it goes, as mail readers do.
        """
        if self.encoding == "base64":
            # Room for line ends: a line of 76 signs carries 57 octets.
            return _from_base64(self._buffer[self._start : min(self._end, self._start + limit * 2)])[:limit]
        if self.encoding == "quoted-printable":
            return binascii.a2b_qp(self._buffer[self._start : min(self._end, self._start + limit * 3)])[
                :limit
            ]
        return self._buffer[self._start : min(self._end, self._start + limit)]

    def __repr__(self) -> str:
        return f"<Part {self.content_type} {self.names}>"


class Walk:
    """The parts of one message: iterate once.

    cut  after the walk: MAX_PARTS or MAX_DEPTH kept it from seeing everything.
    """

    __slots__ = ("_message", "_seen", "cut")

    def __init__(self, message: bytes) -> None:
        """Take a whole message, header and body."""
        self._message = message
        self._seen = 0
        self.cut = False

    def __iter__(self) -> Iterator[Part]:
        todo = [(self._message, 0, len(self._message), 0, "text/plain")]
        while todo:
            buffer, start, end, depth, default = todo.pop()
            self._seen += 1
            if self._seen > MAX_PARTS:
                self.cut = True
                return
            headers, body = _header(buffer, start, end)
            declared = headers.get("Content-Type") or ""
            content_type = _media_type(declared) or default
            part = Part(buffer, (body, end), headers, content_type, depth)
            if buffer is self._message:
                part.span = (body, end)
            if depth >= MAX_DEPTH:
                self.cut = True
                yield part
            elif content_type.startswith("multipart/") and (mark := parameter(declared, "boundary")):
                inner = "message/rfc822" if content_type == "multipart/digest" else "text/plain"
                pieces = list(_pieces(buffer, body, end, mark[0]))
                if len(pieces) > 1 and not buffer[slice(*pieces[-1])].strip():
                    del pieces[-1]  # an epilogue that says nothing, as nearly always
                yield from self._preamble(buffer, *pieces[0], depth)
                todo += [(buffer, *piece, depth + 1, inner) for piece in reversed(pieces[1:])]
            elif content_type in _ATTACHED:
                if part.encoding in ("base64", "quoted-printable"):
                    inside = part.content()
                    todo.append((inside, 0, len(inside), depth + 1, "text/plain"))
                else:
                    todo.append((buffer, body, end, depth + 1, "text/plain"))
                if part.names:
                    yield part
            else:
                yield part

    def _preamble(self, buffer: bytes, start: int, end: int, depth: int) -> Iterator[Part]:
        """No part to MIME, text to an old reader."""
        if buffer[start:end].strip():
            yield Part(buffer, (start, end), None, "text/plain", depth + 1)


def file_names(headers: Headers) -> list[str]:
    """Every file name in the part's Content-Disposition and Content-Type fields, decoded."""
    found: list[str] = []
    for field, wanted in (("Content-Disposition", "filename"), ("Content-Type", "name")):
        for value in headers.get_all(field):
            for name in parameter(value, wanted):
                if name and name not in found:
                    found.append(name)
    return found


def parameter(value: str, wanted: str) -> list[str]:
    """Every value that a structured field gives a parameter: plain, quoted, RFC 2047, RFC 2231.

    RFC 2231 forms come first, as readers prefer them; continued ones are joined in the order of their
    numbers.
    """
    plain: list[str] = []
    whole: list[str] = []
    pieces: dict[int, tuple[str, bool]] = {}
    for match in _PARAMETER.finditer(f";{value.partition(';')[2]}"):
        if match[1].lower() != wanted:
            continue
        text = match[4]
        if text.startswith('"'):
            text = re.sub(r"\\(.)", r"\1", text[1:-1] if len(text) > 1 and text.endswith('"') else text[1:])
        if match[2] is not None:
            pieces.setdefault(int(match[2]), (text, bool(match[3])))
        elif match[3]:
            whole.append(_extended(text))
        else:
            plain.append(_words(text))
    if pieces:
        whole.append(_joined(pieces))
    return whole + plain


def _joined(pieces: dict[int, tuple[str, bool]]) -> str:
    octets = bytearray()
    charset = "utf-8"
    for number in sorted(pieces):
        text, extended = pieces[number]
        if extended and number == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        octets += _percent(text) if extended else text.encode("utf-8", "replace")
    return text_in(charset or "utf-8", bytes(octets))


def _extended(text: str) -> str:
    """RFC 2231 4: charset'language'octets in percent form."""
    if text.count("'") < 2:
        return text_in("utf-8", _percent(text))
    charset, _, text = text.split("'", 2)
    return text_in(charset or "utf-8", _percent(text))


def _percent(text: str) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), text.encode("utf-8", "replace"))


def _words(text: str) -> str:
    """RFC 2047 within quotes is forbidden there (its section 5) and understood by every reader."""
    return decode_words(text) if "=?" in text else text


def _header(buffer: bytes, start: int, end: int) -> tuple[Headers, int]:
    """The fields of the entity at start:end, and where its body begins."""
    if buffer.startswith((b"\n", b"\r\n"), start, end):
        return Headers(b""), start + (1 if buffer.startswith(b"\n", start) else 2)
    found = _END_OF_HEADER.search(buffer, start, end)
    headers = Headers(buffer[start : found.end() if found else end])
    return headers, min(start + headers.body_offset, end)


def _pieces(buffer: bytes, start: int, end: int, boundary: str) -> Iterator[tuple[int, int]]:
    """What lies between the lines that begin with --boundary; the first piece is the preamble."""
    mark = re.escape(b"--" + boundary.encode("utf-8", "replace").rstrip(b" \t"))
    line = re.compile(rb"(?<![^\n])" + mark + rb"(?:--)?[ \t]*(?:\r?\n|\r?\Z)")
    at = start
    for match in line.finditer(buffer, start, end):
        yield at, max(at, _before_line_end(buffer, match.start()))
        at = match.end()
    yield at, max(at, end)


def _before_line_end(buffer: bytes, at: int) -> int:
    """The line end before a boundary belongs to the boundary (RFC 2046 5.1.1)."""
    if buffer.endswith(b"\r\n", 0, at):
        return at - 2
    return at - 1 if buffer.endswith(b"\n", 0, at) else at


def _media_type(value: str) -> str:
    match = _TYPE.match(value.strip())
    return match[0].lower() if match else ""


def _token(value: str) -> str:
    return value.partition(";")[0].strip().lower()


def _from_base64(octets: bytes) -> bytes:
    signs = _NOT_BASE64.sub(b"", octets)
    return binascii.a2b_base64(signs[: len(signs) // 4 * 4] + _last_quantum(signs))


def _last_quantum(signs: bytes) -> bytes:
    rest = signs[len(signs) // 4 * 4 :]
    return rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""
