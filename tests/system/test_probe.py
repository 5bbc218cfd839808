"""forkd's own probe in the real daemon (forkd/probe): it tries everything, and nobody notices."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import stat
from collections.abc import Iterator

import pytest

from tests.support import asking_http
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import Make

CONFIG = """
[probe]
interval = "200ms"
[limits]
sessions = 1
[domain."test.local"]
"""


def status(daemon: Daemon) -> dict:
    said = daemon.forkd("status", "--json", "--config", "forkd.toml")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def readiness(daemon: Daemon) -> dict:
    return status(daemon)["readiness"]


def next_probes(daemon: Daemon) -> dict:
    """What is said when two more probes have ended: at least the second one began after this call."""
    found = readiness(daemon)
    for _ in range(2):
        found = wait_for(functools.partial(later, daemon, found.get("probed_at", 0.0)), timeout_s=30)
    return found


def later(daemon: Daemon, at: float) -> dict:
    """Where there was another probe than that one."""
    found = readiness(daemon)
    # It is told as an age, and so is not the same to the millisecond each time.
    return found if found.get("probed_at", 0.0) > at + 0.1 else {}


@pytest.fixture
def probed(share_daemon: Make) -> Daemon:
    return share_daemon(plugins={}, config=CONFIG)


class Client(socket.socket):
    """A connection to the daemon."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self.settimeout(30)
        self.connect(("127.0.0.1", daemon.port))
        self.greeting = self.recv(1000)

    def say(self, command: str) -> None:
        self.sendall(f"{command}\r\n".encode())
        assert self.recv(1000).startswith(b"250")


def talk(daemon: Daemon) -> Iterator[str]:
    """A session with a worker on the probe's own socket: send() a command, get the last line of its reply."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(daemon.var / "run" / "probe.sock"))
        with connection.makefile("rwb") as file:
            command = None
            while True:
                if command is not None:
                    file.write(command.encode() + b"\r\n")
                    file.flush()
                line = file.readline().decode()
                while line[3:4] == "-":
                    line = file.readline().decode()
                command = yield line.strip()


def test_a_full_session_table_refuses_clients_and_not_the_probe(probed: Daemon):
    """The probe has places of its own: who fills ours must not have a balancer send everybody away."""
    with contextlib.ExitStack() as clients:
        while (client := clients.enter_context(Client(probed))).greeting.startswith(b"220"):
            # Who is in the middle of a mail does not give way to others.
            client.say("HELO client.example")
            client.say("MAIL FROM:<a@example.org>")
        assert client.greeting.startswith(b"421 4.3.2")
        assert next_probes(probed)["ready"]
    shown = probed.forkd("status", "--config", "forkd.toml").stdout
    assert re.search(r"^ready +yes, probed", shown, re.M), shown


def test_balancers_are_told_over_http(probed: Daemon):
    """200 and each check by name; whether master lives is another question."""
    next_probes(probed)
    found = asking_http.get(probed.var / "run" / "metrics.sock", "/readyz")
    assert (found.status, found.text) == (200, "service: ok\nprobe: ok\nqueue: ok\nspool: ok\n")
    found = asking_http.get(probed.var / "run" / "metrics.sock", "/healthz")
    assert (found.status, found.text) == (200, "ok\n")


def test_a_spool_that_cannot_be_written_takes_us_out_of_service(probed: Daemon):
    """Not a matter of free space: read-only, over quota, without inodes, it has enough of that."""

    def said() -> tuple[int, str]:
        found = asking_http.get(probed.var / "run" / "metrics.sock", "/readyz")
        return found.status, found.text.splitlines()[-1]

    folder = probed.var / "spool" / "tmp"
    aside = folder.with_name("aside")
    folder.rename(aside)
    try:
        why = "spool: MAIL FROM: 452 4.3.1 the spool cannot be written: No such file or directory"
        wait_for(lambda: said() == (503, why), timeout_s=30)
    finally:
        aside.rename(folder)
    wait_for(lambda: said() == (200, "spool: ok"), timeout_s=30)
    assert not list(folder.glob("w*/*"))


def counted(status: dict) -> dict:
    """The status, when all workers have said what they count; with their first heartbeat."""
    workers = [each for each in status["processes"] if each["role"] == "worker"]
    return status if all(each["counters"] for each in workers) else {}


def test_probes_are_in_no_count_and_no_line_of_the_log(probed: Daemon):
    """Of sessions, of clients, of refusals; only the process of its plugin is seen."""
    before = wait_for(lambda: counted(status(probed)))
    next_probes(probed)
    after = status(probed)
    assert [p["counters"] for p in after["processes"]] != []
    for was, now in zip(before["processes"], after["processes"], strict=True):
        if was["role"] in ("worker", "anvil"):
            assert was["counters"].get("connections") == now["counters"].get("connections")
            assert now["counters"].get("refused") == was["counters"].get("refused")
    said = [e for e in probed.events() if e["event"] in ("session", "refused", "readiness")]
    assert not [e for e in said if "probe" in json.dumps(e)]


def test_the_probes_socket_takes_no_mail(probed: Daemon):
    """Admin's user alone may connect; whoever did could send nothing, to nobody."""
    found = (probed.var / "run" / "probe.sock").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    session = talk(probed)
    assert next(session).startswith("220 ")
    assert session.send("EHLO probe.invalid").startswith("250 ")
    assert session.send("MAIL FROM:<word@probe.invalid>") == "550 5.7.1 The probe was heard: word"
    assert session.send("MAIL FROM:<>").startswith("250 ")
    for recipient in ("nobody@probe.invalid", "user@test.local", "postmaster"):
        assert session.send(f"RCPT TO:<{recipient}>").startswith("550 ")
    assert session.send("DATA").startswith(("503 ", "554 "))
    assert session.send("QUIT").startswith("221 ")
