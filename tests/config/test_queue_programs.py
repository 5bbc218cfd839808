"""Transports of kind "qmail-queue", and listeners whose clients wait for the next hop."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.schema import QmailQueue
from tests.support.config_files import loaded, problem

QUEUE = '[transport.qq]\nkind = "qmail-queue"\n'
DOMAIN = '[domain."example.org"]\ntransport = "qq"\n'
PROXY = '[listener.mx]\naccept = "proxy"\n'


@pytest.mark.parametrize(
    ("variable", "argv"),
    [
        (None, ("/var/qmail/bin/qmail-queue",)),
        ("/opt/bin/qmail-multi -x  y", ("/opt/bin/qmail-multi", "-x", "y")),
        (" ", ("/var/qmail/bin/qmail-queue",)),
    ],
)
def test_the_program_is_qmails_unless_qmailqueue_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, argv: tuple[str, ...]
):
    """Program and arguments separated by blanks, as qmail's own programs read it; and it is said."""
    monkeypatch.delenv("QMAILQUEUE", raising=False)
    if variable is not None:
        monkeypatch.setenv("QMAILQUEUE", variable)
    found = loaded(tmp_path, QUEUE + DOMAIN)
    table = found.config.transport["qq"]
    assert isinstance(table, QmailQueue)
    assert table.argv == argv
    assert any("QMAILQUEUE" in note for note in found.notes) == (argv[0] == "/opt/bin/qmail-multi")


def test_what_is_written_counts_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QMAILQUEUE", "/opt/other")
    found = loaded(tmp_path, f'{QUEUE}argv = ["/bin/true"]\nenvironment = {{ A = "b" }}\n{DOMAIN}')
    table = found.config.transport["qq"]
    assert isinstance(table, QmailQueue)
    assert (table.argv, table.environment, float(table.timeout)) == (("/bin/true",), {"A": "b"}, 300)
    assert found.notes == loaded(tmp_path, "").notes


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        (QUEUE + 'argv = ["qmail-queue"]\n', "argv", "absolute path"),
        (QUEUE + 'argv = ["/bin/true", "a\\u0000b"]\n', "argv", "NUL"),
        (QUEUE + 'environment = { "A=B" = "c" }\n', "environment", "no variable"),
        (QUEUE + 'timeout = "0s"\n', "timeout", "1s"),
        (PROXY + '[domain."example.org"]\n', "transport", "gives none"),
        (PROXY + QUEUE + DOMAIN + '[queue]\nrelay_transport = "local"\n', "relay_transport", "gives none"),
    ],
    ids=["relative", "NUL", "variable", "timeout", "maildir", "relay"],
)
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, key: str, rule: str):
    """At start, not with the first mail."""
    found = problem(tmp_path, text)
    assert found.key == key
    assert rule in found.rule


def test_a_program_that_is_not_there_is_said(tmp_path: Path):
    """Not refused: a file system may not be mounted yet, and mail waits."""
    found = loaded(tmp_path, f'{QUEUE}argv = ["/no/such/qmail-queue"]\n{DOMAIN}{PROXY}')
    assert any("/no/such/qmail-queue is no program" in note for note in found.notes)


@pytest.mark.parametrize(
    ("server", "key"),
    [
        ('launcher_user = "forkd"', "launcher_user"),
        ('launcher_user = "forkd-queue"', "launcher_user"),
        ('launcher_user = "forkd-admin"', "launcher_user"),
        ('launcher_user = "forkd-broker"', "launcher_user"),
        ('queue_user = "forkd-launcher"', "queue_user"),
        ('user = "qmaild"\nlauncher_user = "qmaild"', "launcher_user"),
    ],
)
def test_nobody_else_runs_as_the_user_of_queue_programs(tmp_path: Path, server: str, key: str):
    """They have no walls: with the user of qmgr they read all mail, with the workers' they stop them."""
    text = f"[server]\n{server}\n"
    found = problem(tmp_path, text + QUEUE + DOMAIN)
    assert found.key == key
    assert "is this user too" in found.rule
    assert loaded(tmp_path, text)


def test_a_program_that_outlasts_a_waiting_client_is_said(tmp_path: Path):
    """RFC 5321 4.5.3.2.6: 10 minutes for the reply to the end of data, and then it is all sent again."""
    slow = QUEUE + 'timeout = "10m"\n'
    (note,) = [n for n in loaded(tmp_path, slow + DOMAIN + PROXY).notes if "10 minutes" in n]
    assert note.startswith('transport.qq.timeout = "10m"') or note.startswith("transport.qq.timeout = 10m")
    for fine in (slow + DOMAIN, QUEUE + 'timeout = "9m"\n' + DOMAIN + PROXY):
        assert not any("10 minutes" in note for note in loaded(tmp_path, fine).notes)
