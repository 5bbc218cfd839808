"""The real daemon with all its roles behind their walls: what it lives by works, in both modes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.people import Person, person
from tests.support.waiting import wait_for
from tests.system.conftest import end, prepare

CONFINED = ("worker", "qmgr", "admin", "anvil")


@pytest.fixture(params=["user", "root"])
def who(request: pytest.FixtureRequest) -> Person:
    """Started by an ordinary user, and by root."""
    return person(request.param)


@pytest.fixture
def elsewhere(who: Person) -> Iterator[Path]:
    """A folder outside data_dir, that qmgr's user may write in."""
    folder = Path(tempfile.mkdtemp(prefix="forkd-mail-", dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def prepared(who: Person) -> Iterator[list[Daemon]]:
    """Daemons that were prepared; they are ended."""
    daemons: list[Daemon] = []
    yield daemons
    for daemon in daemons:
        end(daemon)


def daemon_of(who: Person, prepared: list[Daemon], **how) -> Daemon:
    daemon = prepare(who, **how)
    prepared.append(daemon)
    return daemon.start()


def send(daemon: Daemon, to: str = "user@test.local") -> None:
    with daemon.smtp() as client:
        client.sendmail("sender@example.org", [to], b"Subject: there\r\n\r\nhello\r\n")


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_every_role_is_seen_confined_from_outside(who: Person, prepared: list[Daemon]):
    """One filter, no_new_privs, no capability now and none to come; `roles` may be required."""
    daemon = daemon_of(who, prepared, config='[sandbox]\nrequire = ["seccomp", "roles"]\n')
    for role in CONFINED:
        for pid in daemon.role(role):
            seen = status_of(pid)
            told = {name: seen[name] for name in ("Seccomp", "NoNewPrivs", "CapEff", "CapPrm")}
            assert told == {"Seccomp": "2", "NoNewPrivs": "1", "CapEff": "0" * 16, "CapPrm": "0" * 16}, role
            if who.name == "root":
                assert seen["CapBnd"] == "0" * 16
    (tested,) = (event for event in daemon.events("service") if event["act"] == "self_tested")
    assert "roles" in tested["enforced"]
    shown = daemon.forkd("sandbox", "status", "--data-dir", str(daemon.var)).stdout
    assert any(line.split()[:2] == ["roles", "enforced"] for line in shown.splitlines()), shown


def test_mail_goes_where_the_configuration_says(who: Person, prepared: list[Daemon], elsewhere: Path):
    """Outside data_dir; in a folder that is made with the first mail; behind a link to another disk."""
    disk = elsewhere / "disk"
    (disk / "linked").mkdir(parents=True)
    (elsewhere / "mail").mkdir()
    for folder in (disk, disk / "linked", elsewhere / "mail"):
        folder.chmod(0o777)
    (elsewhere / "mail" / "linked.test").symlink_to(disk / "linked")
    config = (
        f'[transport.local]\nkind = "maildir"\npath = "{elsewhere}/mail/{{domain}}/{{user}}"\n'
        f'[transport.later]\nkind = "maildir"\npath = "{elsewhere}/later/deep/{{user}}"\n'
        '[domain."test.local"]\n[domain."linked.test"]\n[domain."later.test"]\ntransport = "later"\n'
    )
    daemon = daemon_of(who, prepared, config=config)
    for domain in ("test.local", "linked.test", "later.test"):
        send(daemon, f"user@{domain}")
    for folder in ("mail/test.local/user", "disk/linked/user", "later/deep/user"):
        wait_for(lambda folder=folder: list((elsewhere / folder / "new").glob("*")), what=folder)


def test_a_role_that_is_replaced_is_confined_and_works(who: Person, prepared: list[Daemon]):
    """Rights are found anew at each start; the spool is gone through again."""
    daemon = daemon_of(who, prepared)
    for role in CONFINED:
        (first, *_) = daemon.role(role)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda role=role, first=first: (pids := daemon.role(role)) and first not in pids)
    wait_for(lambda: daemon.forkd("status", "--data-dir", str(daemon.var)).returncode == 0)
    for role in CONFINED:
        assert all(status_of(pid)["Seccomp"] == "2" for pid in daemon.role(role)), role
    send(daemon)
    wait_for(lambda: daemon.mailbox("user"))
