"""Workers come and go as load and age ask for them (master/sizing.py, master/workforce.py)."""

from __future__ import annotations

import os
import re
import signal
import smtplib
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, alive
from tests.support.waiting import wait_for

from .conftest import Make
from .test_full_worker import connect, say

UP_TO_3 = 'workers = 3\n[pool]\nmin = 1\nidle = "1s"\n'


def told(daemon: Daemon, act: str) -> list[dict]:
    return [event for event in daemon.events("service") if event["act"] == act]


def deliver(daemon: Daemon, user: str) -> list[Path]:
    with daemon.smtp() as client:
        client.sendmail("a@example.org", [f"{user}@test.local"], "Subject: x\r\n\r\nhello\r\n")
    return wait_for(lambda: daemon.mailbox(user), timeout_s=30)


def test_workers_are_added_for_a_crowd_and_go_after_it(make_daemon: Make):
    """Nobody is sent away while another worker can come, and mail goes through the new ones."""
    daemon = make_daemon(server=UP_TO_3, config="[limits]\nsessions = 4\n")
    assert len(daemon.role("worker")) == 1
    crowd = [connect(daemon) for _ in range(12)]
    assert len(daemon.role("worker")) == 3
    assert all(say(client, "NOOP").startswith(b"250") for client in crowd)
    assert not daemon.events("session"), "nobody had to go"
    for peer, file in crowd[1:]:
        file.close()
        peer.close()
    wait_for(lambda: len(daemon.role("worker")) == 1, timeout_s=60)
    assert len(told(daemon, "worker_added")) == len(told(daemon, "worker_leaves")) == 2
    assert deliver(daemon, "after")


@pytest.mark.slow
def test_a_worker_is_retired_and_its_sessions_go_on(make_daemon: Make):
    """pool.retire_sessions: the successor serves first; whose session runs notices nothing."""
    daemon = make_daemon(server="workers = 1\n[pool]\nretire_sessions = 2\n")
    (old,) = daemon.role("worker")
    client, other = connect(daemon), connect(daemon)
    assert say(client, "HELO client.example").startswith(b"250")
    assert say(client, "MAIL FROM:<a@example.org>").startswith(b"250")

    def leaves() -> bool:
        assert say(other, "NOOP").startswith(b"250")
        return bool(told(daemon, "worker_leaves"))

    wait_for(leaves, timeout_s=60)
    assert say(client, "RCPT TO:<late@test.local>").startswith(b"250")
    assert say(client, "DATA").startswith(b"354")
    assert say(client, "Subject: x\r\n\r\nhello\r\n.").startswith(b"250")
    assert alive(old)
    (mail,) = deliver(daemon, "new")
    assert re.search(r"id \w+W1\b", mail.read_text()), "by the successor, whose folders were made with it"
    assert say(client, "QUIT").startswith(b"221")
    # Of those that stay and say nothing none is waited for.
    assert other[1].readline().startswith(b"421 4.3.2")
    wait_for(lambda: not alive(old), timeout_s=30)
    wait_for(lambda: daemon.mailbox("late"), timeout_s=30)
    assert daemon.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_a_full_worker_leaves_connections_to_one_that_has_room(make_daemon: Make):
    """Both listen on one socket, and which accepts first is the kernel's: nobody is sent away for that."""
    daemon = make_daemon(server="workers = 2\n", config="[limits]\nsessions = 20\n")
    first, second = daemon.role("worker")
    os.kill(second, signal.SIGSTOP)
    try:
        crowd = [connect(daemon) for _ in range(20)]
        wait_for(lambda: "20 sessions" in Path(f"/proc/{first}/cmdline").read_text(), timeout_s=30)
        late = smtplib.SMTP()
        late_peer = daemon.connect()  # nobody accepts it now
    finally:
        os.kill(second, signal.SIGCONT)
    assert late_peer.makefile("rb").readline().startswith(b"220")
    crowd += [connect(daemon) for _ in range(19)]
    late.close()
    assert all(say(client, "NOOP").startswith(b"250") for client in crowd)
    assert not daemon.events("session")
