"""Load while workers are killed at random, and while they are retired: who else notices?"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import smtplib
import threading
import time
from collections import Counter

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import STOCK, Make
from .test_load import maildir
from .test_workforce import told

CLIENTS = 10


class Client(threading.Thread):
    """Sends one message a connection, each of which has a name; says what became of it.

    accepted  names that were answered 250
    lost      names whose connection ended in the middle
    answered  whatever else was heard: refusals
    """

    def __init__(self, port: int, number: int, over: threading.Event) -> None:
        super().__init__()
        self._port, self._number, self._over = port, number, over
        self.accepted: list[str] = []
        self.lost: list[str] = []
        self.answered: list[object] = []

    def run(self) -> None:
        for index in itertools.count():
            if self._over.is_set():
                return
            name = f"c{self._number}-{index}.example"
            try:
                with smtplib.SMTP("127.0.0.1", self._port, local_hostname=name, timeout=30) as client:
                    body = f"Subject: {name}\r\n\r\n{name * 20}\r\n"
                    client.sendmail("a@example.org", ["load@test.local"], body)
                    self.accepted.append(name)
            except (smtplib.SMTPServerDisconnected, ConnectionResetError, BrokenPipeError):
                self.lost.append(name)
            except (OSError, smtplib.SMTPException) as error:
                if getattr(error, "smtp_code", 0) == -1:  # as smtplib says that nothing came any more
                    self.lost.append(name)
                else:
                    self.answered.append(error)


def check(daemon: Daemon, clients: list[Client]) -> set[str]:
    """Nobody was refused, and all that was answered 250 is there; the names of all sessions in the log."""
    assert not [error for client in clients for error in client.answered]
    accepted = {name for client in clients for name in client.accepted}
    assert len(accepted) > 100

    def found() -> set[str]:
        return {re.search(r"(?m)^Subject: (\S+)$", path.read_text())[1] for path in maildir(daemon, "load")}

    wait_for(lambda: accepted <= found(), timeout_s=60)
    ids = Counter(re.search(r"id ([0-9A-Z]+)", path.read_text())[1] for path in maildir(daemon, "load"))
    assert max(ids.values()) == 1
    return {event["helo"] for event in daemon.events("session") if "helo" in event}


@pytest.mark.slow
def test_a_killed_workers_own_sessions_end_and_no_others(make_daemon: Make):
    """Every session that the log tells of ended well; those that were lost, no living worker knew."""
    daemon = make_daemon(server="workers = 3\n", plugins=STOCK)
    over = threading.Event()
    clients = [Client(daemon.port, number, over) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    choice, killed = random.Random(7), 0
    until = time.monotonic() + 20
    while time.monotonic() < until:
        threading.Event().wait(choice.uniform(0.1, 1.0))  # the pace of the killing is the test's subject
        if workers := daemon.role("worker"):
            os.kill(choice.choice(workers), signal.SIGKILL)
            killed += 1
    over.set()
    for client in clients:
        client.join()
    assert killed > 10
    sessions = check(daemon, clients)
    lost = {name for client in clients for name in client.lost}
    assert lost, "else this shows nothing"
    assert not lost & sessions
    assert {event["reason"] for event in daemon.events("session")} == {"quit"}


@pytest.mark.slow
def test_nobody_notices_that_workers_are_retired(make_daemon: Make):
    """pool.retire_sessions under load: no connection refused, no session dropped, no message lost."""
    daemon = make_daemon(server="workers = 2\n[pool]\nretire_sessions = 50\n", plugins=STOCK)
    over = threading.Event()
    clients = [Client(daemon.port, number, over) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        wait_for(lambda: len(told(daemon, "worker_leaves")) >= 2, timeout_s=120)
    finally:
        over.set()
        for client in clients:
            client.join()
    check(daemon, clients)
    assert not [name for client in clients for name in client.lost]
    assert {event["reason"] for event in daemon.events("session")} == {"quit"}
