"""Verifiers: what is stored instead of a password."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from forkd.auth import passwords
from forkd.auth.passwords import BadPassword, Nobody, Scram


def test_a_password_fits_its_verifiers_and_no_other():
    """argon2id (RFC 9106) and SCRAM's (RFC 5802 3), each with a salt of its own."""
    argon2, scram = passwords.make_argon2("pencil"), passwords.make_scram("pencil")
    assert argon2.startswith("$argon2id$")
    assert passwords.check_argon2(argon2, "pencil")
    assert passwords.check_scram(scram, "pencil")
    assert not passwords.check_argon2(argon2, "Pencil")
    assert not passwords.check_scram(scram, "Pencil")
    assert passwords.make_argon2("pencil") != argon2
    assert passwords.make_scram("pencil").salt != scram.salt


def test_the_rfcs_example_is_understood():
    """RFC 7677 3: user `user`, password `pencil`, 4096 iterations."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", salt, 4096)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    assert passwords.check_scram(Scram(salt, 4096, stored, server), "pencil")


def test_accents_typed_differently_are_one_password():
    """SASLprep (RFC 4013): NFKC, mapped spaces; both verifiers see the same."""
    argon2, scram = passwords.make_argon2("caf\u00e9 x"), passwords.make_scram("caf\u00e9 x")
    for typed in ("cafe\u0301 x", "caf\u00e9\u00a0x"):
        assert passwords.check_argon2(argon2, typed)
        assert passwords.check_scram(scram, typed)


@pytest.mark.parametrize("bad", ["", "a\tb", "x" * 1025, "\ue000"])
def test_what_cannot_be_a_password(bad: str):
    """Empty, control characters, endless, private use: refused when set, wrong when tried."""
    with pytest.raises(BadPassword) as raised:
        passwords.make_argon2(bad)
    assert not bad or bad not in str(raised.value)
    assert not passwords.check_argon2(passwords.make_argon2("x"), bad)
    assert not passwords.check_scram(passwords.make_scram("x"), bad)


def test_a_verifier_survives_its_text_and_hides_in_repr():
    """What stands in the file is read as it was; nothing of it is in a repr."""
    scram = passwords.make_scram("pencil")
    assert passwords.read_scram(str(scram)) == scram
    assert base64.b64encode(scram.stored_key).decode() not in repr(scram)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0$x",
        "SCRAM-SHA-1$4096:c2FsdHNhbHRzYWx0$eA==:eA==",
        "SCRAM-SHA-256$4095:c2FsdHNhbHRzYWx0$" + ":".join([base64.b64encode(bytes(32)).decode()] * 2),
        "SCRAM-SHA-256$4096:c2FsdA==$" + ":".join([base64.b64encode(bytes(32)).decode()] * 2),
        "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0$eA==:eA==",
        "SCRAM-SHA-256$4096:!!!$eA==:eA==",
    ],
)
def test_a_damaged_verifier_is_an_error(text: str):
    """Cut off, of another mechanism, too weak, too short, not base64."""
    with pytest.raises(ValueError, match=r"."):
        passwords.read_scram(text)


def test_somebody_who_does_not_exist_looks_like_anybody(tmp_path: Path):
    """One name has one salt, also after a restart; another machine has another; iterations as real ones."""
    machine = tmp_path / "machine-id"
    machine.write_text("0123456789abcdef\n")
    first, again = Nobody(machine), Nobody(machine)
    assert first.scram("anna").salt == again.scram("anna").salt
    assert first.scram("anna").salt != first.scram("otto").salt
    assert first.scram("anna").iterations == passwords.make_scram("x").iterations
    assert len(first.scram("anna").salt) == len(passwords.make_scram("x").salt)
    assert first.scram("anna").stored_key != first.scram("anna").stored_key
    machine.write_text("fedcba\n")
    assert Nobody(machine).scram("anna").salt != first.scram("anna").salt
    assert Nobody(tmp_path / "none").scram("anna").salt
    assert not passwords.check_argon2(first.argon2(), "anything")
