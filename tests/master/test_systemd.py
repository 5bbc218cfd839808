"""What systemd sees of us, tried with its own tools (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import alive, free_port
from tests.support.trivial import PROGRAM, Trivial
from tests.support.waiting import wait_for

UNITS = Path(__file__).parent.parent.parent / "systemd"


@pytest.fixture
def notified(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


def until(sock: socket.socket, line: str) -> list[str]:
    lines: list[str] = []
    while line not in lines:
        lines += sock.recv(4096).decode().split("\n")
    return lines


def test_ready_status_and_stopping_are_told(tmp_path, notified):
    """READY=1 when every role is ready, not before; STOPPING=1 when a stop begins."""
    with Trivial(tmp_path, "good*2", environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as forkd:
        before = until(notified, "READY=1")
        assert any(line.startswith("STATUS=starting") for line in before)
        wait_for(lambda: "STATUS=running: 3 sessions, 2 of 2 processes" in notified.recv(4096).decode())
        forkd.signal(signal.SIGTERM)
        until(notified, "STOPPING=1")
        forkd.ended()


def test_the_watchdog_is_fed(tmp_path, notified):
    """Twice within WATCHDOG_USEC (sd_watchdog_enabled(3))."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    with Trivial(tmp_path, "good", environment=environment):
        until(notified, "READY=1")
        for _ in range(3):
            until(notified, "WATCHDOG=1")


def test_no_child_can_speak_for_us(tmp_path, notified):
    """NOTIFY_SOCKET is taken out of the environment before anything is started."""
    with Trivial(tmp_path, "good", environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as forkd:
        assert forkd.seen("start")[0]["environment"] == []


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd container: no systemd tools")
def test_a_socket_that_systemd_holds_is_served(tmp_path):
    """Activated by the first connection, which is not lost; the socket outlives us."""
    port = free_port()
    environment = {
        "ROLES": "good,admin",
        "ADDRESS": f"127.0.0.1:{port}",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(UNITS.parent),
    }
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}"]
    for name, value in environment.items():
        command.append(f"--setenv={name}={value}")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, sys.executable, str(PROGRAM), str(tmp_path)], stderr=log)
    forkd = Trivial(tmp_path, "good,admin", process=process)
    try:
        client = wait_for(lambda: socket.create_connection(("127.0.0.1", port)))
        forkd.wait_log("act=ready")
        assert "inherited=true" in forkd.log()
        client.close()
        process.terminate()
        assert forkd.ended() == 0
    finally:
        forkd.__exit__()
    assert not alive(process.pid)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd container: no systemd tools")
def test_the_units_are_clean(tmp_path):
    """systemd-analyze verify has nothing to say."""
    for name in ("forkd.service", "forkd.socket"):
        text = (UNITS / name).read_text().replace("/usr/local/bin/forkd", "/bin/true")
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / "forkd.service", tmp_path / "forkd.socket"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
