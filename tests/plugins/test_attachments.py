"""attachments: its manual page, sentence by sentence. Archives are made by the real programs' formats."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkd.sdk.testing import Answer, assert_denied, assert_passed, load_plugin

FOLDER = Path(__file__).parent.parent.parent / "plugins" / "attachments"
EXE = b"MZ\x90\0" + b"\0" * 60


def mail(*attachments: tuple[str, bytes], text: str = "hello") -> bytes:
    parts = [f"\r\n{text}\r\n".encode()]
    for name, content in attachments:
        head = (
            f'Content-Disposition: attachment; filename="{name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        )
        parts.append(head.encode() + base64.encodebytes(content).replace(b"\n", b"\r\n"))
    body = b"".join(b"--=b\r\n" + part + b"\r\n" for part in parts) + b"--=b--\r\n"
    return b'Subject: x\r\nContent-Type: multipart/mixed; boundary="=b"\r\n\r\n' + body


def ask(message: bytes, **settings: Any) -> Answer:
    session = load_plugin(FOLDER, settings=settings).session()
    return session.deliver(message, sender="a@example.org", recipients=["user@test.local"])


def stopped(*attachments: tuple[str, bytes], **settings: Any) -> bool:
    return ask(mail(*attachments), **settings).verdict is not None


def zipped(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def tarred(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_mail_without_attachments_passes():
    assert_passed(ask(b"Subject: x\r\n\r\nhello\r\n"))
    assert_passed(ask(mail(("photo.jpg", b"\xff\xd8\xff"), ("letter.pdf", b"%PDF-1.7"))))


@pytest.mark.parametrize(
    "name",
    [
        "a.exe",
        "A.EXE",
        "invoice.pdf.exe",
        "a.exe ",
        "a.exe.",
        "a.exe. .",
        "dir/a.exe",
        r"C:\\x\\a.scr",
        "x.js",
        "y.lnk",
    ],
)
def test_a_forbidden_name_stops_it(name: str):
    """Without case, without white space and dots at the end, without what stands before the last slash."""
    assert_denied(ask(mail(("ok.txt", b"x"), (name, b"x"))), code=550, enhanced="5.7.1")


@pytest.mark.parametrize("name", ["a.exe.txt", "exe", "aexe", "a.exes"])
def test_other_names_pass(name: str):
    assert not stopped((name, b"x"))


def test_own_lists_take_the_place_of_the_default():
    assert stopped(("secret-1.doc", b"x"), names=["secret-?.*"])
    assert not stopped(("a.exe", b"x"), names=["secret-?.*"])
    assert not stopped(("a.exe", b"x"), names=[])


def test_the_refusal_has_the_admins_text_and_no_word_of_the_message():
    answer = ask(mail(("evil\u202e.exe", b"x")), text="no programs")
    assert answer.verdict is not None
    assert answer.verdict.text == "no programs"


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (EXE, "application/x-dosexec"),
        (b"\x7fELF\x02\x01", "application/x-executable"),
        (b"\xcf\xfa\xed\xfe\x07", "application/x-mach-binary"),
        (b"#!/bin/sh\n", "text/x-shellscript"),
        (zipped(("a", b"x")), "application/zip"),
        (gzip.compress(b"x", mtime=0), "application/gzip"),
        (bz2.compress(b"x"), "application/x-bzip2"),
        (lzma.compress(b"x"), "application/x-xz"),
        (tarred(("a", b"x")), "application/x-tar"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "application/x-7z-compressed"),
        (b"Rar!\x1a\x07\x01\0", "application/x-rar"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "application/x-ole-storage"),
        (b"%PDF-1.4", "application/pdf"),
    ],
)  # fmt: skip
def test_types_are_detected_from_the_octets(content: bytes, media_type: str):
    """Whatever the part calls itself."""
    assert stopped(("harmless.txt", content), types=[media_type])
    assert not stopped(("harmless.txt", b"text"), types=[media_type])


def test_declared_types_count_too():
    message = b"Content-Type: Application/X-MSDownload\r\n\r\nx\r\n"
    assert_denied(ask(message, types=["application/x-ms*"]))
    assert_passed(ask(message, types=["application/zip"]))


PACKED: dict[str, Callable[[bytes], tuple[str, bytes]]] = {
    "zip": lambda content: ("a.zip", zipped(("sub/evil.exe", content))),
    "zip that calls itself a picture": lambda content: ("a.jpg", zipped(("evil.exe", content))),
    "tar": lambda content: ("a.tar", tarred(("evil.exe", content))),
    "tgz": lambda content: ("a.tgz", gzip.compress(tarred(("evil.exe", content)), mtime=0)),
    "gz of one file": lambda content: ("evil.exe.gz", gzip.compress(content, mtime=0)),
    "bz2": lambda content: ("a.tar.bz2", bz2.compress(tarred(("evil.exe", content)))),
    "xz": lambda content: ("a.tar.xz", lzma.compress(tarred(("evil.exe", content)))),
    "zip in zip": lambda content: ("a.zip", zipped(("b.zip", zipped(("evil.exe", content))))),
    "zip in tgz in zip": lambda content: (
        "a.zip",
        zipped(("b", gzip.compress(tarred(("c", zipped(("evil.exe", content)))), mtime=0))),
    ),
}


@pytest.mark.parametrize("packed", PACKED.values(), ids=PACKED.keys())
def test_archives_are_looked_into(packed: Callable[[bytes], tuple[str, bytes]]):
    """By name and by detected type, also archives within archives; switched off they are one file."""
    assert stopped(packed(EXE))
    assert stopped(packed(EXE), names=[], types=["application/x-dosexec"])
    assert not stopped(packed(EXE), archives=False)
    assert not stopped(packed(b"harmless"), names=["*.scr"])


def test_names_before_the_members_count_as_much_as_the_directory():
    """A zip whose directory and local headers do not agree: readers differ in which they believe."""
    honest = zipped(("evil.exe", b"x"))
    at = honest.rindex(b"evil.exe")
    directory_lies = honest[:at] + b"good.txt" + honest[at + 8 :]
    assert stopped(("a.zip", directory_lies))
    members_lie = honest.replace(b"evil.exe", b"good.txt", 1)
    assert stopped(("a.zip", members_lie))


def test_zip_with_a_password():
    """Names can be read all the same; `encrypted` says what the rest means."""
    octets = bytearray(zipped(("good.txt", b"x")))
    octets[6] |= 1
    octets[octets.index(b"PK\x01\x02") + 8] |= 1
    assert not stopped(("a.zip", bytes(octets)))
    assert stopped(("a.zip", bytes(octets)), encrypted="stop")
    assert stopped(("a.zip", bytes(octets).replace(b"good.txt", b"evil.exe")))


@pytest.mark.parametrize(
    "content",
    [
        zipped(("a.txt", b"x" * 1000))[:60],
        b"PK\x03\x04" + b"\xff" * 200,
        gzip.compress(b"x" * 1000, mtime=0)[:12] + b"\xff" * 40,
        b"BZh9" + b"\xff" * 50,
        b"\xfd7zXZ\0" + b"\xff" * 50,
        tarred(("a", b"x"))[:300].ljust(600, b"\xff"),
    ],
    ids=["cut zip", "no zip", "no gzip", "no bzip2", "no xz", "no tar"],
)
def test_damaged_archives(content: bytes):
    """Passed or stopped as `damaged` says, never a failure of the plugin."""
    assert not stopped(("a.bin", content))
    assert stopped(("a.bin", content), damaged="stop")


BOMB = zipped(("b.tar", tarred(("z", b"\0" * (4 << 20)))))


@pytest.mark.parametrize(
    ("attachment", "settings"),
    [
        (("bomb.gz", gzip.compress(b"\0" * (4 << 20), mtime=0)), {"max_unpacked": 1 << 20}),
        (("bomb.zip", zipped(("a.zip", BOMB), ("c.zip", zipped(("d", b"\0"))))), {"max_unpacked": 1 << 20}),
        (("many.zip", zipped(*((f"{n}.txt", b"") for n in range(200)))), {"max_members": 100}),
        (("deep.zip", zipped(("b", zipped(("c", zipped(("d", b"x")))))) ), {"max_depth": 2}),
    ],
    ids=["gzip bomb", "zip bomb", "too many names", "too deep"],
)  # fmt: skip
def test_what_goes_beyond_the_bounds_is_stopped(attachment: tuple[str, bytes], settings: dict[str, int]):
    """It is made to hide something."""
    assert stopped(attachment, **settings)
    assert not stopped(attachment)


def test_uuencoded_files_in_a_text():
    """Older than MIME, and still unpacked by readers."""
    assert_denied(ask(b"Subject: x\r\n\r\nhello\r\nbegin 644 evil.exe\r\n#0V%T\r\n`\r\nend\r\n"))
    assert_passed(ask(b"Subject: x\r\n\r\nlet us begin 644 evil.exe\r\n"))


def test_attached_messages_are_looked_into():
    inner = mail(("evil.exe", b"x"))
    message = b"Content-Type: message/rfc822\r\n\r\n" + inner
    assert_denied(ask(message))


def test_quarantine_holds_it_with_the_reason():
    """action = "quarantine": taken, and held for an admin."""
    verdict = ask(mail(("ev\u00ecl.exe", b"x")), action="quarantine").verdict
    assert verdict is not None
    assert verdict.do == "quarantine"
    assert verdict.text == "attachment: name ev?l.exe"


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("action", "reject", "refuse or quarantine"),
        ("encrypted", "yes", "pass or stop"),
        ("damaged", "", "pass or stop"),
        ("max_depth", -1, "at least 1"),
        ("max_depth", 0, "at least 1"),
        ("max_depth", 51, "at most 50"),
        ("max_members", 0, "at least 1"),
        ("max_unpacked", -1, "at least 1"),
        ("names", ["*"], "every part"),
        ("names", ["*.js", ""], "every part"),
        ("names", ["*.exe."], "matches no name"),
        ("names", ["bin/*.exe"], "matches no name"),
        ("types", ["zip"], "TYPE/SUBTYPE"),
        ("types", ["text/plain; charset=utf-8"], "TYPE/SUBTYPE"),
        ("types", ["*/*"], "every part"),
        ("text", "two\nlines", "printable ASCII"),
    ],
)
def test_a_setting_without_sense_stops_the_start(name: str, value: Any, right: str):
    """What could never match, or would refuse all mail, is an error that names the setting."""
    with pytest.raises(ValueError, match=f"setting {name}: .*{right}"):
        load_plugin(FOLDER, settings={name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"names": ["?*", "a:b", "* copy.exe", "*.EXE*", "[ab].js"]},
        {"types": ["image/*", "application*", "*sexec", "Text/X-?"]},
        {"max_depth": 1, "max_members": 1, "max_unpacked": 1},
    ],
)
def test_odd_settings_with_sense_start(settings: dict[str, Any]):
    assert load_plugin(FOLDER, settings=settings)
