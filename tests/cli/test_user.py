"""forkd user: the users file from the command line."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forkd.auth import users
from tests.cli.conftest import ROOT

User = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def user(tmp_path: Path) -> User:
    """forkd user ARGUMENTS, with `password` on standard input, in an empty folder."""

    def run(*arguments: str, password: str | None = None) -> subprocess.CompletedProcess[str]:
        more = ("--password-stdin",) if password is not None else ()
        return subprocess.run(
            [sys.executable, "-m", "forkd", "user", *arguments, *more],
            input=f"{password or ''}\n",
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "NO_COLOR": "1"},
        )

    return run


def test_the_life_of_a_user(user: User, tmp_path: Path):
    """Added, checked, changed, listed, removed; a password never is on the command line or in the file."""
    assert (
        user("add", "anna", "-a", "anna@example.org", "-a", "@shop.example", password="first").returncode == 0
    )
    path = tmp_path / "users"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "first" not in path.read_text()
    assert user("check", "anna", password="first").stdout == "the password is right\n"
    wrong = user("check", "anna", password="second")
    assert (wrong.returncode, wrong.stderr) == (1, "forkd: the password is wrong\n")
    assert user("passwd", "ANNA", password="second").returncode == 0
    assert user("check", "anna", password="second").returncode == 0
    assert user("change", "anna", "--disable", "--own-address").returncode == 0
    assert users.read(path)["anna"].addresses == ()
    assert "disabled" in user("check", "anna", password="second").stderr
    listed = user("list")
    assert listed.stdout.split()[-8:-6] == ["anna", "disabled"]
    assert json.loads(user("list", "--json").stdout) == {
        "users": [
            {
                "login": "anna",
                "addresses": [],
                "disabled": True,
                "mechanisms": ["PLAIN", "LOGIN", "SCRAM-SHA-256"],
            }
        ]
    }
    assert user("change", "anna", "--enable").returncode == 0
    assert user("remove", "anna").returncode == 0
    assert user("list").stdout == "no users\n"
    assert user("check").stdout.endswith("users: fine; 0 users\n")


def test_without_scram(user: User, tmp_path: Path):
    """--no-scram: only the verifier that is hard to guess at."""
    assert user("add", "anna", "--no-scram", password="x").returncode == 0
    assert users.read(tmp_path / "users")["anna"].scram is None


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("add", "an=na"), 2, "a login has no `=`"),
        (("add", "anna", "-a", "nonsense"), 2, "name@domain"),
        (("add", "known"), 1, "there is a user known already"),
        (("add", "KNOWN"), 1, "there is a user known already"),
        (("passwd", "nobody"), 1, "there is no user nobody"),
        (("remove", "nobody"), 1, "there is no user nobody"),
        (("change", "known"), 2, "nothing to change"),
        (("check", "nobody"), 1, "there is no user nobody"),
    ],
)
def test_what_cannot_be_done(user: User, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str):
    """The reason and a status; the file stays as it was."""
    user("add", "known", password="x")
    before = (tmp_path / "users").read_bytes()
    needs = arguments[0] in ("add", "passwd", "check")
    told = user(*arguments, password="x" if needs else None)
    assert told.returncode == status
    assert said in told.stderr
    assert (tmp_path / "users").read_bytes() == before


@pytest.mark.parametrize("password", ["", "\x07"])
def test_what_cannot_be_a_password(user: User, tmp_path: Path, password: str):
    """Empty, or with a control character."""
    told = user("add", "anna", password=password)
    assert told.returncode == 1
    assert "that cannot be a password" in told.stderr
    assert not (tmp_path / "users").exists()


def test_a_broken_file_is_not_touched(user: User, tmp_path: Path):
    """The line is named; nothing is written over what somebody may still repair."""
    (tmp_path / "users").write_text("anna nonsense\n")
    (tmp_path / "users").chmod(0o600)
    for arguments in (("check",), ("list",), ("remove", "anna")):
        told = user(*arguments)
        assert told.returncode == 1
        assert "line 1" in told.stderr
    assert user("add", "otto", password="x").returncode == 1
    assert (tmp_path / "users").read_text() == "anna nonsense\n"


def test_without_a_terminal_it_says_how(user: User):
    """No password from a pipe by accident, no hanging."""
    told = user("add", "anna")
    assert told.returncode == 2
    assert "--password-stdin" in told.stderr


def test_the_file_is_that_of_the_configuration(user: User, tmp_path: Path):
    """auth.users, relative to forkd.toml, which need not be right yet."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "forkd.toml").write_text('[auth]\nbackend = "users"\nusers = "people"\n')
    assert user("add", "anna", "-c", "conf/forkd.toml", password="x").returncode == 0
    assert list(users.read(tmp_path / "conf" / "people")) == ["anna"]


def test_the_password_is_asked_for_twice_and_not_shown(tmp_path: Path):
    """On a terminal: no echo; two that differ are asked for again."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "forkd", "user", "add", "anna"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "NO_COLOR": "1"},
    )
    os.close(theirs)
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        seen = len(shown)
        while text not in shown[seen:]:
            shown += os.read(ours, 1000)

    for prompt, typed in (
        (b"Password: ", b"secret-one\n"),
        (b"Repeat for confirmation: ", b"secret-two\n"),
        (b"Password: ", b"secret-one\n"),
        (b"Repeat for confirmation: ", b"secret-one\n"),
    ):
        until(prompt)
        os.write(ours, typed)
    until(b"anna added")
    assert process.wait(60) == 0
    os.close(ours)
    assert b"secret" not in shown
