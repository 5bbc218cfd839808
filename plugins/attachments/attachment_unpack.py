"""What comes out of packed octets? Decompressed as far as it goes, checksums not believed.

Readers that unpack a damaged file keep what came before the damage, and many keep all of it when only its
checksum is wrong: so does this. Work is bounded by the caller's limit of octets.
"""

from __future__ import annotations

import binascii
import bz2
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

_PIECE = 65_536
_DRAIN = 16_384
"""Octets taken out of deflate at once: it has no checksums, and what is not taken yet costs a copy."""
_DRAIN_CHECKED = 512
"""Of bzip2 and xz: as many are lost when a checksum behind them is wrong."""
_UUENCODED = re.compile(rb"\nbegin(-base64)? [0-7]{3,4} ([^\r\n]{1,255})(?=[\r\n]|\Z)")
_LINE = re.compile(rb"[\r\n]+([^\r\n]+)")
_GZIP_EXTRA, _GZIP_NAME, _GZIP_COMMENT, _GZIP_CHECK = 4, 8, 16, 2


class BeyondBounds(Exception):  # noqa: N818 - a finding, not a mistake
    """More files, archives, names or octets than allowed; says which."""


class Decoder(Protocol):
    """bz2.BZ2Decompressor, lzma.LZMADecompressor, and Inflate."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Inflate:
    """Raw deflate (RFC 1951), in the manner of the other two."""

    def __init__(self) -> None:
        self._z = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._z.eof

    @property
    def needs_input(self) -> bool:
        return not self._z.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._z.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._z.decompress(self._z.unconsumed_tail + data, max_length)


def drained(decoder: Decoder, packed: memoryview, limit: int) -> tuple[bytes, bool, int]:
    """At most `limit` octets and a few more, whether the stream came to its end, and how long it was."""
    whole = bytearray()
    at = 0
    drain = min(limit, _DRAIN if isinstance(decoder, Inflate) else _DRAIN_CHECKED)
    try:
        while at < len(packed):
            piece = bytes(packed[at : at + _PIECE])
            at += len(piece)
            while True:
                whole += decoder.decompress(piece, drain)
                if decoder.eof:
                    return bytes(whole), True, at - len(decoder.unused_data)
                if len(whole) >= limit:
                    return bytes(whole), False, at
                if decoder.needs_input:
                    break
                piece = b""
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        pass
    return bytes(whole), False, at


def gunzipped(packed: memoryview, limit: int) -> tuple[bytes, bool, int, str]:
    """As drained(), of a gzip member (RFC 1952), and the name of the file that it says it was made of."""
    flags = packed[3] if len(packed) > 10 else 0
    at = 10
    name = b""
    if flags & _GZIP_EXTRA:
        at += 2 + int.from_bytes(packed[at : at + 2], "little")
    for flag in (_GZIP_NAME, _GZIP_COMMENT):
        if flags & flag:
            text = bytes(packed[at : at + _PIECE]).partition(b"\0")[0]
            name = text if flag == _GZIP_NAME else name
            at += len(text) + 1
    if flags & _GZIP_CHECK:
        at += 2
    content, whole, size = drained(Inflate(), packed[at:], limit)
    # A checksum and the size, of which nothing is believed.
    return content, whole and at + size + 8 <= len(packed), at + size + 8, name.decode("latin-1")


def zip_member(packed: memoryview, method: int, size: int, limit: int) -> tuple[bytes, bool]:
    """A member's content (APPNOTE.TXT 4.4.5), and whether it came to its end; size: packed, when stored.

    Raises NotImplementedError for a method that is none of stored, deflate, bzip2 and LZMA.
    """
    if method == _STORED:
        return bytes(packed[: min(size, limit)]), size <= len(packed)
    if method == _DEFLATED:
        return drained(Inflate(), packed, limit)[:2]
    if method == _BZIP2:
        return drained(bz2.BZ2Decompressor(), packed, limit)[:2]
    if method == _LZMA and len(packed) > 9 and packed[4] < 9 * 5 * 5:
        sizes = packed[4]
        options = {
            "id": lzma.FILTER_LZMA1,
            "dict_size": min(max(4096, int.from_bytes(packed[5:9], "little")), limit + 4096),
            "lc": sizes % 9,
            "lp": sizes // 9 % 5,
            "pb": sizes // 45,
        }
        try:
            decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options])
        except (lzma.LZMAError, ValueError):
            return b"", False
        return drained(decoder, packed[9:], limit)[:2]
    raise NotImplementedError(method)


_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14


@dataclass
class Texts:
    """What is left for this message: files that stand in its texts, and their lines."""

    files: int
    lines: int


def uuencoded(text: bytes, left: Texts) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that stands in a text behind a line `begin MODE NAME`.

    Raises BeyondBounds.
    """
    text = b"\n" + text
    begin = _UUENCODED.search(text)
    while begin is not None:
        following = _UUENCODED.search(text, begin.end())
        content = bytearray()
        left.files -= 1
        if left.files < 0:
            raise BeyondBounds("more uuencoded files than are looked at")
        for match in _LINE.finditer(text, begin.end(), following.start() if following else len(text)):
            line = match[1]
            left.lines -= 1
            if left.lines < 0:
                raise BeyondBounds("more uuencoded lines than are looked at")
            if line.startswith((b"end", b"====")):
                break
            content += _base64_line(line) if begin[1] else _uu_line(line)
        yield begin[2].decode("utf-8", "replace"), bytes(content)
        begin = following


def _uu_line(line: bytes) -> bytes:
    # What stands behind the signs that the length speaks of is nobody's.
    signs = (((line[0] - 32) & 63) * 4 + 5) // 3 if line else 0
    try:
        return binascii.a2b_uu(line[:signs]) if line else b""
    except binascii.Error:
        return b""


def _base64_line(line: bytes) -> bytes:
    try:
        return binascii.a2b_base64(line)
    except binascii.Error:
        return b""
