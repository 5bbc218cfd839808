"""What is in the header of a message? A bounded, tolerant scanner that looks only when asked.

The bytes come from anybody, so nothing here raises on them, and work and memory are bounded by
MAX_HEADER_BYTES and MAX_FIELDS. Lines may end in CRLF or LF. The header ends at the first empty
line, or before the first line that is neither a field nor a continuation: there Postfix, Sendmail
and Python's email package begin the body too, so a check and a reader see the same fields.

Values are text for looking at (UTF-8, what is not becomes U+FFFD), and decoded() undoes the encoded
words of RFC 2047; whoever needs the exact bytes takes raw_fields(). Standard library only: this module
also runs inside sandboxes.
"""

from __future__ import annotations

import binascii
import re

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
_WORD = re.compile(r"=\?([A-Za-z0-9_.:+-]{1,40})(?:\*[A-Za-z0-9-]{0,40})?\?([BbQq])\?([^?\r\n]*)\?=")
"""RFC 2047 2, with the language of RFC 2231 5; long ones and ones with spaces too, as real mail has them."""
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
_NOT_FOR_MAIL = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"})
"""Python codecs that are no charsets; idna takes time with the square of the length (CVE-2022-45061)."""
_WORD_OCTETS = 45
"""What 75 octets of an encoded word hold: base64 of this and =?utf-8?b?…?= around it."""


def split_header(message: bytes | bytearray) -> int:
    """Return the offset of the body: behind the empty line, or where the header ends without one.

    message  a message or its beginning; a header that does not end in it gives len(message).
    Cost     about 0.2 µs for each line of the header; the body is not looked at.
    """
    return _scan(message)[1]


def missing_end(header: bytes | bytearray) -> bytes:
    """The line ends that a new body must bring along: none where the header ends in an empty line.

    Of a header of more than four octets the last four will do.
    """
    if header == b"\r\n" or header.endswith(b"\r\n\r\n"):
        return b""
    return b"\r\n" if not header or header.endswith(b"\r\n") else b"\r\n\r\n"


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

    def decoded(self, name: str, default: str | None = None) -> str | None:
        """As get(), with encoded words decoded (decode_words); for Subject and names, not for addresses."""
        value = self.get(name)
        return default if value is None else decode_words(value)

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


def decode_words(text: str) -> str:
    """Undo RFC 2047: `=?utf-8?q?gr=C3=BC=C3=9Fe?=` becomes `grüße`. Never raises; what is no word stays.

    Neighbours are joined before they are decoded, since some senders cut characters in the middle; octets
    that their charset does not have become U+FFFD, an unknown charset is read as Latin-1.
    """
    if "=?" not in text:
        return text
    parts: list[str] = []
    charset, octets, at = "", b"", 0
    for match in _WORD.finditer(text):
        between = text[at : match.start()]
        at = match.end()
        same = match[1].lower()
        apart = bool(between.strip(" \t\r\n"))
        if charset and (apart or same != charset):
            parts.append(text_in(charset, octets))
            octets = b""
        if apart or not charset:
            parts.append(between)
        charset = same
        octets += _word_octets(match[2], match[3])
    if charset:
        parts.append(text_in(charset, octets))
    parts.append(text[at:])
    return "".join(parts)


def encoded(text: str) -> str:
    """Any text as a header value in ASCII: words of RFC 2047 where it has more than ASCII.

    For unstructured fields (Subject, X-...) and comments: an address must keep its form.
    """
    if text.isascii():
        return text
    words: list[str] = []
    octets = b""
    for character in text:
        more = character.encode("utf-8", "replace")
        if len(octets) + len(more) > _WORD_OCTETS:
            words.append(_word(octets))
            octets = b""
        octets += more
    words.append(_word(octets))
    return " ".join(words)


def _word(octets: bytes) -> str:
    return f"=?utf-8?b?{binascii.b2a_base64(octets, newline=False).decode('ascii')}?="


def _word_octets(encoding: str, text: str) -> bytes:
    if encoding in "Qq":
        return binascii.a2b_qp(text.encode("utf-8", "replace"), header=True)
    signs = _NOT_BASE64.sub("", text)
    if len(signs) % 4 == 1:
        signs = signs[:-1]
    return binascii.a2b_base64(signs + "=" * (-len(signs) % 4))


def text_in(charset: str, octets: bytes) -> str:
    """Octets as text of a charset named in a message; of one that mail does not have, as Latin-1."""
    if charset.replace("-", "_") not in _NOT_FOR_MAIL:
        try:
            return octets.decode(charset, "replace")
        except (LookupError, ValueError):
            pass
    return octets.decode("latin-1")


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
