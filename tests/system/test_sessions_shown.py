"""`forkd sessions`, `forkd kick`, `forkd drain` with a real daemon and its clients."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.people import person
from tests.support.waiting import wait_for

from .conftest import Make, end, prepare


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    daemon = prepare(person("user"), server="workers = 2\n")
    try:
        yield daemon.start()
    finally:
        end(daemon)


def ask(daemon: Daemon, *options: str) -> dict[str, Any]:
    done = daemon.forkd("sessions", "--json", "--config", "forkd.toml", *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def talk(client: socket.socket, *lines: str) -> bytes:
    """Greeting, and a reply to each line; the last of them."""
    reply = b""
    for line in ("", *lines):
        client.sendall(f"{line}\r\n".encode() if line else b"")
        while not reply.endswith(b"\r\n") or reply.splitlines()[-1][3:4] == b"-" or not reply:
            reply += client.recv(4096)
        last, reply = reply, b""
    return last


def test_a_session_is_shown_as_it_is_and_ended_by_its_id(daemon: Daemon):
    """Client, listener, name, state, transaction so far; 421 to who is kicked, and nobody else."""
    idle, mailing, sending = (daemon.connect() for _ in range(3))
    talk(idle, "EHLO idle.example")
    talk(mailing, "EHLO mailing.example", "MAIL FROM:<a@example.org>", "RCPT TO:<b@test.local>")
    talk(sending, "EHLO sending.example", "MAIL FROM:<>", "RCPT TO:<c@test.local>", "DATA")
    sending.sendall(b"Subject: one\r\n" * 100)

    def shown() -> dict[str, Any]:
        answer = ask(daemon)
        found = {session["helo"].partition(".")[0]: session for session in answer["sessions"]}
        if (answer["total"], answer["silent"]) != (3, []):  # a busy machine: a worker may be late once
            return {}
        return found if found["sending"]["octets"] == 1400 else {}

    found = wait_for(shown)
    assert {name: session["state"] for name, session in found.items()} == {
        "idle": "idle", "mailing": "mail", "sending": "data"
    }  # fmt: skip
    one = found["mailing"]
    assert (one["sender"], one["recipients"], one["client"]) == ("a@example.org", 1, "127.0.0.1")
    assert one["port"] == mailing.getsockname()[1]

    (only,) = ask(daemon, "--state", "data", "--client", "127.0.0.0/8")["sessions"]
    assert only["id"] == found["sending"]["id"]
    assert ask(daemon, "--idle", "1h")["sessions"] == []
    table = daemon.forkd("sessions", "--config", "forkd.toml", "--sort", "idle").stdout
    assert "<a@example.org> to 1" in table and table.count("127.0.0.1") == 3

    done = daemon.forkd("kick", "--config", "forkd.toml", one["id"], only["id"].lower(), "0" * 18)
    assert (done.stdout, done.returncode) == ("2 sessions ended\n", 1)
    assert f"no such session: {'0' * 18}" in done.stderr
    for kicked in (mailing, sending):
        assert kicked.recv(4096).startswith(b"421 4.3.2 Connection closed by the administrator")
        assert kicked.recv(4096) == b""
    idle.sendall(b"NOOP\r\n")
    assert idle.recv(4096).startswith(b"250")
    ends = {line["session"]: line["reason"] for line in daemon.told("session", 2)}
    assert ends[one["id"]] == ends[only["id"]] == "kicked"
    acts = [line for line in daemon.told("admin") if line["request"] == "kick"]
    assert acts[0]["detail"].startswith("2 of 3: ") and one["id"] in acts[0]["detail"]
    idle.close()


@pytest.mark.slow
def test_a_worker_that_stands_still_costs_its_own_sessions(daemon: Daemon):
    """The others are shown; who is missing is said, and what he had comes back with him."""
    wait_for(lambda: ask(daemon)["total"] == 0)
    stopped = daemon.role("worker")[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        client = daemon.connect()
        talk(client, "EHLO other.example")
        done = daemon.forkd("sessions", "--config", "forkd.toml")
        assert "127.0.0.1" in done.stdout
        assert f"(pid {stopped}) did not answer: no answer within 3 s" in done.stderr
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: ask(daemon)["silent"] == [])


@pytest.mark.slow
def test_admin_killed_finds_the_workers_again(daemon: Daemon):
    """And they it: within a second or two."""
    (admin,) = daemon.role("admin")
    os.kill(admin, signal.SIGKILL)
    wait_for(lambda: [pid for pid in daemon.role("admin") if pid != admin])
    wait_for(lambda: ask(daemon)["silent"] == [], timeout_s=20)


@pytest.mark.slow
def test_who_is_waited_for_in_a_drain_can_be_kicked(make_daemon: Make):
    """`forkd drain` has no limit; sessions still shows for whom it waits."""
    daemon = make_daemon()
    idle, mailing = daemon.connect(), daemon.connect()
    talk(idle, "EHLO idle.example")
    talk(mailing, "EHLO mailing.example", "MAIL FROM:<a@example.org>")
    assert daemon.forkd("drain", "--no-wait", "--config", "forkd.toml").stdout == "stopping\n"
    assert idle.recv(4096).startswith(b"421 4.3.2 Service is stopping")
    (left,) = wait_for(lambda: found if len(found := ask(daemon)["sessions"]) == 1 else [])
    assert (left["state"], left["helo"]) == ("mail", "mailing.example")
    assert daemon.process is not None and daemon.process.poll() is None
    daemon.forkd("kick", "--config", "forkd.toml", left["id"])
    assert mailing.recv(4096).startswith(b"421 4.3.2 Connection closed")
    assert daemon.process.wait(30) == 0
