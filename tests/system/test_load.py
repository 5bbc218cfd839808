"""Load: everything answered 250 is in the Maildir, once and whole, also while workers are killed."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import smtplib
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import STOCK, Make

MESSAGES = 20_000


def maildir(daemon: Daemon, user: str) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(daemon.var / "mail" / "test.local" / user / "new")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_thousand_from_smtp_source_arrive_once_and_unaltered(make_daemon: Make):
    """The issue's load: `smtp-source -s 50 -l 5120 -m 20000`, with the sample plugins."""
    daemon = make_daemon(plugins=STOCK)
    command = [
        "smtp-source",
        "-s",
        "50",
        "-l",
        "5120",
        "-m",
        str(MESSAGES),
        "-f",
        "a@b.c",
        "-t",
        "load@test.local",
    ]
    source = subprocess.run([*command, f"inet:127.0.0.1:{daemon.port}"], check=False, timeout=600)
    told = ("plugin_failure", "bug", "process")
    assert source.returncode == 0, [event for kind in told for event in daemon.events(kind)]
    wait_for(lambda: len(maildir(daemon, "load")) >= MESSAGES, timeout_s=300)
    files = maildir(daemon, "load")
    assert len(files) == MESSAGES
    ids = Counter(re.search(rb"id ([0-9A-Z]+)", path.read_bytes())[1] for path in files)
    assert len(ids) == MESSAGES, "one delivery for each queue id"
    # smtp-source numbers its messages in the Message-ID; beside that all bodies are the same.
    bodies = Counter(hashlib.sha256(path.read_bytes().partition(b"\n\n")[2]).hexdigest() for path in files)
    assert len(bodies) == 1, bodies
    messages = Counter(re.search(rb"(?mi)^message-id: (.*)$", path.read_bytes())[1] for path in files)
    assert max(messages.values()) == 1
    wait_for(lambda: not list((daemon.var / "spool" / "new").glob("*/*")), timeout_s=60)


class Recorder(threading.Thread):
    """A client that sends numbered messages, records each 250 and goes on after a lost connection."""

    def __init__(self, port: int, number: int, until: float) -> None:
        super().__init__()
        self._port, self._number, self._until = port, number, until
        self.accepted: list[str] = []
        self.lost = 0
        self.unexpected: list[object] = []

    def run(self) -> None:
        index = 0
        while time.monotonic() < self._until:
            try:
                with smtplib.SMTP("127.0.0.1", self._port, local_hostname="c.example", timeout=30) as client:
                    for _ in range(10):
                        index += 1
                        name = f"m{self._number}-{index}"
                        body = f"Subject: {name}\r\n\r\n{name * 50}\r\n"
                        client.sendmail("a@example.org", ["kill@test.local"], body)
                        self.accepted.append(name)
            except (OSError, smtplib.SMTPServerDisconnected):
                self.lost += 1
            except smtplib.SMTPException as error:
                # A client that smtplib leaves in the middle of a dialogue sees 421 or nothing.
                if getattr(error, "smtp_code", 421) not in (421, -1):
                    self.unexpected.append(error)
                self.lost += 1


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_what_got_250_is_there_although_workers_are_killed_every_second(make_daemon: Make, seconds: int):
    """queue.md, promise: killing any process at any instant loses nothing that was answered 250."""
    daemon = make_daemon(plugins=STOCK)
    until = time.monotonic() + seconds
    clients = [Recorder(daemon.port, number, until) for number in range(10)]
    for client in clients:
        client.start()
    killed = 0
    while time.monotonic() < until:
        threading.Event().wait(1.0)  # the pace of the killing is the test's subject
        workers = daemon.role("worker")
        if workers:
            os.kill(workers[killed % len(workers)], signal.SIGKILL)
            killed += 1
    for client in clients:
        client.join()
    assert killed >= seconds // 2
    assert not [error for client in clients for error in client.unexpected]
    accepted = {name for client in clients for name in client.accepted}
    assert len(accepted) > 100

    def found() -> set[str]:
        names = set()
        for path in maildir(daemon, "kill"):
            text = path.read_text()
            name = re.search(r"(?m)^Subject: (\S+)$", text)[1]
            assert text.endswith(f"\n\n{name * 50}\n"), "whole"
            names.add(name)
        return names

    wait_for(lambda: accepted <= found(), timeout_s=60)
    count = Counter(re.search(r"id ([0-9A-Z]+)", path.read_text())[1] for path in maildir(daemon, "kill"))
    assert max(count.values()) == 1, "no queue id was delivered twice: only workers were killed"


def test_a_thousand_idle_connections_leave_room_for_mail(daemon: Daemon):
    """Idle sessions hold a socket and little else."""
    idle = []
    try:
        for _ in range(1000):
            peer = socket.create_connection(("127.0.0.1", daemon.port), timeout=30)
            idle.append(peer)
        for peer in idle:
            assert peer.recv(200).startswith(b"220")
        with daemon.smtp() as client:
            client.sendmail("a@example.org", ["user@test.local"], "Subject: x\r\n\r\nhello\r\n")
    finally:
        for peer in idle:
            peer.close()
    wait_for(lambda: daemon.mailbox("user"), timeout_s=30)
