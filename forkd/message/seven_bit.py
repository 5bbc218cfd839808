"""How does a message go where octets beyond ASCII cannot? Its parts that have some become quoted-printable
(RFC 6152 3, RFC 2045 6.7), as Postfix makes them.

What is not a body stays as it is: raw octets in a header are old practice, to which quoted-printable has no
answer. A signature over a part that changes is void; its author sent eight bits where RFC 1847 2.1 asks for
seven.
"""

from __future__ import annotations

import binascii
import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from forkd.message.edits import apply
from forkd.message.header import values
from forkd.sdk.headers import MAX_HEADER_BYTES, split_header

MOST_NESTED: Final = 100
"""Multiparts within each other; what is deeper is one part (Postfix mime_nesting_limit)."""
_MULTIPART: Final = re.compile(
    rb'multipart/.*?;\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"()]+))', re.IGNORECASE | re.DOTALL
)
_NOT_ASCII: Final = bytes(octet if octet < 128 else ord("?") for octet in range(256))


def beyond_ascii(pieces: Iterable[bytes]) -> tuple[bool, bool]:
    """Whether the body has octets beyond ASCII, and whether the header has.

    Reads all pieces, holds the header. Raises what `pieces` raises.
    """
    begun, whole, body = b"", False, False
    for piece in pieces:
        if whole:
            body = body or not piece.isascii()
        else:
            begun += piece
            whole = b"\r\n\r\n" in begun or len(begun) > MAX_HEADER_BYTES
    if begun.isascii():
        return body, False
    end = split_header(begun)
    return body or not begun[end:].isascii(), not begun[:end].isascii()


def parts_beyond_ascii(pieces: Iterable[bytes]) -> frozenset[int]:
    """Which parts have such octets: by number, as encoded() needs it. Reads all pieces."""
    return frozenset(bit.part for bit in _split(pieces) if bit.kind == "body" and not bit.octets.isascii())


def encoded(pieces: Iterable[bytes], parts: frozenset[int]) -> Iterator[bytes]:
    """The message with those parts in quoted-printable, and nothing beyond ASCII outside of headers."""
    way = ""
    for bit in _split(pieces):
        if bit.kind == "header":
            way = _way(bit, parts)
            yield _header(bit, way)
        elif bit.kind == "body" and way == "quoted-printable":
            # In LF, since the encoder guesses at line ends from the first one that it sees.
            lines = binascii.b2a_qp(bit.octets.replace(b"\r\n", b"\n"), istext=True)
            yield lines.replace(b"\n", b"\r\n")
        else:
            yield bit.octets if bit.octets.isascii() else bit.octets.translate(_NOT_ASCII)


def _way(header: _Bit, parts: frozenset[int]) -> str:
    """The Content-Transfer-Encoding that a part gets; empty: what it has."""
    has = _encoding(header.octets)
    if header.leaf and header.part in parts and has in ("", "7bit", "8bit", "binary"):
        return "quoted-printable"
    return "7bit" if has in ("8bit", "binary") else ""


def _header(bit: _Bit, way: str) -> bytes:
    if not way:
        return bit.octets
    if _encoding(bit.octets):
        return apply(bit.octets, [_Edit("change_header", "Content-Transfer-Encoding", way, 1)])
    edits = [_Edit("add_header", "Content-Transfer-Encoding", way)]
    if bit.part == 0 and not values(bit.octets, b"mime-version"):
        edits.append(_Edit("add_header", "MIME-Version", "1.0"))
    if not values(bit.octets, b"content-type"):
        # Nobody knows what the octets mean (RFC 1428 3); nothing said is us-ascii, which they are not.
        edits.append(_Edit("add_header", "Content-Type", "text/plain; charset=unknown-8bit"))
    return apply(bit.octets, edits)


@dataclasses.dataclass(frozen=True, slots=True)
class _Edit:
    op: str
    name: str
    value: str
    n: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Bit:
    """Some octets of a message, whole lines of them."""

    kind: Literal["header", "body", "between"]
    """between: boundaries, and what stands around parts."""
    part: int
    """Counted by headers; 0: the message itself."""
    octets: bytes
    leaf: bool = True
    """Of a header: no other parts are in this one."""


def _split(pieces: Iterable[bytes]) -> Iterator[_Bit]:
    """The message in its parts. A line without an end is given in pieces of any length."""
    splitter = _Splitter()
    held = b""
    for piece in pieces:
        lines, end, rest = (held + piece).rpartition(b"\n")
        if end:
            yield from splitter.take(lines + end)
        held = rest
        if len(held) > MAX_HEADER_BYTES:
            yield from splitter.take(held)
            held = b""
    yield from splitter.take(held)
    yield from splitter.end()


class _Splitter:
    """Knows in which part it is."""

    def __init__(self) -> None:
        self._boundaries: list[bytes] = []
        self._known: set[bytes] = set()
        """Also such as are closed."""
        self._part = 0
        self._kind: Literal["header", "body", "between"] = "header"
        self._header = bytearray()

    def take(self, octets: bytes) -> Iterator[_Bit]:
        at = 0
        while at < len(octets):
            if self._kind == "header":
                end = octets.find(b"\n", at) + 1 or len(octets)
                line = octets[at:end]
                if self._boundaries and line.startswith(b"--") and self._is_boundary(line):
                    yield from self._header_ends()
                    continue
                self._header += line
                at = end
                if line == b"\r\n" or len(self._header) > MAX_HEADER_BYTES:
                    yield from self._header_ends()
                continue
            end = self._next_boundary(octets, at)
            if end > at:
                yield _Bit(self._kind, self._part, octets[at:end])
                at = end
            if at < len(octets):
                end = octets.find(b"\n", at) + 1 or len(octets)
                self._cross(octets[at:end])
                yield _Bit("between", self._part, octets[at:end])
                at = end

    def end(self) -> Iterator[_Bit]:
        if self._kind == "header" and self._header:
            yield from self._header_ends()

    def _header_ends(self) -> Iterator[_Bit]:
        header, part = bytes(self._header), self._part
        self._header.clear()
        kinds = values(header, b"content-type")
        kind = kinds[0] if kinds else b""
        found = _MULTIPART.match(kind)
        opaque = _encoding(header) in ("base64", "quoted-printable")
        leaf = False
        if found and not opaque and len(self._boundaries) < MOST_NESTED:
            boundary = re.sub(rb"\\(.)", rb"\1", found[1]) if found[1] is not None else found[2]
            self._boundaries.append(b"--" + boundary)
            self._known.add(b"--" + boundary)
            self._kind = "between"
        elif kind.lower().startswith(b"message/rfc822") and not opaque and header.endswith(b"\r\n\r\n"):
            self._part += 1
        else:
            leaf = True
            self._kind = "body"
        yield _Bit("header", part, header, leaf)

    def _next_boundary(self, octets: bytes, at: int) -> int:
        while self._boundaries and at < len(octets):
            if octets.startswith(b"--", at):
                end = octets.find(b"\n", at) + 1 or len(octets)
                if self._is_boundary(octets[at:end]):
                    return at
            found = octets.find(b"\n--", at)
            if found < 0:
                break
            at = found + 1
        return len(octets)

    def _is_boundary(self, line: bytes) -> bool:
        return self._depth_of(line) >= 0

    def _depth_of(self, line: bytes) -> int:
        """Which of the open multiparts it is of, the innermost first; -1: of none."""
        bare = line.rstrip(b" \t\r\n")
        if bare.removesuffix(b"--") not in self._known and bare not in self._known:
            return -1  # nearly all that begin so; some message is nothing else
        for depth in range(len(self._boundaries) - 1, -1, -1):
            if bare in (self._boundaries[depth], self._boundaries[depth] + b"--"):
                return depth
        return -1

    def _cross(self, line: bytes) -> None:
        depth = self._depth_of(line)
        closes = line.rstrip(b" \t\r\n") != self._boundaries[depth]
        del self._boundaries[depth + (not closes) :]
        self._part += 1
        self._kind = "between" if closes else "header"


def _encoding(header: bytes) -> str:
    found = values(header, b"content-transfer-encoding")
    return found[0].decode("ascii", "replace").strip().lower() if found else ""
