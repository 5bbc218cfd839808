"""What is in one part of a message? Its octets, with base64 and quoted-printable undone as readers do it.

Standard library only: this module also runs inside sandboxes.
"""

from __future__ import annotations

import binascii
import re

from forkd.sdk.mime_fields import file_names, parameter, token_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forkd.sdk.headers import Headers

CODED = ("base64", "quoted-printable")
"""Encodings that are undone."""
_NOT_BASE64 = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
)


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
        self, buffer: bytes, place: tuple[int, int], headers: Headers | None, content_type: str, depth: int
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
            self.encoding = token_of(headers.get("Content-Transfer-Encoding") or "7bit")
            self.names = file_names(headers)

    @property
    def size(self) -> int:
        """How many octets raw() gives."""
        return self._end - self._start

    def raw(self) -> bytes:
        """Its octets as they stand in the message."""
        return self._buffer[self._start : self._end]

    def content(self, limit: int = 1 << 30) -> bytes:
        """Its octets with base64 and quoted-printable undone, the first `limit` of them.

        What is damaged is decoded as far as it goes, as mail readers do; padding in the middle of base64
        ends a group of four signs, and the next begins.
        """
        return self._content(limit, _from_base64)

    def readings(self, limit: int = 1 << 30) -> list[bytes]:
        """content(), and what other readers make of base64 with padding in its middle: they pass over it."""
        found = [self.content(limit)]
        if self.encoding == "base64" and b"=" in self.raw().rstrip(b"= \t\r\n"):
            other = self._content(limit, lambda octets: _from_base64(octets.replace(b"=", b"")))
            if other != found[0]:
                found.append(other)
        return found

    def _content(self, limit: int, from_base64: Callable[[bytes], bytes]) -> bytes:
        if self.encoding not in CODED:
            return self._buffer[self._start : min(self._end, self._start + limit)]
        # A line of 76 signs carries 57 octets; what has line ends and nothing else carries none.
        size = self._end - self._start
        window = min(size, limit * 3)
        while True:
            octets = self._buffer[self._start : self._start + window]
            content = from_base64(octets) if self.encoding == "base64" else binascii.a2b_qp(octets)
            if len(content) >= limit or window >= size:
                return content[:limit]
            window = min(size, window * 8)

    def __repr__(self) -> str:
        return f"<Part {self.content_type} {self.names}>"


def _from_base64(octets: bytes) -> bytes:
    """What groups of four signs say; a shorter one ends at padding."""
    signs = octets.translate(None, _NOT_BASE64)
    if b"=" not in signs:
        return _groups(signs)
    return b"".join([_groups(group) for group in re.split(b"=+", signs)])


def _groups(signs: bytes) -> bytes:
    rest = len(signs) % 4
    if rest == 1:
        signs, rest = signs[:-1], 0
    return binascii.a2b_base64(signs + b"=" * (-rest % 4))
