"""Can AUTH be used where it is on? forkd/config/auth_checks.py, through load()."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.config_files import loaded, problem

SUBMISSION = '[listener.a]\nrole = "submission"\n'
CERTIFICATE = '[certificate."mail.example.org"]\nchain = "c.pem"\n'
USERS = '[auth]\nbackend = "users"\n'
RELAY = '[queue]\nrelay_transport = "local"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a certificate and a users file, both empty: what is in them is not looked at here."""
    for name in ("c.pem", "users"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def program(folder: Path) -> Path:
    path = folder / "check"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def notes(folder: Path, text: str) -> str:
    return "\n".join(loaded(folder, text).notes)


def test_a_submission_listener_that_is_whole_is_fine(folder: Path):
    """Certificate, backend, a way out: nothing to say."""
    result = loaded(folder, SUBMISSION + CERTIFICATE + USERS + RELAY)
    assert [note for note in result.notes if "plugins" not in note and "min_free" not in note] == []
    assert result.config.auth.users == folder / "users"


@pytest.mark.parametrize(("listener", "key"), [(SUBMISSION, "role"), ('[listener.a]\nauth = "on"\n', "auth")])
def test_auth_without_tls_is_refused_unless_asked_for(folder: Path, listener: str, key: str):
    """RFC 4954 4: it would wait for a TLS that never comes; the admin is told both ways out."""
    found = problem(folder, listener + USERS)
    assert (found.line, found.key) == (2, key)
    assert "AUTH waits for TLS" in found.rule
    assert "[certificate]" in found.hint
    assert "auth_without_tls" in found.hint
    assert "AUTH waits" in problem(folder, listener + 'tls = "off"\n' + CERTIFICATE + USERS).rule
    assert loaded(folder, listener + "auth_without_tls = true\n" + USERS)


@pytest.mark.parametrize(("listener", "key"), [(SUBMISSION, "role"), ('[listener.a]\nauth = "on"\n', "auth")])
def test_auth_needs_somebody_who_knows_the_passwords(folder: Path, listener: str, key: str):
    """Neither backend nor plugin: every password would be wrong."""
    found = problem(folder, listener + CERTIFICATE)
    assert (found.key, found.hint) == (key, 'write backend = "users" in [auth]')
    assert loaded(folder, listener + CERTIFICATE + USERS)


AUTH_PLUGIN = {
    "plugins.d__p__plugin_toml": 'name = "p"\nversion = "1"\napi = 1\nhooks = ["auth"]\n'
    '[wants.powers]\nauth = "asks LDAP"\n',
    "plugins.d__p__p_py": "",
    "plugins.d__10-p_toml": 'plugin = "./p"\n[grants]\nauth = true\n',
}


def test_a_plugin_may_be_the_one_who_knows(folder: Path):
    """smtp.md: plugins with the auth hook."""
    assert loaded(folder, SUBMISSION + CERTIFICATE, **AUTH_PLUGIN)


def test_oauthbearer_is_for_plugins(folder: Path):
    """RFC 7628: no backend of ours can look into a token."""
    text = '[auth]\nmechanisms = ["PLAIN", "OAUTHBEARER"]\n'
    assert "answered by plugins" in problem(folder, text).rule
    assert loaded(folder, text, **AUTH_PLUGIN)


def test_submission_without_auth_takes_no_mail(folder: Path):
    """smtp.md: submission, AUTH required."""
    found = problem(folder, SUBMISSION + 'auth = "off"\n')
    assert (found.line, "without AUTH it takes none" in found.rule) == (3, True)


def test_the_users_file_is_there(folder: Path):
    """And the hint says how it comes to be."""
    (folder / "users").unlink()
    found = problem(folder, SUBMISSION + CERTIFICATE + USERS)
    assert (found.table, found.key, found.rule) == ("[auth]", "users", "there is no such file")
    assert "forkd user add" in found.hint


def test_a_users_file_that_everybody_can_read_is_said(folder: Path):
    """Verifiers can be guessed at, off line."""
    (folder / "users").chmod(0o644)
    assert "auth.users: everybody on this machine may read" in notes(folder, USERS)


@pytest.mark.parametrize(
    ("rows", "key", "rule"),
    [
        ("", "checkpassword", "needs the program"),
        ('checkpassword = ["check"]', "checkpassword", "whole path"),
        ('checkpassword = ["/no/such/program"]', "checkpassword", "no such file"),
        ('checkpassword = ["{folder}/users"]', "checkpassword", "may not be executed"),
        ('checkpassword = ["{folder}/check"]\nfiles = ["nope"]', "files", "no such file"),
        (
            'checkpassword = ["{folder}/check"]\nmechanisms = ["SCRAM-SHA-256"]',
            "mechanisms",
            "PLAIN or LOGIN",
        ),
    ],
)
def test_a_checkpassword_program_can_be_run(folder: Path, program: Path, rows: str, key: str, rule: str):
    """checkpassword's own interface: it is given the password itself."""
    text = '[auth]\nbackend = "checkpassword"\n' + rows.replace("{folder}", str(folder))
    found = problem(folder, text)
    assert (found.key, rule in found.rule) == (key, True)


def test_a_checkpassword_program_that_is_there_is_fine(folder: Path, program: Path):
    """With its arguments and the files it may read."""
    text = f'[auth]\nbackend = "checkpassword"\ncheckpassword = ["{program}", "-x"]\nfiles = ["users"]\n'
    auth = loaded(folder, text).config.auth
    assert (auth.checkpassword, auth.files) == ((str(program), "-x"), (folder / "users",))


def test_dovecots_socket_is_a_socket(folder: Path):
    """Named, and not a file."""
    text = '[auth]\nbackend = "dovecot"\n'
    assert "needs its socket" in problem(folder, text).rule
    assert "no socket" in problem(folder, text + 'dovecot = "users"\n').rule


def test_dovecot_may_be_down_when_forkd_starts(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """AUTH is answered 454 until it is there; mail for our domains comes in all the same."""
    text = '[auth]\nbackend = "dovecot"\ndovecot = "auth-client"\n'
    assert "could not be looked at" in notes(folder, text)
    monkeypatch.chdir(folder)  # the path of a socket has 107 characters at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("auth-client")
        assert "could not be looked at" not in notes(folder, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[listener.a]\nauth_without_tls = true\n", "auth_without_tls is not used"),
        (
            '[listener.a]\naddress = "0.0.0.0:587"\nauth = "on"\nauth_without_tls = true\n' + USERS,
            "passwords may cross the network in the clear",
        ),
        (USERS, "auth.backend is not used"),
        ('[auth]\nusers = "users"\n', "auth.users is not used"),
        ('[auth]\nfiles = ["users"]\n', "auth.files is not used"),
        (SUBMISSION + CERTIFICATE + USERS, "users of submission can write to domains of ours only"),
    ],
)
def test_what_has_no_effect_or_a_bad_one_is_a_note(folder: Path, text: str, said: str):
    """Legal, and an admin should know."""
    assert said in notes(folder, text)
    assert said not in notes(folder, "")


def test_relaying_for_users_is_a_use_of_the_relay_transport(folder: Path):
    """networks.relay may be empty then."""
    said = notes(folder, SUBMISSION + CERTIFICATE + USERS + RELAY)
    assert "relay_transport is used for reports alone" not in said


def test_a_file_that_blocks_is_not_waited_for(folder: Path):
    """A FIFO in the place of a file would hold `config check` for ever."""
    os.mkfifo(folder / "fifo")
    assert "no regular file" in problem(folder, USERS + 'users = "fifo"\n').rule
