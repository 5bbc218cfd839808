"""Which sessions is a plugin shown? Built-in ones, mail from .eml files, or what a file of sessions says.

A file of sessions is TOML:

    [[session]]
    name = "a friend"                       # optional
    client_ip = "192.0.2.7"                 # and any other fact of forkd.sdk.Session
    helo = "client.example"
    auth = { user = "joe", secret = "…" }   # only for plugins with the hook auth
    [[session.mail]]
    sender = "joe@client.example"           # "" is the null sender
    recipients = ["a@test.local"]
    eml = "letter.eml"                      # from this file's folder; or the mail itself: message = "…"
    smtputf8 = false
"""

from __future__ import annotations

import base64
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.kit.letter import wire

CLIENT: Final = "client.example"
SENDER: Final = "joe@client.example"
RECIPIENT: Final = "a@test.local"


class SampleError(Exception):
    """A sample cannot be used; the text is for the author."""


class Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What SASL has got."""

    user: str
    secret: str = ""


class Mail(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One transaction."""

    sender: str = SENDER
    recipients: tuple[str, ...] = (RECIPIENT,)
    parameters: dict[str, str | None] = msgspec.field(default_factory=dict)
    body: str = "7BIT"
    smtputf8: bool = False
    eml: str = ""
    message: str = ""
    octets: bytes = b""
    """The mail, lines ending in CRLF; made of eml or message where they are given."""


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One session."""

    name: str = ""
    client_ip: str = "192.0.2.1"
    client_port: int = 40_000
    client_name: str = CLIENT
    local_ip: str = "192.0.2.25"
    local_port: int = 25
    listener: str = "default"
    tls_version: str = ""
    tls_cipher: str = ""
    client_certificate: str = ""
    user: str = ""
    relay: bool = False
    proxied: bool = False
    xclient: bool = False
    exports: dict[str, str] = msgspec.field(default_factory=dict)
    helo: str = CLIENT
    auth: Login | None = None
    mail: tuple[Mail, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    session: tuple[Sample, ...]


def builtin() -> list[Sample]:
    """Sessions that every plugin should get through: one mail each, of a kind that breaks careless code."""
    return [_sample(name, **mail) for name, mail in _BUILTIN]


def of_mail(file: Path) -> Sample:
    """One session with the mail of an .eml file; its envelope is that of the samples. Raises SampleError."""
    return _sample(file.name, octets=_read(file))


def of_file(file: Path) -> list[Sample]:
    """The sessions that a TOML file describes. Raises SampleError."""
    try:
        found = msgspec.convert(tomllib.loads(_read(file).decode()), _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SampleError(f"{file}: {error}") from error
    return [
        msgspec.structs.replace(
            sample,
            name=sample.name or f"session {number}",
            mail=tuple(_loaded(mail, file.parent) for mail in sample.mail),
        )
        for number, sample in enumerate(found.session, start=1)
    ]


def _loaded(mail: Mail, folder: Path) -> Mail:
    octets = _read(folder / mail.eml) if mail.eml else mail.message.encode()
    return msgspec.structs.replace(mail, octets=wire(octets))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SampleError(f"{file}: {(error.strerror or str(error)).lower()}") from error


def _sample(name: str, **mail: Any) -> Sample:
    octets = wire(mail.pop("octets"))
    login = Login("joe", "a secret")
    return Sample(name=name, auth=login, mail=(Mail(octets=octets, **mail),))


def _text(subject: str, body: bytes, *fields: str) -> bytes:
    head = [
        f"From: Joe <{SENDER}>",
        f"To: {RECIPIENT}",
        f"Subject: {subject}",
        "Date: Mon, 23 Nov 2026 06:00:00 +0000",
        "Message-ID: <1@client.example>",
        *fields,
    ]
    return "\n".join(head).encode() + b"\n\n" + body + b"\n"


_ATTACHMENT: Final = b"""This is a message of several parts.
--=part
Content-Type: text/plain; charset=us-ascii

See the attached file.
--=part
Content-Type: application/zip; name="report.zip"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="report.zip"

%b
--=part--
""" % base64.encodebytes(b"PK\5\6" + bytes(18)).strip()

_BUILTIN: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("plain", {"octets": _text("hello", b"A few words.")}),
    (
        "attachment",
        {
            "octets": _text(
                "a file",
                _ATTACHMENT,
                "MIME-Version: 1.0",
                'Content-Type: multipart/mixed; boundary="=part"',
            )
        },
    ),
    ("null sender", {"sender": "", "octets": _text("Undelivered mail", b"It did not arrive.")}),
    (
        "many recipients",
        {
            "recipients": tuple(f"user{n}@test.local" for n in range(1, 101)),
            "octets": _text("to all of you", b"A hundred of you."),
        },
    ),
    (
        "SMTPUTF8",
        {
            "sender": "jörg@bücher.example",
            "recipients": ("žofie@test.local",),
            "smtputf8": True,
            "body": "8BITMIME",
            "octets": _text("Grüße", "Größe: 42 €".encode()),
        },
    ),
    (
        "8-bit",
        {
            "body": "8BITMIME",
            "octets": _text(
                "=?iso-8859-1?q?Gr=FC=DFe?=",
                b"Gr\xfc\xdfe, und \x80 ist kein Zeichen.",
                "MIME-Version: 1.0",
                "Content-Type: text/plain; charset=iso-8859-1",
                "Content-Transfer-Encoding: 8bit",
            ),
        },
    ),
    (
        "odd charset",
        {
            "octets": _text(
                "=?x-nobody-knows?q?what=FF?= =?iso-2022-jp?b?GyRCJCIbKEI=?=",
                b"=FF=FE",
                "MIME-Version: 1.0",
                "Content-Type: text/plain; charset=x-nobody-knows",
                "Content-Transfer-Encoding: quoted-printable",
            )
        },
    ),
    ("no header, no body", {"octets": b"\n"}),
)
