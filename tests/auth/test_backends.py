"""The one face of those who know passwords: right, wrong, or no answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from forkd.auth import backends, checkpassword, dovecot, passwords, users
from forkd.auth.backends import (
    Accepted,
    Answer,
    CheckpasswordBackend,
    Credentials,
    DovecotBackend,
    Facts,
    Refused,
    Unavailable,
    UsersBackend,
)
from forkd.auth.users import User

FACTS = Facts("s1", "192.0.2.1", 1234, "192.0.2.2", 587, secured=True)


def credentials(user: str, password: str, authorize_as: str = "") -> Credentials:
    return Credentials(user, password, authorize_as, FACTS)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await work()

    return asyncio.run(main())


# --- the users file -------------------------------------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path) -> UsersBackend:
    with users.edit(tmp_path / "users") as change:
        change.put(User("Anna", passwords.make_argon2("secret"), passwords.make_scram("secret")))
        change.put(User("modern", scram=passwords.make_scram("secret")))
        change.put(User("gone", passwords.make_argon2("secret"), passwords.make_scram("x"), disabled=True))
        change.put(User("empty"))
    return UsersBackend(tmp_path / "users", on_state=lambda _act, _reason: None)


@pytest.mark.parametrize(
    ("user", "password", "answer"),
    [
        ("anna", "secret", Accepted("Anna")),
        ("anna", "Secret", Refused("wrong password")),
        ("nobody", "secret", Refused("no such user")),
        ("gone", "secret", Refused("disabled")),
        ("gone", "wrong", Refused("wrong password")),
        ("modern", "secret", Accepted("modern")),
        ("empty", "secret", Refused("has no password")),
    ],
)
def test_the_users_file_answers(known: UsersBackend, user: str, password: str, answer: Answer):
    """PLAIN and LOGIN, from either verifier."""
    assert run(lambda: known.check(credentials(user, password))) == answer


def test_nobody_acts_for_others(known: UsersBackend):
    """An authorization identity (RFC 4616 2) that is somebody else's."""
    assert isinstance(run(lambda: known.check(credentials("anna", "secret", "modern"))), Refused)
    assert run(lambda: known.check(credentials("anna", "secret", "anna"))) == Accepted("Anna")


@pytest.mark.parametrize("user", ["nobody", "gone", "empty"])
def test_scram_goes_on_for_who_cannot_log_in(known: UsersBackend, user: str):
    """A made-up verifier with the same salt each time: nothing to tell users apart."""
    name, scram = run(lambda: known.scram(user))
    assert name is None
    assert run(lambda: known.scram(user))[1].salt == scram.salt
    assert not passwords.check_scram(scram, "secret")
    assert run(lambda: known.scram("anna"))[0] == "Anna"


def test_a_file_in_trouble_is_no_answer(tmp_path: Path):
    """454, not 535, and said once; when it is there, it is used."""
    told: list[tuple[str, str]] = []
    backend = UsersBackend(tmp_path / "users", on_state=lambda act, reason: told.append((act, reason)))
    run(backend.open)
    for _ in range(2):
        with pytest.raises(Unavailable):
            run(lambda: backend.check(credentials("anna", "secret")))
    assert backend.addresses("anna") is None
    assert [act for act, _ in told] == ["unreadable"]
    with users.edit(tmp_path / "users") as change:
        change.put(User("anna", passwords.make_argon2("secret"), addresses=("a@example.org",)))
    assert run(lambda: backend.check(credentials("anna", "secret"))) == Accepted("anna")
    assert backend.addresses("ANNA") == ("a@example.org",)
    assert [act for act, _ in told] == ["unreadable", "read"]


def test_secrets_hide_in_repr():
    """Whoever logs a Credentials logs no password."""
    assert "hunter2" not in repr(credentials("anna", "hunter2"))


# --- checkpassword --------------------------------------------------------------------------------------


def checking(status: int | Exception) -> tuple[CheckpasswordBackend, list[bytes]]:
    told: list[bytes] = []

    async def program(descriptors: Mapping[int, int]) -> int:
        assert list(descriptors) == [3]
        told.append(os.read(descriptors[3], 1000))
        assert os.read(descriptors[3], 1) == b""  # end of file: the writer is closed
        if isinstance(status, Exception):
            raise status
        return status

    return CheckpasswordBackend(program), told


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0 << 8, Accepted("anna")),
        (1 << 8, Refused("the program says no")),
        (2 << 8, None),
        (111 << 8, None),
        (3 << 8, None),
        (9, None),
        (OSError("no sandbox"), None),
        (TimeoutError(), None),
    ],
)
def test_what_an_exit_means(status: int | Exception, answer: Answer | None):
    """cr.yp.to/checkpwd/interface.html; everything else is no answer: 454."""
    backend, _ = checking(status)
    if answer is None:
        with pytest.raises(Unavailable) as raised:
            run(lambda: backend.check(credentials("anna", "hunter2")))
        assert "hunter2" not in str(raised.value)
    else:
        assert run(lambda: backend.check(credentials("anna", "hunter2"))) == answer


def test_what_the_program_is_told():
    """login NUL password NUL timestamp NUL, to the end of file; no descriptor is left open."""
    backend, told = checking(0)
    before = len(list(Path("/proc/self/fd").iterdir()))
    run(lambda: backend.check(credentials("änna", "hunter2")))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    login, password, timestamp, rest = told[0].split(b"\0")
    assert (login, password, rest) == ("änna".encode(), b"hunter2", b"")
    assert timestamp


@pytest.mark.parametrize(("user", "password"), [("a\0b", "x"), ("a", "x\0y"), ("a", "x" * 600)])
def test_what_it_cannot_be_told_is_wrong(user: str, password: str):
    """512 octets, no NUL: nobody has such a password; the program is not run."""
    backend, told = checking(0)
    assert isinstance(run(lambda: backend.check(credentials(user, password))), Refused)
    assert checkpassword.told(user, password) is None
    assert not told


# --- Dovecot --------------------------------------------------------------------------------------------


def test_dovecots_troubles_are_no_answer(tmp_path: Path):
    """Not there, or its own lookup failed: 454. OK has the name that Dovecot uses."""
    backend = DovecotBackend(tmp_path / "none", on_mechanisms=lambda: None, on_state=lambda *_: None)
    run(backend.open)
    assert backend.mechanisms == backends.PASSWORD_MECHANISMS
    with pytest.raises(Unavailable):
        run(lambda: backend.check(credentials("anna", "x")))
    with pytest.raises(Unavailable):
        backend.judge(dovecot.Wrong(1, True, "ldap"), "anna")
    assert backend.judge(dovecot.Wrong(1, False, ""), "anna") == Refused("dovecot says no")
    assert backend.judge(dovecot.Right(1, "anna@example.org"), "anna") == Accepted("anna@example.org")


def test_an_answer_that_takes_too_long_is_none():
    """auth.timeout."""

    async def never() -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Unavailable, match="within"):
        run(lambda: backends.within(0.01, never()))
