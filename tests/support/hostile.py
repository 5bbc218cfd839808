"""Zygotes taken over by their plugins, under the real daemon: each costs its own plugin, and nobody else.

The plugin `hostile` does its worst at import, or at its first call, behind the real walls. It is asked for
recipients of hostile.test alone. Beside it a client of another plugin sends mail, and nothing happens to him.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, alive, titles
from tests.support.people import Person, person
from tests.support.waiting import wait_for
from tests.system.conftest import end, prepare

MANIFEST = """
name = "hostile"
version = "1.0.0"
api = 1
kind = "python"
description = "Does its worst, for tests"
hooks = ["rcpt"]
"""
ENTRY = """
plugin = "../hostile"
on_failure = "defer"
[scope]
domains = ["hostile.test"]
[limits]
spare = 0
timeout = "2s"
"""
CONTROL = """
plugin = "block_senders"
[settings]
senders = ["blocked@example.org"]
"""
CONFIG = '[domain."test.local"]\n[domain."hostile.test"]\n'

GOOD = """
from forkd.sdk import Plugin
def plugin_init(settings):
    return Plugin(rcpt=lambda session, recipient: None)
"""
"""What each of them ends with: whatever it does beside it, it also answers as it should."""

LOCAL_FORK = """
import ctypes, os, time
from forkd.sandbox import linux
def helper(seconds=600):
    pid = linux.fork()
    if pid == 0:
        time.sleep(seconds)
        os._exit(0)
    return pid
def once_begun(act):
    from forkd.sandbox import zygote
    was = zygote.Zygote._answer
    def answer(self):
        was(self)
        zygote.Zygote._answer = was
        act()
    zygote.Zygote._answer = answer
"""
"""once_begun(): when master has looked at the zygote, and let it go on."""


WALLS = {"user": '[sandbox]\nnamespaces = "off"\ncgroup = "off"\n', "root": "[sandbox]\n"}
"""Started by a user, all of a zygote is found by its session; by root, by the best that the machine has."""


@pytest.fixture(
    params=[name if name == "user" else pytest.param(name, marks=pytest.mark.slow) for name in WALLS]
)
def who(request: pytest.FixtureRequest) -> Person:
    """Started by an ordinary user, and by root; root in `make test-all`."""
    return person(request.param)


Start = Callable[..., Daemon]


@pytest.fixture
def start(who: Person) -> Iterator[Start]:
    """start(text of hostile.py, …) -> the daemon, with its control session open."""
    with ExitStack() as stack:

        def make(
            text: str,
            *,
            server: str = "",
            walls: str = WALLS[who.name],
            sandbox: str = "",
            beside: dict[bytes, bytes] | None = None,
        ) -> Daemon:
            daemon = prepare(
                who,
                server=server,
                config=CONFIG + walls + sandbox,
                plugins={"10-hostile.toml": ENTRY, "20-block_senders.toml": CONTROL},
            )
            stack.callback(end, daemon)
            folder = daemon.folder / "hostile"
            folder.mkdir()
            (folder / "plugin.toml").write_text(MANIFEST)
            (folder / "hostile.py").write_text(text)
            for name, content in (beside or {}).items():
                (folder / os.fsdecode(name)).write_bytes(content)
            for path in (folder, *folder.iterdir()):
                os.chown(path, who.uid, -1)
            return daemon.start()

        yield make


def restarts(daemon: Daemon) -> dict[str, tuple[int, str]]:
    """Plugin -> how often its zygote was started anew, and how the last one ended, as `forkd status` says."""
    shown = json.loads(daemon.forkd("status", "--data-dir", str(daemon.var), "--json").stdout)
    zygotes = [each for each in shown["processes"] if each["role"] == "zygote"]
    return {each["name"]: (each["restarts"], each["last_end"]) for each in zygotes}


@contextmanager
def undisturbed(daemon: Daemon) -> Iterator[None]:
    """A session of the other plugin, open all the while: it is served before, and goes on after."""
    zygote = zygote_of(daemon, "block_senders")
    client = daemon.smtp()
    client.ehlo()
    assert client.mail("blocked@example.org")[0] == 550
    yield
    assert client.mail("blocked@example.org")[0] == 550
    assert client.mail("sender@example.org")[0] == 250
    assert client.rcpt("user@test.local")[0] == 250
    assert client.data(b"Subject: goes on\r\n\r\nhello\r\n")[0] == 250
    client.quit()
    wait_for(lambda: daemon.mailbox("user"))
    assert zygote_of(daemon, "block_senders") == zygote, "the other plugin's zygote was not touched"


def ask_hostile(daemon: Daemon) -> int:
    """One session of the hostile plugin; its reply code."""
    with daemon.smtp() as client:
        client.ehlo()
        client.mail("sender@example.org")
        return client.rcpt("user@hostile.test")[0]


def zygote_of(daemon: Daemon, plugin: str) -> int:
    """Pid of a plugin's zygote (its helpers have its title, but not its session); 0: there is none now."""
    shown = titles(daemon.pids())
    found = [pid for pid, title in shown.items() if title.startswith(f"forkd: zygote {plugin}")]
    return next((pid for pid in found if pid in session(pid)), 0)


def session(pid: int) -> set[int]:
    """The living processes of a zygote, itself among them."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if fields[3] == str(pid) and fields[0] not in "ZX":
                found.add(int(entry.name))
    return found


def killed(daemon: Daemon) -> dict:
    """The line that says why its zygote was killed."""

    def lines() -> list[dict]:
        return [
            line
            for line in daemon.events("process")
            if line["act"] == "killed" and line.get("name") == "hostile"
        ]

    return wait_for(lambda: found[0] if (found := lines()) else {}, timeout_s=30, what="killed")


def ended_whole(daemon: Daemon, zygote: int) -> None:
    """Nothing of that zygote lives."""
    wait_for(lambda: not session(zygote), timeout_s=1)  # 0.1 s, with ten times slack
    assert not alive(zygote)
