"""What systemd sees of us, tried with its own tools (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from forkd.config.schema import Listener, Server
from forkd.master.listeners import split
from forkd.master.notify import Notifier
from forkd.master.privileges import BROKER_USER, LAUNCHER_USER, USERS
from forkd.master.roles import ROLES
from forkd.master.shutdown import KILL_GRACE_S
from tests.support.daemon import alive, free_port, titles
from tests.support.page import blocks
from tests.support.trivial import PROGRAM, Trivial
from tests.support.waiting import wait_for

UNITS = Path(__file__).parent.parent.parent / "systemd"
PAGE = UNITS.parent / "docs" / "deployment.md"


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


def test_a_process_is_named_though_the_environment_changes(tmp_path, notified):
    """setproctitle writes where argv and environment lie side by side: it must look for them before
    NOTIFY_SOCKET is taken out, which systemd may have put first."""
    forkd = Trivial(tmp_path, "good", environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    forkd.prefix = ("env", "-i", f"NOTIFY_SOCKET={tmp_path / 'notify'}", "ROLES=good",
                    f"PYTHONPATH={UNITS.parent}", f"PATH={os.environ['PATH']}")  # fmt: skip
    with forkd:
        assert titles({forkd.pid}) == {forkd.pid: "forkd: master [running]"}


def test_time_is_asked_for_while_it_starts_and_stops_and_not_between(tmp_path, notified):
    """sd_notify(3), EXTEND_TIMEOUT_USEC: TimeoutStartSec and TimeoutStopSec know nothing of our limits."""
    extend = "EXTEND_TIMEOUT_USEC=30000000"
    with Trivial(tmp_path, "good*2", environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as forkd:
        before = until(notified, "READY=1")
        assert extend in before
        assert extend not in notified.recv(4096).decode().split("\n")
        forkd.signal(signal.SIGQUIT)
        while "STOPPING=1" not in (lines := notified.recv(4096).decode().split("\n")):
            assert extend not in lines
        assert extend in lines
        forkd.ended()


def test_why_it_does_not_start_is_told(tmp_path, notified):
    """`systemctl status` shows it beside `failed`."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "ADDRESS": "127.0.0.1:smtp"}
    with Trivial(tmp_path, "good", environment=environment, wait_ready=False) as forkd:
        assert forkd.ended() == 78
    assert notified.recv(4096).decode().startswith("STATUS=starting\n")
    said = notified.recv(4096).decode()
    assert said.startswith("STATUS=did not start: [listener.default] address = '127.0.0.1:smtp': "), said


def test_a_reload_is_told_with_its_time(notified, tmp_path):
    """Type=notify-reload compares MONOTONIC_USEC with when it asked (sd_notify(3)); both ends are told."""
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.ready()
    notifier.look(1.0, lambda: "running")
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    notifier.look(2.0, lambda: "reloading")
    notifier.ready()
    notifier.look(3.0, lambda: "running")
    said = [notified.recv(4096).decode().split("\n") for _ in range(7)][1:]
    extend = "EXTEND_TIMEOUT_USEC=30000000"
    assert [said[0], said[1], said[3], said[4], said[5]] == [
        ["READY=1"], ["STATUS=running"], ["STATUS=reloading", extend], ["READY=1"], ["STATUS=running"],
    ]  # fmt: skip
    notifier.close()
    reloading, at, more = said[2]
    assert (reloading, more) == ("RELOADING=1", extend)
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


tools = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd container: no systemd tools")


@tools
def test_the_units_are_clean(tmp_path):
    """systemd-analyze verify has nothing to say."""
    for name in ("forkd.service", "forkd.socket"):
        text = (UNITS / name).read_text().replace("/usr/local/bin/forkd", "/bin/true")
        (tmp_path / name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / "forkd.service", tmp_path / "forkd.socket"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@tools
def test_the_score_of_the_service_is_the_one_that_is_written_down():
    """systemd-analyze security, of systemd 252 (Debian 12); a later one asks for more, and may find more."""
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / "forkd.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for forkd.service: ([0-9.]+)", done.stdout)
    assert found, done
    written = re.search(
        r"exposure level ([0-9]+[.][0-9])", (UNITS.parent / "docs" / "deployment.md").read_text()
    )
    version = subprocess.run(
        ["systemd-analyze", "--version"], capture_output=True, text=True, check=True
    ).stdout
    if version.startswith("systemd 252 "):
        assert written
        assert float(found[1]) == float(written[1])
    assert float(found[1]) < 5


@tools
def test_the_users_of_the_snippets_are_those_of_the_defaults(tmp_path):
    """systemd-sysusers makes each user that [server] names; systemd-tmpfiles the service's data_dir."""
    (tmp_path / "etc").mkdir()
    for tool in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        snippet = UNITS / f"forkd.{tool[0].removeprefix('systemd-')}"
        command = [*tool, f"--root={tmp_path}", snippet]
        subprocess.run(command, capture_output=True, check=True)
    rows = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    users = {name: (home, shell) for name, _, _, _, _, home, shell in rows}
    wanted = {getattr(Server(), key) for key in (*USERS, BROKER_USER, LAUNCHER_USER)}
    assert users == dict.fromkeys(wanted, ("/var/lib/forkd", "/usr/sbin/nologin"))
    folder = (tmp_path / "var/lib/forkd").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid) == (0o755, os.getuid())


def unit(name: str) -> list[tuple[str, str]]:
    rows = (UNITS / name).read_text().splitlines()
    return [tuple(row.split("=", 1)) for row in rows if row[:1].isalpha()]  # type: ignore[misc]


def test_systemd_waits_longer_for_a_stop_than_it_takes():
    """Even where nobody asks for more time: on defaults all phases end, by limits, within TimeoutStopSec."""
    phases: dict[int, float] = {}
    for role in ROLES:
        limit_s = float(Server().stop_timeout) if role.stop_limit_s is None else role.stop_limit_s
        phases[role.stop_phase] = max(phases.get(role.stop_phase, 0), limit_s + KILL_GRACE_S)
    assert sum(phases.values()) < float(dict(unit("forkd.service"))["TimeoutStopSec"])


def test_the_sockets_are_those_of_the_page():
    """What is held by default is what the page's MX listens on: nobody waits for who is not there.

    In comments: what it says of submission. Both families of each port.
    """
    shown = [tomllib.loads(each.text) for each in blocks(PAGE) if each.language == "toml"]
    listeners = next(each["listener"] for each in shown if "mx4" in each.get("listener", {}))
    rows = unit("forkd.socket")
    addresses = [value for key, value in rows if key == "ListenStream"]
    assert addresses == [each["address"] for each in listeners.values()]
    offered = re.findall("^#ListenStream=(.*)", (UNITS / "forkd.socket").read_text(), re.MULTILINE)
    assert offered == [f"{host}:{port}" for port in (587, 465) for host in ("0.0.0.0", "[::]")]
    for address in addresses + offered:
        split(address)
    assert dict(rows)["Backlog"] == str(Listener().backlog)
    assert dict(rows)["BindIPv6Only"] == "ipv6-only"


def test_a_reload_finds_forkd_by_its_folder():
    """Not by the file: a data_dir that was just changed there is not yet where forkd is."""
    service = dict(unit("forkd.service"))
    assert service["ExecReload"].partition(" reload ")[2] == f"--data-dir %S/{service['StateDirectory']}"
