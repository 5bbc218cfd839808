"""Transports of kind "smtp" and "lmtp": forkd/config/next_hop_checks.py and what load() fills in."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from forkd.config.addresses import parse_host
from forkd.config.next_hop_schema import Lmtp, NextHop, Smtp, password_length
from forkd.config.show import as_toml
from tests.support.config_files import loaded, problem
from tests.support.pki import Authority

SMTP = '[transport.t]\nkind = "smtp"\n'
LMTP = '[transport.t]\nkind = "lmtp"\n'
DOMAIN = '[domain."example.org"]\ntransport = "t"\n'


def notes(folder: Path, text: str) -> str:
    return "\n".join(note for note in loaded(folder, text + DOMAIN).notes if note.startswith("transport.t"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    authority = Authority(tmp_path)
    authority.pair("us.example.org", file="us")
    for name, octets in (
        ("pw", b"secret\n"),
        ("empty", b"\nsecret"),
        ("nul", b"a\0b\n"),
        ("latin", b"\xe9\n"),
    ):
        (tmp_path / name).write_bytes(octets)
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "key", "rule", "hint"),
    [
        (SMTP + 'hosts = ["mail.example.org:0"]', "hosts", "this is a host", ""),
        (SMTP + 'hosts = ["2001:db8::1"]', "hosts", "this is a host", '"[2001:db8::1]"'),
        (SMTP + 'hosts = ["[mail.example.org]"]', "hosts", "this is a host", '"mail.example.org"'),
        (SMTP + 'hosts = ["192.0.2.300"]', "hosts", "this is a host", ""),
        (SMTP + 'hosts = ["127.0.0.1:2525"]', "hosts", "in circles", ""),
        (SMTP + 'family = "ipv6"\nhosts = ["192.0.2.1"]', "hosts", "an IPv4 address", ""),
        (SMTP + 'source_ipv4 = "::1"', "source_ipv4", "an IPv4 address", ""),
        (SMTP + 'source_ipv6 = "localhost"', "source_ipv6", "an IPv6 address", ""),
        (SMTP + 'hostname = "a b"', "hostname", "a host name", ""),
        (SMTP + 'tls_fingerprints = ["ab:cd"]', "tls_fingerprints", "64 hexadecimal", "openssl x509"),
        (SMTP + f'tls_fingerprints = ["{"a" * 40}"]', "tls_fingerprints", "length of SHA-1", ""),
        (SMTP + 'tls = "required"\ntls_name = "*.example.org"', "tls_name", "name in the", '".example.org"'),
        (SMTP + 'tls_ca = "no.pem"', "tls_ca", "no such file", ""),
        (SMTP + 'tls_ca = "pw"', "tls_ca", "no certificate in this file", ""),
        (SMTP + 'tls_key = "us.key"', "tls_key", "there is none", ""),
        (SMTP + 'user = "u"\ntls = "required"', "user", "password is missing", "password_file"),
        (SMTP + 'password_file = "pw"', "password_file", "there is none", ""),
        (SMTP + 'user = "u"\npassword_file = "pw"', "user", "could go to anybody", "auth_without_tls"),
        (SMTP + 'tls = "implicit"\nuser = "u"\npassword_file = "empty"', "password_file", "is empty", ""),
        (SMTP + 'tls = "implicit"\nuser = "u"\npassword_file = "nul"', "password_file", "no NUL", ""),
        (SMTP + 'tls = "implicit"\nuser = "u"\npassword_file = "latin"', "password_file", "UTF-8", ""),
        (LMTP, "address", "must be set", "unix:"),
        (LMTP + 'address = "/run/lmtp"', "address", '"unix:/PATH" or "HOST:PORT"', '"unix:/run/lmtp"'),
        (LMTP + 'address = "store.example.org"', "address", '"HOST:PORT"', ""),
        (LMTP + 'address = "store.example.org:25"', "address", "not spoken on port 25", ""),
        (LMTP + 'address = "unix:run/lmtp"', "address", "whole path", ""),
        (LMTP + f'address = "unix:/{"a" * 107}"', "address", "107 octets", ""),
        (LMTP + 'address = "unix:/etc/passwd"', "address", "no socket", ""),
        (LMTP + 'address = "unix:/run/no"\ntls = "required"', "tls", "not spoken over a unix", '"off"'),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(files: Path, text: str, key: str, rule: str, hint: str):
    """At start, not with the first mail; and a password goes to nobody but the server that is meant."""
    found = problem(files, text + "\n" + DOMAIN)
    assert found.key == key
    assert rule in found.rule
    assert hint in found.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SMTP + "port = 465", "servers speak TLS at once on port 465"),
        (SMTP + 'tls = "required"', "goes only to domains whose servers have a certificate"),
        (SMTP + 'tls_name = "a.example.org"', 'with tls = "opportunistic" no certificate is looked at'),
        (SMTP + f'tls = "required"\ntls_name = "a.test"\ntls_fingerprints = ["{"a" * 64}"]', "decide"),
        (SMTP + 'tls = "off"\ntls_certificate = "us.pem"\ntls_key = "us.key"', "tls_certificate is not used"),
        (SMTP + 'family = "ipv4"\nsource_ipv6 = "::1"', "source_ipv6 is not used"),
        (SMTP + "auth_without_tls = true", "auth_without_tls is not used"),
        (LMTP + 'address = "unix:/run/no/such"', "/run/no/such could not be looked at"),
    ],
)
def test_what_has_no_effect_is_said(files: Path, text: str, said: str):
    assert said in notes(files, text + "\n")


def test_a_password_that_everybody_may_read_is_said(files: Path):
    """As with keys of certificates; and nothing that is shown has it."""
    (files / "pw").chmod(0o644)
    text = SMTP + 'hosts = ["mail.example.org"]\ntls = "required"\nuser = "u"\npassword_file = "pw"\n'
    assert "/pw, which holds secrets: chmod o-r it" in notes(files, text)
    assert "secret\n" not in as_toml(loaded(files, text + DOMAIN))


def test_whom_we_say_we_are_comes_from_the_server(tmp_path: Path):
    """server.hostname, unless a transport has a name of its own."""
    text = '[server]\nhostname = "mx.example.org"\n' + SMTP + '[transport.o]\nkind = "lmtp"\n'
    text += 'address = "127.0.0.1:24"\nhostname = "other.example.org"\n'
    found = loaded(tmp_path, text + DOMAIN).config.transport
    assert [table.hostname for name in ("t", "o") if isinstance(table := found[name], NextHop)] == [
        "mx.example.org",
        "other.example.org",
    ]


def test_a_socket_that_is_there_is_fine():
    with (
        tempfile.TemporaryDirectory(prefix="lmtp-", dir="/var/tmp") as folder,
        socket.socket(socket.AF_UNIX) as at,
    ):
        at.bind(f"{folder}/lmtp")
        text = LMTP + f'address = "unix:{folder}/lmtp"\n'
        assert not notes(Path(folder), text)
        table = loaded(Path(folder), text + DOMAIN).config.transport["t"]
        assert isinstance(table, Lmtp)
        assert table.unix == f"{folder}/lmtp"


def test_the_usual_port_depends_on_tls():
    """RFC 5321 4.5.4.2, RFC 8314 7.3."""
    ports = [Smtp().usual_port, Smtp(tls="implicit").usual_port, Smtp(port=587, tls="implicit").usual_port]
    assert ports == [25, 465, 587]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("mail.example.org", ("mail.example.org", 0)),
        ("Mail.Example.ORG:587", ("mail.example.org", 587)),
        ("bücher.example:25", ("xn--bcher-kva.example", 25)),
        ("localhost:24", ("localhost", 24)),
        ("192.0.2.1:26", ("192.0.2.1", 26)),
        ("[2001:DB8:0::1]", ("2001:db8::1", 0)),
        ("[2001:db8::1]:26", ("2001:db8::1", 26)),
    ],
)
def test_hosts(text: str, parsed: tuple[str, int]):
    assert parse_host(text) == parsed


@pytest.mark.parametrize(
    ("octets", "length"), [(b"secret", 6), (b"secret\n", 6), (b"secret\r\nmore", 6), (b" a b \n", 5)]
)
def test_a_password_is_the_first_line(octets: bytes, length: int):
    """Blanks are a part of it."""
    assert password_length(octets) == length == password_length(bytearray(octets))
