"""Which names lie in an archive? Listed without unpacking to disk, within bounds over one message.

Everything here comes from strangers. zipfile and tarfile are used to read directories only; whatever they
raise means "damaged", and what is unpacked, to look into inner archives, is counted octet by octet. Where
programs differ in which name they believe, every name counts.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from attachment_unpack import BeyondBounds, drained, gunzipped, zip_member

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

_LOCAL = re.compile(rb"PK\x03\x04..(..)(..).{8}(....).{4}(..)(..)", re.DOTALL)
"""A zip's local file header as far as its name: flags, method, packed size, and the lengths of the name and
of the extra field (APPNOTE.TXT 4.3.7)."""
_END_OF_ZIP = b"PK\x05\x06"
_END_OF_ZIP_WITHIN = 65_536 + 22
"""Where at a zip's end its directory is told of: before a comment."""
_UNICODE_NAME = 0x7075
"""Extra field with another name in UTF-8, which many programs prefer (APPNOTE.TXT 4.6.9)."""
_ENCRYPTED = 0x1


def detect(head: bytes) -> str:
    """The media type that the first octets show, or empty."""
    for magic, media_type in _SNIFF:
        if head.startswith(magic):
            return media_type
    return "application/x-tar" if head[257:262] == b"ustar" or _is_old_tar(head) else ""


def is_zip(octets: bytes) -> bool:
    """Does it end as a zip does? What stands before one is passed over by those who unpack it."""
    return octets.rfind(_END_OF_ZIP, max(0, len(octets) - _END_OF_ZIP_WITHIN)) >= 0


def _is_old_tar(head: bytes) -> bool:
    """A header of before POSIX has no magic, but it has its checksum."""
    if len(head) < SNIFF_OCTETS or not head[0]:
        return False
    try:
        told = int(head[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return told == sum(head[:148]) + 8 * 32 + sum(head[156:512])


@dataclass
class Bounds:
    """What is left for this message."""

    depth: int
    members: int
    octets: int


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
    known: dict[int, zipfile.ZipInfo] = {}
    facts: dict[str, None] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as directory:
            for info in directory.infolist():
                known[info.header_offset] = info
                for name in _distinct(info.filename, info.orig_filename, *_unicode_names(info.extra)):
                    named.add(name)
                    yield Member(f"{path}/{name}", name), b""
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, RuntimeError, IndexError):
        facts["damaged"] = None
    # A reader that goes by the local headers sees these names, whatever the directory says.
    octets = memoryview(archive)
    for match in _LOCAL.finditer(archive):
        flags, method, size, length, more = (int.from_bytes(text, "little") for text in match.groups())
        at = match.end()
        raw = archive[at : at + length]
        extra = archive[at + length : at + length + more]
        found = known.get(match.start())
        if found is not None:
            size, method = found.compress_size, found.compress_type
            flags |= found.flag_bits
        names = _distinct(raw.decode("utf-8", "replace"), raw.decode("cp437"), *_unicode_names(extra))
        for name in names:
            if name and name not in named:
                named.add(name)
                yield Member(f"{path}/{name}", name), b""
        if flags & _ENCRYPTED:
            facts["encrypted"] = None
            continue
        name = found.filename if found is not None else names[0]
        kind, content, whole = _look(octets[at + length + more :], method, size, bounds, f"{path}/{name}")
        if not whole:
            facts["damaged"] = None
        if kind or found is None:  # the others are told, and counted, already
            yield Member(f"{path}/{name}", name, kind), content
    for fact in facts:
        yield Member(path, "", fact=fact), b""


def _look(packed: memoryview, method: int, size: int, bounds: Bounds, path: str) -> tuple[str, bytes, bool]:
    """The type of a zip's member, its content where that is an archive, and whether it could be read."""
    try:
        head, whole = zip_member(packed, method, size, SNIFF_OCTETS)
    except NotImplementedError:
        return "", b"", False
    kind = detect(head[:SNIFF_OCTETS])
    if kind not in READABLE:
        return kind, b"", bool(whole or len(head) >= SNIFF_OCTETS)
    content, whole = zip_member(packed, method, size, bounds.octets + 1)
    _count(len(content), bounds, path)
    return kind, content, whole


def _unicode_names(extra: bytes) -> list[str]:
    """Version and checksum of the other name are not looked at: not everybody does."""
    names = []
    at = 0
    while at + 4 <= len(extra):
        kind = int.from_bytes(extra[at : at + 2], "little")
        size = int.from_bytes(extra[at + 2 : at + 4], "little")
        if kind == _UNICODE_NAME and size > 5:
            names.append(extra[at + 9 : at + 4 + size].decode("utf-8", "replace"))
        at += 4 + size
    return names


def _distinct(*names: str) -> list[str]:
    return list(dict.fromkeys(names))


def _tar(archive: bytes, path: str, bounds: Bounds) -> _Listed:
    """Also what lies behind a broken header or behind the end: tar has ways to go on."""
    empty = True
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", ignore_zeros=True) as directory:
            for info in directory:
                empty = False
                file = directory.extractfile(info) if info.isreg() else None
                kind = detect(file.read(SNIFF_OCTETS)) if file else ""
                content = b""
                if file and kind in READABLE:
                    file.seek(0)
                    content = file.read(bounds.octets + 1)
                    _count(len(content), bounds, path)
                yield Member(f"{path}/{info.name}", info.name, kind), content
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError):
        empty = True
    if empty:
        yield Member(path, "", fact="damaged"), b""


def _stream(archive: bytes, media_type: str, path: str, bounds: Bounds) -> _Listed:
    """gzip, bzip2, xz: one member, named as the archive without its last extension, or as gzip says."""
    name = re.sub(r"(?i)\.(gz|tgz|bz2|tbz2?|xz|txz)$", "", path.rpartition("/")[2])
    content, whole, inside = _unpacked(archive, media_type, bounds, path)
    if not whole:
        yield Member(path, "", fact="damaged"), b""
    if inside:
        yield Member(f"{path}/{inside}", inside), b""
    yield Member(f"{path}/{name}", name, detect(content[:SNIFF_OCTETS])), content


def _unpacked(archive: bytes, media_type: str, bounds: Bounds, path: str) -> tuple[bytes, bool, str]:
    """What it holds, whether it came to its end, and the name that stands in it."""
    whole = bytearray()
    name, ended = "", False
    rest = memoryview(archive)
    while rest:
        if media_type == "application/gzip":
            piece, ended, used, told = gunzipped(rest, bounds.octets + 1)
            name = name or told
        else:
            other = bz2.BZ2Decompressor() if media_type == "application/x-bzip2" else lzma.LZMADecompressor()
            piece, ended, used = drained(other, rest, bounds.octets + 1)
        whole += piece
        _count(len(piece), bounds, path)
        bounds.members -= 1
        if bounds.members < 0:
            raise BeyondBounds(f"too many streams: {path}")
        rest = rest[used:]
        # Several streams behind each other are one file to gunzip; anything else behind is not looked at.
        if not ended or detect(bytes(rest[:SNIFF_OCTETS])) != media_type:
            break
    return bytes(whole), ended, name


def _count(octets: int, bounds: Bounds, path: str) -> None:
    bounds.octets -= octets
    if bounds.octets < 0:
        raise BeyondBounds(f"too much to unpack: {path}")
