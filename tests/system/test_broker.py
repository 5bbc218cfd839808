"""Plugins with capabilities behind the real daemon: the broker is there for them, and only for them."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, alive
from tests.support.nameserver import NameServer
from tests.support.waiting import wait_for

from .conftest import Make


@pytest.fixture
def echo() -> Iterator[str]:
    """The address of a server that sends back what it gets, once for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.sendall(client.recv(100))

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def entry(echo: str) -> dict[str, str]:
    grants = f'dns = ["zen.example"]\nstate = true\nconnect = {{ echo = "{echo}" }}\n'
    return {"10-asks.toml": f'plugin = "../asks"\n[grants]\n{grants}'}


def said(client: smtplib.SMTP, local: str) -> str:
    code, text = client.mail(f"{local}@example.org")
    assert code == 550, (code, text)
    client.rset()
    return " ".join(text.decode().replace("5.7.1 ", "").split())


def session(daemon: Daemon) -> smtplib.SMTP:
    client = daemon.smtp()
    client.ehlo()
    return client


@pytest.mark.both_modes
def test_a_plugin_asks_the_world_through_the_broker(make_daemon: Make, echo: str):
    """Names, state, connections; log() and count(); a refusal has its line and its counter."""
    with NameServer() as server:
        server.add("a.zen.example", "A", "127.0.0.9")
        config = f'[dns]\nservers = ["{server.address}"]\n'
        daemon = make_daemon(copy=("asks",), config=config, plugins=entry(echo))
        assert len(daemon.role("broker")) == 1
        client = session(daemon)
        assert said(client, "dns") == "('127.0.0.9',)"
        assert said(client, "other").startswith("NotGranted: the name a.other.example")
        assert said(client, "count") == "1"
        assert said(client, "echo") == "b'hello\\n'"
        client.quit()
        client = session(daemon)
        assert said(client, "count") == "2"
        client.quit()
        (refusal,) = daemon.told("broker_refusal")
        assert (refusal["plugin"], refusal["kind"]) == ("asks", "not_granted")
        lines = daemon.told("plugin_log", 5)
        assert {line["plugin"] for line in lines} == {"asks"}
        assert lines[0]["text"] == "asked\r\nby dns@example.org\x1b[31m"  # one line of JSON each
        assert refusal["session"] == lines[1]["session"]

        def counters() -> dict[str, int]:
            status = daemon.forkd("status", "--json").stdout
            return {name: status.count(name) for name in ("asks.count.connected", "asks.not_granted")}

        wait_for(lambda: all(counters().values()), timeout_s=20)


@pytest.mark.both_modes
def test_a_broker_that_is_killed_comes_back_and_no_session_ends(make_daemon: Make, echo: str):
    """Restart rule: running sandboxes see "temporary" and Unavailable; new sessions find the next broker."""
    daemon = make_daemon(copy=("asks",), plugins=entry(echo), server="workers = 1\n")
    running = session(daemon)
    assert said(running, "count") == "1"
    (before,) = daemon.role("broker")
    wait_for(lambda: (daemon.var / "state" / "state.db-wal").stat().st_size, timeout_s=20)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: not alive(before))
    assert said(running, "count").startswith("Unavailable: ")
    wait_for(lambda: [pid for pid in daemon.role("broker") if pid != before], timeout_s=20)

    def counted() -> bool:
        client = session(daemon)
        text = said(client, "count")
        client.quit()
        return text.isdecimal()

    wait_for(counted, timeout_s=20)
    assert said(running, "count").startswith("Unavailable: ")
    assert running.noop()[0] == 250
    running.quit()


def test_without_such_a_plugin_there_is_no_broker(make_daemon: Make):
    """Nothing is started, made or kept for nobody."""
    daemon = make_daemon()
    assert daemon.role("broker") == []
    assert not (daemon.var / "state").exists()
    assert not (daemon.var / "run" / "broker.sock").exists()


@pytest.mark.both_modes
def test_the_brokers_files_are_its_own(make_daemon: Make, echo: str, who):
    """Its folder is for its user alone; the socket for workers."""
    daemon = make_daemon(copy=("asks",), plugins=entry(echo))
    (pid,) = daemon.role("broker")
    uid = Path(f"/proc/{pid}").stat().st_uid if who.name == "user" else _uid(pid)
    folder = (daemon.var / "state").stat()
    assert (folder.st_uid, folder.st_mode & 0o777) == (uid, 0o700)
    wait_for((daemon.var / "state" / "state.db").exists)
    assert (daemon.var / "state" / "state.db").stat().st_mode & 0o077 == 0
    assert (daemon.var / "run" / "broker.sock").stat().st_mode & 0o777 == 0o600
    (worker, *_) = daemon.role("worker")
    if who.name == "root":
        assert _uid(pid) not in (0, _uid(worker))


def _uid(pid: int) -> int:
    """Its real one: a process that is not dumpable belongs to root in /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("Uid:")[2].split()[0])
