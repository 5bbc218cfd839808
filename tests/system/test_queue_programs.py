"""The real daemon with transports of kind "qmail-queue": mail that is queued, mail whose client waits."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import smtplib
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, free_port
from tests.support.people import Person
from tests.support.queueing import Queue
from tests.support.waiting import wait_for

from .conftest import EDIT, Make

LATER = (451, b"4.3.0 Cannot take this mail now, please try again later")


@pytest.fixture
def queue() -> Iterator[Queue]:
    """Where every user can execute it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="forkd-queue-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield Queue(folder)


def transports(queue: Queue) -> str:
    programs = {
        "test": (),
        "virus": ("say", "found in /var/spool/x", "exit", "33"),
        "custom": ("message", "envelope", "say", "Dgo away (#5.7.1)", "exit", "88"),
        "full": ("say", "no space on /dev/sda1", "exit", "53"),
        "crash": ("message", "signal", "11"),
        "slow": ("here", "message", "envelope", "hang"),
    }
    parts = []
    for name, acts in programs.items():
        argv = json.dumps(queue.argv(*acts))
        seconds = 3 if name == "slow" else 60
        parts.append(
            f'[domain."{name}.local"]\ntransport = "{name}"\n'
            f'[transport.{name}]\nkind = "qmail-queue"\nargv = {argv}\ntimeout = "{seconds}s"\n'
        )
    return "".join(parts)


def start(make_daemon: Make, who: Person, queue: Queue) -> tuple[Daemon, int]:
    """A daemon, and the port whose clients wait."""
    port = free_port()
    daemon = make_daemon(
        server='launcher_user = "uucp"\n' if who.name == "root" else "",
        config=f'[listener.proxy]\naddress = "127.0.0.1:{port}"\naccept = "proxy"\n{transports(queue)}',
        copy=("edit",),
        plugins={"10-edit.toml": EDIT},
    )
    return daemon, port


def say(port: int, *recipients: str, subject: str = "x", body: str = "hello\r\n") -> tuple[int, bytes]:
    """Send one mail; the reply to the end of data."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=60) as client:
        client.ehlo()
        client.mail("a@sender.example")
        for recipient in recipients:
            assert client.rcpt(recipient)[0] == 250
        return client.data(f"Subject: {subject}\r\n{body}")


def left(daemon: Daemon) -> list[Path]:
    """What the spool holds."""
    return [
        path for kind in ("tmp", "new") for path in (daemon.var / "spool" / kind).rglob("*") if path.is_file()
    ]


def test_the_next_hops_answer_is_the_reply(make_daemon: Make, who: Person, queue: Queue) -> None:
    """250 only when the program has it; else its refusal, never its own words but those of status 88."""
    daemon, port = start(make_daemon, who, queue)
    code, text = say(
        port, "a@test.local", "b@test.local", body='X-Do: ["add_header", "X-Seen", "y"]\r\n\r\nhi\r\n'
    )
    assert code == 250
    assert re.fullmatch(rb"2.0.0 Ok: queued as [0-9A-Z]{15,20}", text)
    ((message, envelope),) = queue.mails()
    assert envelope == b"Fa@sender.example\0Ta@test.local\0Tb@test.local\0\0"
    assert re.match(rb"Received: from .*\n(\t.*\n)+X-Seen: y\nSubject: x\nX-Do: .*\n\nhi\n\Z", message)
    assert say(port, "a@virus.local") == (554, b"5.7.1 This mail contains a virus")
    assert say(port, "a@custom.local") == (554, b"5.7.1 go away")
    assert say(port, "a@full.local") == LATER
    assert say(port, "a@crash.local") == LATER
    assert left(daemon) == []
    said = [event["text"] for event in daemon.events("delivery") if event["status"] != "delivered"]
    assert [text.rpartition("said: ")[2] for text in said] == [
        "found in /var/spool/x",
        "exit status 88: go away",
        "no space on /dev/sda1",
        "the queue program was killed by SIGSEGV",
    ]
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo()
        client.mail("a@sender.example")
        assert client.rcpt("a@test.local")[0] == 250
        # One reply cannot say what became of two: they come in another mail.
        assert client.rcpt("a@virus.local")[0] == 452
        assert client.rcpt("c@test.local")[0] == 250
        assert client.data("Subject: two\r\n\r\n")[0] == 250
    assert queue.mails()[1][1] == b"Fa@sender.example\0Ta@test.local\0Tc@test.local\0\0"
    # What a plugin quarantines is kept here, and waits for the admin.
    code, text = say(port, "a@test.local", body='X-Do: ["quarantine", "odd"]\r\n\r\nhi\r\n')
    assert (code, text[:20]) == (250, b"2.0.0 Ok: queued as ")
    queue_id = text.rpartition(b" ")[2].decode()
    assert "1 message" in daemon.forkd("queue", "release", queue_id).stdout
    wait_for(lambda: len(queue.mails()) == 3)
    wait_for(lambda: not left(daemon))


@pytest.mark.slow
def test_who_may_gain_what(make_daemon: Make, who: Person, queue: Queue) -> None:
    """The launcher alone is without no_new_privs. A killed one is replaced, and no mail is lost."""
    daemon, port = start(make_daemon, who, queue)
    seen = {}
    for role in ("worker", "qmgr", "admin", "anvil", "launcher"):
        (pid, *_) = daemon.role(role)
        seen[role] = re.search(r"NoNewPrivs:\t(\d)", Path(f"/proc/{pid}/status").read_text())[1]  # type: ignore[index]
    assert seen == {"worker": "1", "qmgr": "1", "admin": "1", "anvil": "1", "launcher": "0"}
    (pid,) = daemon.role("launcher")
    os.kill(pid, 9)
    assert say(port, "a@test.local")[0] == 250
    assert say(daemon.port, "a@test.local")[0] == 250
    wait_for(lambda: len(queue.mails()) == 2)


@pytest.mark.slow
def test_a_client_that_goes_leaves_nothing(make_daemon: Make, who: Person, queue: Queue) -> None:
    """While its mail is with the program; the file in tmp/ goes with the session, the program in its time."""
    daemon, port = start(make_daemon, who, queue)
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo()
        client.mail("a@sender.example")
        client.rcpt("a@slow.local")
        client.docmd("DATA")
        client.send(b"Subject: x\r\n\r\n.\r\n")
        wait_for(queue.pids)
        assert client.sock is not None
        client.sock.close()
        client.close()
    wait_for(lambda: not left(daemon), timeout_s=20)
    assert say(port, "a@test.local")[0] == 250


@pytest.mark.slow
def test_every_mail_under_load_has_one_answer(make_daemon: Make, who: Person, queue: Queue) -> None:
    """300 mails through both listeners, some to a program that crashes: 250 and queued once, or neither."""
    daemon, port = start(make_daemon, who, queue)
    taken = set()
    for number in range(300):
        via = (port, daemon.port)[number % 2]
        domain = "crash" if number % 20 == 10 else "test"
        if say(via, f"a@{domain}.local", subject=str(number))[0] == 250 and domain == "test":
            taken.add(number)
    assert len(taken) == 285
    wait_for(lambda: len(queue.mails()) >= len(taken), timeout_s=60)
    subjects = sorted(
        int(match[1]) for message, _ in queue.mails() if (match := re.search(rb"Subject: (\d+)", message))
    )
    assert subjects == sorted(taken)


@pytest.mark.slow
def test_no_kill_loses_what_was_answered_250(make_daemon: Make, who: Person, queue: Queue) -> None:
    """Launcher, qmgr and workers die again and again under load: whatever had 250 is queued, some of it twice
    (FORMAT.md, duplicates)."""
    daemon, port = start(make_daemon, who, queue)
    over = threading.Event()

    def client(number: int) -> set[str]:
        taken = set()
        for count in itertools.count():
            subject = f"{number}-{count}"
            with contextlib.suppress(OSError, smtplib.SMTPException):
                if say((port, daemon.port)[count % 2], "a@test.local", subject=subject)[0] == 250:
                    taken.add(subject)
            if over.is_set():
                return taken
        raise AssertionError

    chance = random.Random(7)
    with ThreadPoolExecutor() as clients:
        running = [clients.submit(client, number) for number in range(3)]
        for _ in range(12):
            seen = len(queue.mails())
            pids = wait_for(lambda: daemon.role(chance.choice(("launcher", "qmgr", "worker"))))
            os.kill(chance.choice(pids), 9)
            wait_for(lambda seen=seen: len(queue.mails()) > seen + 5, timeout_s=60)  # type: ignore[misc]
        over.set()
        taken = set().union(*(each.result(60) for each in running))

    def queued() -> set[str]:
        found = (re.search(rb"Subject: (\S+)", message) for message, _ in queue.mails())
        return {match[1].decode() for match in found if match}

    assert len(taken) > 60
    wait_for(lambda: daemon.forkd("queue", "flush").returncode == 0 and taken <= queued(), timeout_s=60)
    wait_for(lambda: not left(daemon), timeout_s=120)
