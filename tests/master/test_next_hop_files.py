"""forkd/master/next_hop_files.py: what qmgr is given for other servers, and what stops a start."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from forkd.config.schema import Config, Lmtp, Smtp
from forkd.exits import Exit
from forkd.master.errors import StartError
from forkd.master.next_hop_files import NextHopFiles
from tests.support.pki import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(**keys: object) -> NextHopFiles:
    return NextHopFiles(Config(transport={"next": Smtp(**keys)}))  # type: ignore[arg-type]


def octets(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 20, 0)


def test_what_a_transport_needs_is_handed_on_sealed(authority: Authority):
    """Authorities, certificate, key, password, in this order; nobody can change them."""
    pair = authority.pair("us.example.org", client=True)
    password = authority.folder / "pw"
    password.write_bytes(b"secret\n")
    made = files(
        tls="required", tls_ca=authority.file, tls_certificate=pair.chain, tls_key=pair.key,
        user="u", password_file=password,
    )  # fmt: skip
    made.open()
    (given,) = made.current().values()
    paths = (authority.file, pair.chain, pair.key, password)
    assert [octets(number) for number in given] == [path.read_bytes() for path in paths]
    for number in given:
        assert fcntl.fcntl(number, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
    made.close()


def test_what_is_not_needed_is_not_read(tmp_path: Path):
    """No authorities where no certificate is looked at, no key without TLS."""
    gone = tmp_path / "gone"
    for made in (
        files(tls_ca=gone),
        files(tls="required", tls_ca=gone, tls_fingerprints=("0" * 64,)),
        files(tls="off", tls_certificate=gone),
        NextHopFiles(Config(transport={"store": Lmtp(address="unix:/run/x")})),
    ):
        made.open()
        assert made.current() == {}


def test_whom_this_machine_trusts_is_read_where_nothing_else_is_said():
    made = files(tls="implicit")
    made.open()
    ((authorities, *rest),) = made.current().values()
    assert b"BEGIN CERTIFICATE" in octets(authorities)
    assert rest == [-1, -1, -1]
    made.close()


def spoil_certificate(authority: Authority) -> dict[str, object]:
    one, other = authority.pair("a.example"), authority.pair("b.example")
    return {"tls_certificate": one.chain, "tls_key": other.key}


def spoil_authorities(authority: Authority) -> dict[str, object]:
    (authority.folder / "no.pem").write_text("no\n")
    return {"tls": "required", "tls_ca": authority.folder / "no.pem"}


def spoil_password(authority: Authority) -> dict[str, object]:
    (authority.folder / "pw").write_text("\n")
    return {"user": "u", "password_file": authority.folder / "pw"}


def lose_password(authority: Authority) -> dict[str, object]:
    return {"user": "u", "password_file": authority.folder / "gone"}


SPOILT = {
    "certificate": (spoil_certificate, "tls_key", "does not fit"),
    "authorities": (spoil_authorities, "tls_ca", "no PEM certificate"),
    "password": (spoil_password, "password_file", "it is empty"),
    "gone": (lose_password, "password_file", "No such file"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_used_keeps_forkd_from_starting(authority: Authority, name: str):
    """Table, key, file and reason; nothing that is in it."""
    spoil, key, why = SPOILT[name]
    with pytest.raises(StartError) as caught:
        files(**spoil(authority)).open()
    assert caught.value.status == Exit.CONFIG
    assert str(caught.value).startswith(f"[transport.next] {key} = {authority.folder}/")
    assert why in str(caught.value)


def test_a_new_qmgr_has_the_new_files_or_the_old_ones(tmp_path: Path):
    """Read again for each that is started; what is bad then leaves in force what was."""
    password = tmp_path / "pw"
    password.write_bytes(b"first\n")
    made = files(tls="opportunistic", user="u", password_file=password)
    made.open()
    password.write_bytes(b"second\n")
    assert octets(made.current()["next"][3]) == b"second\n"
    password.write_bytes(b"\n")
    assert octets(made.current()["next"][3]) == b"second\n"
    made.close()
