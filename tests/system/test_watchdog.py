"""Something stands still, hangs or is full: what do readiness, systemd and `forkd status` say?

| what | readiness | systemd's watchdog | then |
|---|---|---|---|
| a worker's loop stands still | not ready: probe | fed | master replaces it |
| the loops of zygotes stand still | not ready: probe | fed | master replaces them |
| a plugin hangs | ready | fed | its sessions get its on_failure |
| all places are taken | ready | fed | others are served when one is free |
| the spool's disk is full | not ready: spool | fed | mail is taken when there is room |
| qmgr's loop stands still | not ready: queue | fed | master replaces it |
| master's loop stands still | not ready: service | starves: systemd starts forkd anew | or it goes on |

So systemd kills for a stalled master and for nothing else; nothing that a client or a plugin does reaches it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import asking_http
from tests.support.daemon import Daemon
from tests.support.disks import mounting
from tests.support.people import Person
from tests.support.waiting import wait_for

from .conftest import Make
from .test_faults import misbehave
from .test_probe import Client

pytestmark = pytest.mark.slow

CONFIG = """
heartbeat = "3s"
workers = 1
[probe]
interval = "200ms"
timeout = "1s"
[limits]
sessions = 3
[queue]
min_free = "1MiB"
[domain."test.local"]
"""
SOON_S = 60
"""For what master or admin find out by themselves, on a busy machine."""


class Watchdog:
    """What systemd hears of a daemon."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.setblocking(False)

    def told(self) -> list[str]:
        """Lines since the last call."""
        lines: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                lines += self._socket.recv(4096).decode().split("\n")
        return lines

    def is_fed(self) -> None:
        """From now on, again."""
        self.told()
        wait_for(lambda: "WATCHDOG=1" in self.told(), timeout_s=SOON_S, what="WATCHDOG=1")

    def close(self) -> None:
        self._socket.close()


Watched = tuple[Daemon, Watchdog]


@pytest.fixture
def watch(make_daemon: Make, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """watch() -> a daemon whose watchdog is to be fed each half second, ready."""
    with contextlib.ExitStack() as ends:

        def make(*, before: Callable[[Daemon], object] = lambda _daemon: None, **how) -> Watched:
            daemon = make_daemon(start=False, server=CONFIG, **how)
            path = daemon.folder / "notify"
            watchdog = Watchdog(path)
            ends.callback(watchdog.close)
            notify = (f"NOTIFY_SOCKET={path}", "WATCHDOG_USEC=1000000")
            daemon.prefix = (*daemon.prefix, "env", *notify)
            before(daemon)
            daemon.start()
            becomes_ready(daemon)
            return daemon, watchdog

        yield make


def asked(daemon: Daemon, path: str = "/readyz") -> tuple[int, dict[str, str]]:
    """Status, and what is wrong by check (for /healthz: whatever is said)."""
    found = asking_http.get(daemon.var / "run" / "metrics.sock", path)
    rows = (line.partition(": ") for line in found.text.splitlines())
    return found.status, {name: why for name, _, why in rows if why != "ok"}


def becomes_ready(daemon: Daemon) -> None:
    wait_for(lambda: asked(daemon)[0] == 200, timeout_s=SOON_S, what="it is ready")
    shown = daemon.forkd("status", "--config", "forkd.toml").stdout
    assert re.search(r"^ready +yes", shown, re.MULTILINE), shown


def is_not_ready(daemon: Daemon, check: str) -> str:
    """Why not, by that check and no other; `forkd status` says the same."""
    why = wait_for(lambda: asked(daemon)[1], timeout_s=SOON_S, what="it is not ready")
    assert list(why) == [check], why
    shown = daemon.forkd("status", "--config", "forkd.toml").stdout
    assert re.search(rf"^not ready +{check}: ", shown, re.MULTILINE), shown
    return why[check]


def ended(daemon: Daemon, pid: int) -> str:
    """Why master ended it."""
    lines = wait_for(
        lambda: [e for e in daemon.events("process") if e["act"] == "killed" and e["pid"] == pid],
        timeout_s=SOON_S,
    )
    return str(lines[0]["reason"])


def roles(daemon: Daemon) -> list[list[int]]:
    """Who is there, but for sandboxes, which come and go with each probe."""
    return [daemon.role(name) for name in ("worker", "qmgr", "admin", "anvil")]


def is_greeted(daemon: Daemon) -> bool:
    with Client(daemon) as client:
        return client.greeting.startswith(b"220")


def takes_mail(daemon: Daemon) -> None:
    with daemon.smtp() as client:
        client.sendmail("a@example.org", ["user@test.local"], "Subject: x\r\n\r\nhello\r\n")


def test_a_worker_that_stands_still_is_replaced(watch):
    """Its loop is what the probe asks; its heartbeat what master goes by."""
    daemon, watchdog = watch()
    (pid,) = daemon.role("worker")
    os.kill(pid, signal.SIGSTOP)
    assert is_not_ready(daemon, "probe") == "no answer within 1 s"
    watchdog.is_fed()
    assert ended(daemon, pid).startswith("no heartbeat for ")
    becomes_ready(daemon)
    watchdog.is_fed()
    takes_mail(daemon)
    changes = [(e["ready"], e.get("reason", "")) for e in daemon.events("readiness")]
    assert changes[0] == (False, "probe: no answer within 1 s")
    assert changes[-1] == (True, "")


def test_zygotes_that_stand_still_are_replaced(watch):
    """No sandbox comes of them: the word of the probe's plugin does not come back."""
    daemon, watchdog = watch()
    (pid,) = daemon.role("zygote @probe")
    os.kill(pid, signal.SIGSTOP)
    assert is_not_ready(daemon, "probe").startswith("the probe's plugin did not answer")
    watchdog.is_fed()
    assert ended(daemon, pid).startswith("its loop stands still")
    becomes_ready(daemon)
    takes_mail(daemon)


def test_a_plugin_that_hangs_is_its_sessions_trouble_alone(watch):
    """Or else a client could have a balancer, or systemd, take the service away."""
    daemon, watchdog = watch(plugins=misbehave("defer"), copy=("misbehave",))
    with daemon.smtp() as client:
        client.ehlo()
        assert client.mail("mail-sleep@example.org")[0] == 451
    watchdog.is_fed()
    assert asked(daemon) == (200, {})
    assert not daemon.events("readiness")
    assert "plugin misbehave" in daemon.forkd("status", "--config", "forkd.toml").stdout


def test_a_full_table_is_not_the_services_trouble(watch):
    """Clients alone can fill it."""
    daemon, watchdog = watch()
    with contextlib.ExitStack() as clients:
        while (client := clients.enter_context(Client(daemon))).greeting.startswith(b"220"):
            client.say("HELO client.example")
            client.say("MAIL FROM:<a@example.org>")
        watchdog.is_fed()
        assert asked(daemon) == (200, {})
        assert not daemon.events("readiness")
    wait_for(lambda: is_greeted(daemon))


def test_a_full_disk_is_said_and_its_end_seen(watch, who: Person, tmp_path: Path):
    """452 4.3.1 at MAIL, for clients and probe alike."""
    with mounting(tmp_path) as mount:
        disks = []

        def small(daemon: Daemon) -> None:
            disks.append(mount("tmpfs", daemon.var / "spool", owner=who.uid))
            os.chown(daemon.var, who.uid, -1)

        daemon, watchdog = watch(before=small)
        try:
            disks[0].fill()
            assert is_not_ready(daemon, "spool").startswith("MAIL FROM: 452 4.3.1 ")
            watchdog.is_fed()
            disks[0].make_room()
            becomes_ready(daemon)
            takes_mail(daemon)
        finally:
            daemon.stop()


def test_a_qmgr_that_stands_still_is_replaced(watch):
    """Mail is taken meanwhile; nothing of it is delivered."""
    daemon, watchdog = watch()
    (pid,) = daemon.role("qmgr")
    os.kill(pid, signal.SIGSTOP)
    assert is_not_ready(daemon, "queue") == "qmgr does not answer"
    takes_mail(daemon)
    watchdog.is_fed()
    assert ended(daemon, pid).startswith("no heartbeat for ")
    becomes_ready(daemon)
    wait_for(lambda: daemon.mailbox("user"), timeout_s=SOON_S)


def test_a_stalled_master_alone_lets_the_watchdog_starve(watch):
    """Where systemd does not kill it, it goes on, and holds against nobody what it has not heard."""
    daemon, watchdog = watch()
    before = roles(daemon)
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        status, why = asked(daemon)
        # Nor is there a young probe: whoever makes it asks master first.
        assert (status, why["service"]) == (503, "master did not answer within 5 s")
        watchdog.told()
        # Longer than the watchdog's time, which is a second here.
        assert asked(daemon, "/healthz")[0] == 503
        assert "WATCHDOG=1" not in watchdog.told()
        silent = daemon.forkd("status", "--config", "forkd.toml")
        assert "master did not answer within 5 s" in silent.stderr
        takes_mail(daemon)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    watchdog.is_fed()
    becomes_ready(daemon)
    assert roles(daemon) == before, "nobody was killed"


def test_a_service_that_stops_is_not_ready_before_it_is_gone(watch):
    """A balancer sends nobody any more, while the last ones finish."""
    daemon, watchdog = watch()
    with Client(daemon) as client:
        client.say("HELO client.example")
        client.say("MAIL FROM:<a@example.org>")
        daemon.send_signal(signal.SIGQUIT)
        wait_for(lambda: asked(daemon)[1].get("service") == "draining", timeout_s=SOON_S)
        assert asked(daemon, "/healthz")[0] == 200
        watchdog.is_fed()
    assert daemon.process is not None
    assert daemon.process.wait(60) == 0
