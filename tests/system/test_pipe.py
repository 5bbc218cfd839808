"""The real daemon with transports of kind "pipe": programs behind walls get its mail."""

from __future__ import annotations

import contextlib
import json
import mailbox
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.people import Person
from tests.support.uids import UID_BASE
from tests.support.waiting import wait_for

from .conftest import Make

FIRST_UID = UID_BASE + 65_534
"""Of the first transport of this kind (master/pipes.py)."""


@pytest.fixture
def folder(who: Person) -> Iterator[Path]:
    """What the first transport's program may write."""
    with tempfile.TemporaryDirectory(prefix="forkd-pipe-", dir="/var/tmp") as name:
        uid = FIRST_UID if who.name == "root" else who.uid
        os.chown(name, uid, -1)
        yield Path(name)


def start(make_daemon: Make, folder: Path, script: str, more: str = "", **how: str) -> Daemon:
    """test.local's mail goes to a shell script, which is told its folder and the user."""
    daemon = make_daemon(start=False)
    path = daemon.folder / "deliver"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    argv = json.dumps([str(path), str(folder), "--", "${user}"])
    daemon.config += (
        f'[domain."test.local"]\ntransport = "way"\n{more}'
        f'[transport.way]\nkind = "pipe"\nargv = {argv}\nwrite = ["{folder}"]\nfrom_line = true\n'
        'exec = ["/bin/cat"]\nprocesses = 1\n'
    )
    daemon.write_config()
    return daemon.start()


def send(daemon: Daemon, *users: str, subject: str = "x") -> None:
    """One mail."""
    with daemon.smtp() as client:
        to = [f"{user}@test.local" for user in users]
        client.sendmail("a@sender.example", to, f"Subject: {subject}\r\n\r\nhello\r\n")


def ours(daemon: Daemon) -> list[dict[str, Any]]:
    """Deliveries by the program; reports go another way."""
    return [line for line in daemon.events("delivery") if line["transport"] == "way"]


@pytest.mark.both_modes
def test_mail_goes_where_the_program_puts_it(make_daemon: Make, folder: Path):
    """From SMTP into mbox files; each recipient by himself; what the program says is the reason."""
    script = """
case $3 in
  gone) echo "no such person here"; exit 67 ;;
  later) echo "4.2.2 mailbox full" >&2; exit 70 ;;
  root) id -u; exit 75 ;;
esac
cat >> "$1/$3"
"""
    daemon = start(make_daemon, folder, script)
    send(daemon, "alice", "gone", "later", "bob", subject="one")
    send(daemon, "alice", subject="two")
    ends = {}
    for line in wait_for(lambda: found if len(found := ours(daemon)) == 5 else None, timeout_s=30):
        ends.setdefault(line["recipient"], []).append((line["status"], line["enhanced"], line["text"]))
    assert ends["gone@test.local"] == [("failed", "5.1.1", "exit 67 (no such user): no such person here")]
    assert ends["later@test.local"] == [("deferred", "4.2.2", "exit 70 (an error of its own): mailbox full")]
    assert ends["bob@test.local"] == [("delivered", "2.0.0", "the program has it")]
    assert len(ends["alice@test.local"]) == 2
    with contextlib.closing(mailbox.mbox(folder / "alice", create=False)) as box:
        assert sorted(mail["subject"] for mail in box) == ["one", "two"]
        assert {mail["delivered-to"] for mail in box} == {"alice@test.local"}
        assert {mail["return-path"] for mail in box} == {"<a@sender.example>"}
    assert "mailbox full" in daemon.forkd("queue", "list", "--json").stdout


def test_what_is_being_delivered_when_forkd_stops_is_finished(make_daemon: Make, folder: Path):
    """The zygote outlives qmgr: a stop is no reason for mail to come twice."""
    script = 'echo > "$1/begun"\nwhile [ ! -e "$1/end" ]; do :; done\ncat > "$1/mail"'
    daemon = start(make_daemon, folder, script)
    send(daemon, "alice")
    wait_for((folder / "begun").exists)
    daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: any(line.get("act") == "stopping" for line in daemon.events("service")))
    (folder / "end").touch()
    assert daemon.process is not None
    assert daemon.process.wait(60) == 0
    (line,) = ours(daemon)
    assert line["status"] == "delivered"
    assert not list((daemon.var / "spool/new").glob("*/*"))


def test_a_zygote_that_was_killed_is_replaced(make_daemon: Make, folder: Path):
    """What it had started is killed and tried again; nothing is lost."""
    script = '[ -e "$1/again" ] || { echo > "$1/begun"; while :; do :; done; }\ncat > "$1/mail"'
    daemon = start(make_daemon, folder, script, more='[queue]\nretry_first = "1s"\n')
    send(daemon, "alice")
    wait_for((folder / "begun").exists)
    (zygote,) = daemon.role("zygote @pipe-way")
    (folder / "again").touch()
    os.kill(zygote, signal.SIGKILL)
    wait_for((folder / "mail").exists, timeout_s=60)
    wait_for(lambda: [line["status"] for line in ours(daemon)] == ["deferred", "delivered"])


@pytest.mark.slow
def test_a_folder_of_somebody_else_stops_the_start(make_daemon: Make, folder: Path):
    """With the words that mend it, not with a mail that never arrives."""
    if os.geteuid() != 0:
        pytest.skip("lack of the machine: only root gives folders away")
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    with pytest.raises(AssertionError, match=r"not ours to write|cannot write"):
        start(make_daemon, folder, "exit 0")
