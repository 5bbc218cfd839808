"""Which names lie in an archive? Listed without unpacking to disk, within bounds over one message.

Everything here comes from strangers. zipfile and tarfile are used to read directories only; whatever they
raise means "damaged", and what is unpacked, to look into inner archives, is counted octet by octet.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_SNIFF = (
    (b"MZ", "application/x-dosexec"),
    (b"\x7fELF", "application/x-executable"),
    (b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (b"\xce\xfa\xed\xfe", "application/x-mach-binary"),
    (b"\xca\xfe\xba\xbe", "application/x-mach-binary"),
    (b"#!", "text/x-shellscript"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/x-rar"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"%PDF-", "application/pdf"),
)
SNIFF_OCTETS = 512
"""How many octets detect() wants to see."""
_STREAMS = ("application/gzip", "application/x-bzip2", "application/x-xz")
READABLE = frozenset({"application/zip", "application/x-tar", *_STREAMS})

_LOCAL_NAME = re.compile(rb"PK\x03\x04.{22}(..)..", re.DOTALL)
"""A zip's local file header, as far as its name, whose length is the group (APPNOTE.TXT 4.3.7)."""
_ENCRYPTED = 0x1
_PIECE = 65_536


def detect(head: bytes) -> str:
    """The media type that the first octets show, or empty."""
    for magic, media_type in _SNIFF:
        if head.startswith(magic):
            return media_type
    return "application/x-tar" if head[257:262] == b"ustar" else ""


@dataclass
class Bounds:
    """What is left for this message."""

    depth: int
    members: int
    octets: int


class BeyondBounds(Exception):  # noqa: N818 - a finding, not a mistake
    """More archives, names or octets than allowed; says which."""


@dataclass(frozen=True)
class Member:
    """Something found in an archive; `path` begins with the outermost archive's name.

    name       its last part's whole name; empty where only a fact about the archive is told
    type       detected from its octets, or empty
    fact       "encrypted" or "damaged", of the archive; else empty
    """

    path: str
    name: str
    type: str = ""
    fact: str = ""


def members(archive: bytes, media_type: str, path: str, bounds: Bounds, depth: int = 1) -> Iterator[Member]:
    """All that lies in an archive and in those within it. Raises BeyondBounds."""
    if depth > bounds.depth:
        raise BeyondBounds(f"archives within each other beyond depth {bounds.depth}: {path}")
    if media_type == "application/zip":
        listed = _zip(archive, path, bounds)
    elif media_type == "application/x-tar":
        listed = _tar(archive, path, bounds)
    else:
        listed = _stream(archive, media_type, path, bounds)
    for member, content in listed:
        bounds.members -= 1
        if bounds.members < 0:
            raise BeyondBounds(f"too many names: {path}")
        yield member
        if content and member.type in READABLE:
            yield from members(content, member.type, member.path, bounds, depth + 1)


_Listed = Iterator[tuple[Member, bytes]]


def _zip(archive: bytes, path: str, bounds: Bounds) -> _Listed:
    named: set[str] = set()
    encrypted = False
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as directory:
            for info in directory.infolist():
                named.add(info.filename)
                if info.flag_bits & _ENCRYPTED:
                    encrypted = True
                    yield Member(f"{path}/{info.filename}", info.filename), b""
                    continue
                kind, content = _look(directory, info, bounds)
                yield Member(f"{path}/{info.filename}", info.filename, kind), content
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, RuntimeError):
        yield Member(path, "", fact="damaged"), b""
    except (zlib.error, lzma.LZMAError, UnicodeDecodeError, IndexError, OverflowError):
        yield Member(path, "", fact="damaged"), b""
    # A reader that goes by the local headers sees these names, whatever the directory says.
    for match in _LOCAL_NAME.finditer(archive):
        raw = archive[match.end() : match.end() + int.from_bytes(match[1], "little")]
        for name in (raw.decode("utf-8", "replace"), raw.decode("cp437")):
            if name and name not in named:
                named.add(name)
                yield Member(f"{path}/{name}", name), b""
    if encrypted:
        yield Member(path, "", fact="encrypted"), b""


def _look(directory: zipfile.ZipFile, info: zipfile.ZipInfo, bounds: Bounds) -> tuple[str, bytes]:
    """The type of a zip's member, and its content where that is an archive."""
    if info.is_dir():
        return "", b""
    try:
        with directory.open(info) as file:
            head = file.read(SNIFF_OCTETS)
            kind = detect(head)
            if kind not in READABLE:
                return kind, b""
            return kind, _all(head, file.read, bounds, info.filename)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, lzma.LZMAError, OSError):
        return "", b""


def _tar(archive: bytes, path: str, bounds: Bounds) -> _Listed:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as directory:
            for info in directory:
                file = directory.extractfile(info) if info.isreg() else None
                head = file.read(SNIFF_OCTETS) if file else b""
                kind = detect(head)
                content = _all(head, file.read, bounds, info.name) if file and kind in READABLE else b""
                yield Member(f"{path}/{info.name}", info.name, kind), content
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError):
        yield Member(path, "", fact="damaged"), b""


def _stream(archive: bytes, media_type: str, path: str, bounds: Bounds) -> _Listed:
    """gzip, bzip2, xz: one member, named as the archive without its last extension."""
    name = re.sub(r"(?i)\.(gz|tgz|bz2|tbz2?|xz|txz)$", "", path.rpartition("/")[2])
    try:
        content, whole = _unpacked(archive, media_type, bounds, path)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        yield Member(path, "", fact="damaged"), b""
        return
    if not whole:
        yield Member(path, "", fact="damaged"), b""
    yield Member(f"{path}/{name}", name, detect(content[:SNIFF_OCTETS])), content


def _unpacked(archive: bytes, media_type: str, bounds: Bounds, path: str) -> tuple[bytes, bool]:
    """What it holds, and whether it came to its end."""
    ended = False
    whole = bytearray()
    rest = archive
    while rest:
        piece = b""
        if media_type == "application/gzip":
            gzip = zlib.decompressobj(wbits=31)
            piece = gzip.decompress(rest, bounds.octets + 1)
            ended, rest = gzip.eof, gzip.unused_data
        else:
            other = bz2.BZ2Decompressor() if media_type == "application/x-bzip2" else lzma.LZMADecompressor()
            piece = other.decompress(rest, bounds.octets + 1)
            ended, rest = other.eof, other.unused_data
        whole += piece
        _count(len(piece), bounds, path)
        # Several streams behind each other are one file to gunzip; anything else behind is not looked at.
        if not ended or detect(rest) != media_type:
            break
    return bytes(whole), ended


def _all(head: bytes, read: object, bounds: Bounds, path: str) -> bytes:
    whole = bytearray(head)
    while piece := read(_PIECE):  # type: ignore[operator]
        whole += piece
        _count(len(piece), bounds, path)
    return bytes(whole)


def _count(octets: int, bounds: Bounds, path: str) -> None:
    bounds.octets -= octets
    if bounds.octets < 0:
        raise BeyondBounds(f"too much to unpack: {path}")
