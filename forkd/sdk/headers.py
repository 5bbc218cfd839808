"""What is in the header of a message? A bounded, tolerant scanner that looks only when asked.

The bytes come from anybody, so nothing here raises on them, and work and memory are bounded by
MAX_HEADER_BYTES and MAX_FIELDS. Lines may end in CRLF or LF. The header ends at the first empty
line, or before the first line that is neither a field nor a continuation: there Postfix, Sendmail
and Python's email package begin the body too, so a check and a reader see the same fields.

Values are text for looking at (UTF-8, what is not becomes U+FFFD); whoever needs the exact bytes
takes raw_fields(). Standard library only: this module also runs inside sandboxes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HEADER_BYTES = 1 << 20
"""What lies beyond is taken for body (Exim's header_maxsize has the same value)."""
MAX_FIELDS = 10_000
"""Further fields are taken for body. Real mail has below 200; a field costs some 100 bytes of index."""

_NAME_OCTETS = bytes(octet for octet in range(33, 127) if octet != ord(":"))
"""RFC 5322 3.6.8 ftext: printable, no colon, no space."""
_MBOX_LINES = (b"From ", b">From ")
"""An mbox separator as first line is skipped: old software sends it, and it is no field."""
_LF = 10
_CR = 13
_CONTINUATION = (32, 9)


def split_header(message: bytes | bytearray) -> int:
    """Return the offset of the body: behind the empty line, or where the header ends without one.

    message  a message or its beginning; a header that does not end in it gives len(message).
    Cost     about 0.2 µs for each line of the header; the body is not looked at.
    """
    return _scan(message)[1]


class Headers:
    """The fields of one header, in their order; names are compared without case.

    >>> headers = Headers(b"Subject: hello\\r\\n world\\r\\nTo: a@example.org\\r\\n\\r\\nbody")
    >>> headers.get("subject")
    'hello world'
    >>> "cc" in headers
    False
    """

    __slots__ = ("_body", "_fields", "_raw")

    def __init__(self, raw: bytes) -> None:
        """Take a header or a whole message; nothing is scanned before the first question."""
        self._raw = raw
        self._fields: list[tuple[str, int, int, int]] | None = None
        self._body = 0

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first field of that name, unfolded and stripped; `default` when there is none."""
        wanted = name.lower()
        for have, _, value, end in self._index():
            if have.lower() == wanted:
                return self._text(value, end)
        return default

    def get_all(self, name: str) -> list[str]:
        """All fields of that name, top first."""
        wanted = name.lower()
        return [self._text(value, end) for have, _, value, end in self._index() if have.lower() == wanted]

    def count(self, name: str) -> int:
        """How many fields have that name."""
        wanted = name.lower()
        return sum(1 for have, *_ in self._index() if have.lower() == wanted)

    def items(self) -> Iterator[tuple[str, str]]:
        """Every field as (name as written, unfolded value), top first."""
        for name, _, value, end in self._index():
            yield name, self._text(value, end)

    def raw_fields(self) -> Iterator[tuple[str, bytes]]:
        """Every field as (name as written, its bytes with name, folds and line ends), top first."""
        for name, start, _, end in self._index():
            yield name, self._raw[start:end]

    @property
    def raw(self) -> bytes:
        """The header's bytes as they came, without the empty line behind it."""
        fields = self._index()
        return self._raw[: fields[-1][3] if fields else 0]

    @property
    def body_offset(self) -> int:
        """Where the body begins in the bytes this was made from; see split_header."""
        self._index()
        return self._body

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name, *_ in self._index())

    def __len__(self) -> int:
        return len(self._index())

    def __repr__(self) -> str:
        return f"<Headers {[name for name, *_ in self._index()]}>"

    def _index(self) -> list[tuple[str, int, int, int]]:
        if self._fields is None:
            self._fields, self._body = _scan(self._raw)
        return self._fields

    def _text(self, value: int, end: int) -> str:
        # RFC 5322 2.2.3: unfolding takes away the line end before white space, nothing else.
        octets = self._raw[value:end].rstrip()
        if b"\n" in octets:
            octets = octets.replace(b"\r\n", b"").replace(b"\n", b"")
        return octets.decode("utf-8", "replace").strip(" \t\r\n")


def _scan(raw: bytes | bytearray) -> tuple[list[tuple[str, int, int, int]], int]:
    """Fields as (name, start, start of the value, end with its line end), and the body's offset."""
    fields: list[tuple[str, int, int, int]] = []
    limit = min(len(raw), MAX_HEADER_BYTES)
    at = 0
    if raw.startswith(_MBOX_LINES):
        at = raw.find(b"\n", 0, limit) + 1 or limit
    while at < limit:
        end = raw.find(b"\n", at, limit) + 1 or limit
        first = raw[at]
        if first == _LF or (first == _CR and raw[at + 1 : end] == b"\n"):
            return fields, end
        colon = raw.find(b":", at, end)
        if colon <= at or len(fields) >= MAX_FIELDS:
            return fields, at
        # Obsolete syntax allows white space before the colon (RFC 5322 4.5).
        name = raw[at:colon].rstrip(b" \t")
        if not name or name.translate(None, _NAME_OCTETS):
            return fields, at
        while end < limit and raw[end] in _CONTINUATION:
            end = raw.find(b"\n", end, limit) + 1 or limit
        fields.append((name.decode("ascii"), at, colon + 1, end))
        at = end
    return fields, at
