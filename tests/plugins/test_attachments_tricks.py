"""attachments, for who wants to get a program past it: malformed MIME, and odd archives that some unpack."""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import io
import lzma
import struct
import zipfile
import zlib

import pytest

from tests.plugins.test_attachments import EXE, ask, stopped, tarred, zipped

HIDDEN = (
    b"Content-Disposition: attachment; filename=a.exe\r\nContent-Transfer-Encoding: base64\r\n\r\nTVqQ\r\n"
)
ZIP = zipped(("evil.exe", b"x" * 50))
TAR = tarred(("evil.exe", b"x"))


def coded(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", b"\r\n")


def mixed(part: bytes, content_type: bytes = b"multipart/mixed; boundary=b") -> bytes:
    return b"Subject: x\r\nContent-Type: %b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n%b\r\n--b--\r\n" % (
        content_type,
        part,
    )


def disposed(parameters: bytes) -> bytes:
    return mixed(b"Content-Disposition: attachment; " + parameters + b"\r\n\r\nx")


def encoded(how: bytes, octets: bytes = coded(ZIP)) -> bytes:
    return mixed(b"%b\r\nContent-Disposition: attachment; filename=a\r\n\r\n%b" % (how, octets))


STRUCTURE = {
    "a line that begins with the boundary": mixed(b"\r\nx").replace(
        b"--b--", b"--bjunk\r\n" + HIDDEN + b"--b--"
    ),
    "junk behind every boundary": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b x\r\n"
    + HIDDEN
    + b"--b-- y",
    "text first": b"Content-Type: text/plain\r\n" + mixed(HIDDEN),
    "two boundaries, last": mixed(HIDDEN, b"multipart/mixed; boundary=a; boundary=b"),
    "two boundaries, first": mixed(HIDDEN, b"multipart/mixed; boundary=b; boundary=a"),
    "boundary of RFC 2231": mixed(HIDDEN, b"multipart/mixed; boundary*=us-ascii''b; boundary=a"),
    "boundary with a space": mixed(HIDDEN, b'multipart/mixed; boundary="b "'),
    "boundary with a comment": mixed(HIDDEN, b"multipart/mixed; boundary=b(x)"),
    "type behind a comment": mixed(HIDDEN, b"(x) multipart/mixed; boundary=b"),
    "type with spaces": mixed(HIDDEN, b"multipart / mixed; boundary=b"),
    "type misspelt": mixed(HIDDEN, b"multpart-mixed; boundary=b"),
    "no semicolon": mixed(HIDDEN, b"multipart/mixed boundary=b"),
    "no field in the part's header": mixed(b"X: y\r\nno field\r\n" + HIDDEN),
    "white space before the part's header": mixed(b" \r\n" + HIDDEN),
    "no field in the message's header": mixed(HIDDEN).replace(
        b"Subject: x\r\n", b"Subject: x\r\nno field\r\n"
    ),
    "no field before the message's header": b"no field\r\n" + mixed(HIDDEN),
    "too many fields": mixed(b"X: y\r\n" * 10_001 + HIDDEN),
    "a field too long": mixed(b"X: " + b"y" * (1 << 20) + b"\r\n" + HIDDEN),
    "too many types": b"".join(b"Content-Type: a/b%d\r\n" % n for n in range(9)) + mixed(HIDDEN),
    "a multipart in base64": b"Content-Type: multipart/mixed; boundary=b\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n" + coded(b"--b\r\n" + HIDDEN + b"--b--\r\n"),
    "an attached message that only says base64": b"Content-Type: message/rfc822\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n" + mixed(HIDDEN),
}


@pytest.mark.parametrize("message", STRUCTURE.values(), ids=STRUCTURE.keys())
def test_a_part_is_found_however_its_message_is_malformed(message: bytes):
    """RFC 2046 5.1.1 and readers that take more than it says."""
    assert ask(message).verdict is not None


NAMES = (
    b"filename=(x)a.exe",
    b"filename=a.exe(x)",
    b"filename=a.(x(y))exe",
    b'(x)filename(y)=(z)"a.exe"(w)',
    b'filename="a.exe',
    b'filename="a.exe; x=y',
    b'filename=a.exe"',
    b'filename="a.ex"e',
    b"filename='a.exe'",
    b"\tfilename\t=\ta.exe\t",
    b"filename=my nice a.exe; x=y",
    b"x=y filename=a.exe",
    b"name=a.exe",
    b'filename*0="a.txt"; filename*0="a.exe"',
    b'filename*0="a.exe"; filename*0="a.txt"',
    b'filename*0="a.exe"; filename*2=".txt"',
    b'filename="=?utf-8?Q?a.e?= =?utf-8?Q?xe?="',
    b"filename*=utf-8''a.exe%00.txt",
    b"filename*=utf-8''a.exe%00",
    b"filename*=utf-8''a.e%00xe",
    b"filename*=utf-8''a.%E2%80%AEexe",
    b"filename*=utf-8''a.%EF%BD%85%EF%BD%98%EF%BD%85",
    b"filename*=utf-8''a.exe%E2%80%8B",
    b"filename*=utf-8''a.exe%C2%A0",
    b'filename="a.exe::$DATA"',
    b'filename="a.exe/"',
    b'filename="a.exe\\\\"',
)


@pytest.mark.parametrize("parameters", NAMES)
def test_a_name_is_found_however_it_is_written(parameters: bytes):
    """Comments, forgotten quotes, RFC 2231 pieces twice or with a gap, NUL, unseen and full-width signs."""
    assert ask(disposed(parameters)).verdict is not None


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Disposition: attachment filename=a.exe",
        b"Content-Disposition: filename=a.exe",
        b"Content-Disposition: =?utf-8?Q?attachment;_filename=3Da.exe?=",
        b"Content-Type: application/x; filename=a.exe",
    ],
)
def test_a_name_is_found_in_a_malformed_field(field: bytes):
    assert ask(mixed(field + b"\r\n\r\nx")).verdict is not None


UU = binascii.b2a_uu(ZIP[:45]) + binascii.b2a_uu(ZIP[45:90]) + binascii.b2a_uu(ZIP[90:135])
UU += b"".join(binascii.b2a_uu(ZIP[at : at + 45]) for at in range(135, len(ZIP), 45))
ENCODINGS = {
    "base64 behind empty lines": encoded(b"Content-Transfer-Encoding: base64", b"\r\n" * 4000 + coded(ZIP)),
    "base64 behind garbage": encoded(b"Content-Transfer-Encoding: base64", b"!!!!\r\n----\r\n" + coded(ZIP)),
    "base64 in two": encoded(b"Content-Transfer-Encoding: base64", coded(ZIP[:1]) + coded(ZIP[1:])),
    "two encodings": encoded(b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64"),
    "a comment": encoded(b"Content-Transfer-Encoding: (x) base64"),
    "quotes": encoded(b'Content-Transfer-Encoding: "base64"'),
    "more words": encoded(b"Content-Transfer-Encoding: base64 foo"),
    "quoted-printable behind soft line ends": encoded(
        b"Content-Transfer-Encoding: quoted-printable", b"=\r\n" * 2000 + binascii.b2a_qp(ZIP, istext=False)
    ),
    "uuencoded in html": mixed(
        b"Content-Type: text/html\r\n\r\nx\r\nbegin 644 a.exe\r\n#0V%T\r\n`\r\nend\r\n"
    ),
    "uuencoded in anything": mixed(b"Content-Type: a/b\r\n\r\nx\r\nbegin 644 a.exe\r\n#0V%T\r\n`\r\nend\r\n"),
    "uuencoded zip": b"Subject: x\r\n\r\nhello\r\nbegin 644 a.zip\r\n"
    + UU.replace(b"\n", b"\r\n")
    + b"`\r\nend\r\n",
}


@pytest.mark.parametrize("message", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_content_is_found_however_it_is_encoded(message: bytes):
    assert ask(message).verdict is not None


@pytest.mark.parametrize("octets", [b"\r\n" * 4000 + coded(EXE), coded(b"M") + coded(EXE[1:]), b"TV=qQAAA="])
def test_a_type_is_detected_however_it_is_encoded(octets: bytes):
    """Padding in the middle ends the group, or is passed over: readers differ."""
    message = mixed(b"Content-Transfer-Encoding: base64\r\n\r\n" + octets)
    assert ask(message, names=[], types=["application/x-dosexec"]).verdict is not None


def zip_by(method: int, content: bytes = ZIP, **how: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, archive.open("b", "w", **how) as member:
        member.write(content)
    return file.getvalue()


def changed(octets: bytes, at: int, new: bytes) -> bytes:
    return octets[:at] + new + octets[at + len(new) :]


class OneWay(io.RawIOBase):
    """Cannot be wound back: zipfile writes sizes behind the members."""

    def __init__(self) -> None:
        self.octets = b""

    def writable(self) -> bool:
        return True

    def write(self, more: bytes) -> int:  # type: ignore[override]
        self.octets += bytes(more)
        return len(more)


def streamed() -> bytes:
    file = OneWay()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b", ZIP)
    return file.octets


def renamed() -> bytes:
    """In a field of its own, in UTF-8 (APPNOTE.TXT 4.6.9)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("a.txt")
        info.extra = struct.pack("<HHBL", 0x7075, 5 + len(b"evil.exe"), 1, zlib.crc32(b"a.txt")) + b"evil.exe"
        archive.writestr(info, b"x")
    return file.getvalue()


def old_tar() -> bytes:
    """From before POSIX: no magic."""
    header = bytearray(TAR[:512])
    header[257:] = bytes(512 - 257)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + TAR[512:]


def flipped(octets: bytes, at: int) -> bytes:
    at %= len(octets)
    return changed(octets, at, bytes([octets[at] ^ 1]))


def with_name() -> bytes:
    file = io.BytesIO()
    with gzip.GzipFile("evil.exe", "wb", fileobj=file) as packed:
        packed.write(b"x")
    return file.getvalue()


NESTED = zip_by(zipfile.ZIP_DEFLATED)
DIRECTORY = NESTED.rindex(b"PK\1\2")
ONE = tarred(("a.txt", b"x"))
ARCHIVES = {
    "zip behind junk": b"junk" * 10 + ZIP,
    "zip behind a picture": b"\xff\xd8\xff" + b"j" * 70_000 + ZIP,
    "zip without directory": NESTED[:DIRECTORY],
    "zip whose names differ": changed(NESTED, NESTED.index(b"b"), b"c"),
    "zip with a wrong checksum": changed(NESTED, DIRECTORY + 16, b"abcd"),
    "zip that says it is empty": changed(NESTED, DIRECTORY + 24, bytes(4)),
    "zip with another name in UTF-8": renamed(),
    "zip with data descriptors": streamed(),
    "zip64": zip_by(zipfile.ZIP_STORED, force_zip64=True),
    "zip by bzip2": zip_by(zipfile.ZIP_BZIP2),
    "zip by LZMA": zip_by(zipfile.ZIP_LZMA),
    "tar without magic": old_tar(),
    "tar with a broken header": ONE[:1024] + b"\xff" * 512 + TAR,
    "tar behind its end": ONE[:1024] + bytes(1024) + TAR,
    "gzip with a wrong checksum": flipped(gzip.compress(TAR, mtime=0), -6),
    "gzip cut": gzip.compress(TAR, mtime=0)[:-10],
    "gzip with a name": with_name(),
    "bzip2 with a wrong checksum": flipped(bz2.compress(TAR), -5),
    "bzip2 with a wrong checksum of its block": flipped(bz2.compress(TAR), 11),
    "xz with a wrong checksum": flipped(lzma.compress(TAR), -40),
}


@pytest.mark.parametrize("archive", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_an_archive_is_read_as_its_readers_do(archive: bytes):
    """Checksums, sizes and one of several names can lie; what is unpacked all the same is looked at."""
    assert stopped(("a.bin", archive))


def test_a_member_that_cannot_be_read_is_damage():
    """A method nobody here knows (Deflate64): its content is not known to be harmless."""
    octets = changed(changed(NESTED, DIRECTORY + 10, b"\x09\0"), 8, b"\x09\0")
    assert not stopped(("a.zip", octets))
    assert stopped(("a.zip", octets), damaged="stop")


PLAIN = {
    "boundaries that begin alike": mixed(
        b"Content-Type: multipart/alternative; boundary=bc\r\n\r\n"
        b"--bc\r\n\r\nx\r\n--bc\r\nContent-Type: text/html\r\n\r\ny\r\n--bc--"
    ),
    "a boundary's beginning in a text": mixed(b"\r\n--b is where the part begins\r\n--beware\r\n"),
    "a header without empty line": b"Subject: x\r\nhello: there\r\nthis is the body already\r\n",
    "a text about names": b"Subject: x\r\n\r\nfilename=a.exe\r\n"
    b"Content-Disposition: attachment; filename=b.exe\r\n",
    "a name with brackets": disposed(b'filename="report (final).pdf"; size=12'),
    "a folder named as a script": mixed(
        b"Content-Transfer-Encoding: base64\r\n\r\n"
        + coded(zipped(("node_modules/chart.js/", b""), ("node_modules/chart.js/README", b"x")))
    ),
    "many files in a zip": mixed(
        b"Content-Transfer-Encoding: base64\r\n\r\n"
        + coded(zipped(*[(f"{n}.txt", b"x") for n in range(9_000)]))
    ),
}


@pytest.mark.parametrize("message", PLAIN.values(), ids=PLAIN.keys())
def test_plain_mail_is_not_stopped(message: bytes):
    assert ask(message).verdict is None
    assert ask(message, damaged="stop").verdict is None


HOSTILE = {
    "fields": b"Content-Type: a/b; " + b"a " * 400_000,
    "brackets": b"Content-Type: a/b; " + b"(" * 900_000,
    "quotes": b"Content-Type: a/b; " + b'a="' * 300_000,
    "parameters": b"Content-Type: a/b; " + b"name=a " * 100_000,
    "boundaries": b"Content-Type: multipart/b; " + b"".join(b"boundary=%d;" % n for n in range(50_000)),
    "uuencoded": b"Subject: x\r\n\r\n" + b"begin 644 a.txt\r\n" * 100_000,
    "uuencoded, in many parts": b"".join(
        (
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
            *[b"--b\r\n\r\n" + b"begin 644 a.txt\r\n#AAAA\r\n" * 100 + b"\r\n"] * 20,
            b"--b--\r\n",
        )
    ),
    "uuencoded lines": b"Subject: x\r\n\r\nbegin 644 a.txt\r\n" + b"#AAAA\r\n" * 600_000,
    "names": b"Content-Disposition: attachment; filename=" + "\ufdfa".encode() * 1_001,
    "streams": b"Content-Type: a/b\r\n\r\n" + gzip.compress(b"", mtime=0) * 11_000,
    "readings": b"".join(b"Content-Type: a/b%d\r\n" % n for n in range(8)) + b"\r\n" + b"x" * 4_000_000,
}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_message_that_is_made_to_cost_much_is_stopped(message: bytes):
    """Before it costs much: what is looked at is bounded, and what goes beyond hides something."""
    assert ask(message + b"\r\n\r\nx\r\n").verdict is not None
