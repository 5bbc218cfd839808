"""What a zygote that was taken over says, prints, or keeps back (support/hostile.py)."""

from __future__ import annotations

import os
import signal

import pytest

from forkd.master.child import Child
from forkd.master.place import Place
from forkd.master.pool import Slot
from forkd.master.roles import ROLES
from forkd.master.shutdown import Shutdown
from forkd.master.watch import Watch
from forkd.master.zygote_child import ZygoteChild
from forkd.sandbox import launch, wire
from forkd.sandbox.confine import LAYERS
from tests.support.daemon import alive
from tests.support.forked import child
from tests.support.hostile import (
    GOOD,
    LOCAL_FORK,
    WALLS,
    Start,
    ask_hostile,
    ended_whole,
    killed,
    restarts,
    undisturbed,
    zygote_of,
)
from tests.support.sandboxes import MODES, stage
from tests.support.waiting import wait_for


def test_a_zygote_that_never_becomes_ready_is_killed_with_its_helpers(start: Start):
    """It was well at start-up, and hangs when it is started anew: killed after start_timeout."""
    hang = (
        "import os\n"
        "if os.path.exists(os.path.join(os.path.dirname(__file__), '.hang')):\n"
        "    helper()\n"
        "    while True: time.sleep(60)\n"
    )
    daemon = start(LOCAL_FORK + hang + GOOD, sandbox='start_timeout = "2s"\n')
    with undisturbed(daemon):
        first = zygote_of(daemon, "hostile")
        (daemon.folder / "hostile" / ".hang").touch()
        os.kill(first, signal.SIGKILL)
        second = wait_for(lambda: pid if (pid := zygote_of(daemon, "hostile")) not in (0, first) else 0)
        assert killed(daemon)["reason"] == "not ready within 2 s"
        ended_whole(daemon, second)


@pytest.mark.parametrize("walls", WALLS.values(), ids=["no PID namespace", "first of its PID namespace"])
def test_a_zygote_that_is_stopped_is_ended_and_the_plugin_comes_back(start: Start, walls: str):
    """SIGSTOP, from whoever may send it: it answers nobody any more, and would not for ever."""
    daemon = start(GOOD, server='heartbeat = "3s"\n', walls=walls)
    with undisturbed(daemon):
        assert ask_hostile(daemon) == 250
        first = zygote_of(daemon, "hostile")
        os.kill(first, signal.SIGSTOP)
        assert ask_hostile(daemon) == 451
        assert killed(daemon)["reason"] == "its loop stands still: no answer for 3 s"
        ended_whole(daemon, first)
        wait_for(lambda: zygote_of(daemon, "hostile") not in (0, first), timeout_s=20)
        wait_for(lambda: ask_hostile(daemon) == 250, timeout_s=20)
        why = "SIGKILL: its loop stands still: no answer for 3 s"
        assert restarts(daemon) == {"hostile": (1, why), "block_senders": (0, ""), "@probe": (0, "")}


def test_a_zygote_that_stays_in_its_plugins_code_is_ended(start: Start):
    """It takes a request and never comes back from it: as dead as one that is stopped."""
    daemon = start(
        "import time\n"
        "from forkd.sandbox import zygote\n"
        "zygote.Zygote._serve = lambda self, fd: time.sleep(600)\n" + GOOD,
        server='heartbeat = "3s"\n',
    )
    with undisturbed(daemon):
        first = zygote_of(daemon, "hostile")
        assert ask_hostile(daemon) == 451
        assert killed(daemon)["reason"] == "its loop stands still: no answer for 3 s"
        ended_whole(daemon, first)
        wait_for(lambda: zygote_of(daemon, "hostile") not in (0, first), timeout_s=20)


def test_an_answer_that_nobody_asked_for_ends_the_zygote(start: Start):
    """Answers in advance would keep one alive that stands still."""
    text = (
        "import _socket\n"
        "from forkd.sandbox import zygote\n"
        "was = zygote.Zygote._serve\n"
        "def ahead(self, fd):\n"
        '    for n in range(2, 99): self._control.send(b\'{"t":"alive","n":%d}\' % n)\n'
        "    was(self, fd)\n"
        "zygote.Zygote._serve = ahead\n"
    )
    daemon = start(text + GOOD)
    with undisturbed(daemon):
        zygote = zygote_of(daemon, "hostile")
        ask_hostile(daemon)
        assert "spoke out of protocol: it answers what it was not asked" in killed(daemon)["reason"]
        ended_whole(daemon, zygote)


def test_a_mapped_file_with_any_name_does_not_end_master(start: Start):
    """Master looks at its mappings, and the names in there are octets of the plugin's choice."""
    text = (
        "import ctypes, os\n"
        "kept = os.open(os.path.dirname(__file__).encode() + b'/\\xff.dat', os.O_RDONLY)\n"
        "map_it = ctypes.CDLL(None).mmap\n"
        "map_it.restype = ctypes.c_void_p\n"
        "assert map_it(None, ctypes.c_size_t(4096), 1, 2, kept, ctypes.c_long(0)) % 4096 == 0\n"
    )
    daemon = start(text + GOOD, beside={b"\xff.dat": b"x" * 4096})
    with undisturbed(daemon):
        assert ask_hostile(daemon) == 250


def test_a_zygote_with_less_than_the_self_test_had_is_not_used(start: Start):
    """Each start must have all the walls that were shown before the first one, not what it can get."""
    text = (
        "import json, os\n"
        "was = json.dumps\n"
        "def less(said):\n"
        "    return was(said | {'layers': said['layers'] | {'network': 'absent'}})\n"
        "if os.path.exists(os.path.join(os.path.dirname(__file__), '.less')):\n"
        "    json.dumps = less\n"
    )
    daemon = start(text + GOOD)
    with undisturbed(daemon):
        first = zygote_of(daemon, "hostile")
        (daemon.folder / "hostile" / ".less").touch()
        os.kill(first, signal.SIGKILL)
        why = "its walls are not as they should be: network is absent"
        wait_for(lambda: [line for line in daemon.events("process") if line.get("reason") == why])


def test_a_zygote_without_a_mount_root_where_the_self_test_had_one_is_not_used():
    """Likewise for what is put around it, which it has no say in."""
    with stage(MODES[0]) as st:
        st.start("def attack(_): pass\n", namespaces=False)
        ready = launch.Ready(api=wire.API, pid=st.zygote.pid, layers=dict.fromkeys(LAYERS, "on"))
        child = ZygoteChild(st.zygote.pid, None, layers=LAYERS, shown={"namespaces": "enforced"})
        lacking = child._lacking(st.zygote, ready)
        assert "it has no mount root of its own" in lacking
        assert "it has no pid namespace of its own" in lacking
        child.shown = {"namespaces": "absent"}
        assert child._lacking(st.zygote, ready) == []


class Unkillable(Child):
    """A child whose end goes wrong in a way that nobody foresaw."""

    def kill(self) -> None:
        """Raises."""
        raise ValueError("unforeseen")


def test_whatever_goes_wrong_with_one_the_others_end_too():
    """The way out of master: no child outlives it."""
    role = next(role for role in ROLES if role.starter == "zygote")
    with child() as first, child() as second:
        places = [
            Place(role, Slot(role.name, 0), lambda: None, child=Unkillable(first, None)),
            Place(role, Slot(role.name, 1), lambda: None, child=Child(second, None)),
        ]
        Shutdown(places, Watch()).abandon()
        assert not alive(first)
        assert not alive(second)


def test_its_listening_socket_outlives_it(start: Start):
    """It is master's, and each of its zygotes listens on the same: no import may shut it down for good."""
    text = (
        "import _socket\n"
        "listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, 4)\n"
        "try: listener.shutdown(2)\n"
        "except OSError: pass\n"
        "listener.detach()\n"
    )
    daemon = start(text + GOOD)
    with undisturbed(daemon):
        first = zygote_of(daemon, "hostile")
        assert ask_hostile(daemon) == 250
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: zygote_of(daemon, "hostile") not in (0, first), timeout_s=20)
        wait_for(lambda: ask_hostile(daemon) == 250, timeout_s=20)


def test_a_flood_on_the_control_socket_ends_the_zygote(start: Start):
    """Ready, and ready, and ready: the second is one too many, and master does not listen to the rest."""
    text = LOCAL_FORK + (
        "from forkd.sandbox import zygote\n"
        "def flood(self, fd):\n"
        "    import _socket, json\n"
        "    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, 3)\n"
        "    said = {'t': 'ready', 'api': 2, 'pid': os.getpid(), 'layers': {}}\n"
        "    while True: control.send(json.dumps(said).encode())\n"
        "zygote.Zygote._serve = flood\n"
    )
    daemon = start(text + GOOD)
    with undisturbed(daemon):
        zygote = zygote_of(daemon, "hostile")
        assert ask_hostile(daemon) == 451
        assert "spoke out of protocol" in killed(daemon)["reason"]
        ended_whole(daemon, zygote)


@pytest.mark.slow
def test_a_flood_of_output_is_bounded(start: Start):
    """It prints for ever, in a process of its own: so much is logged and no more, until that is found."""
    flood = (
        "def flood():\n"
        "    pid = linux.fork()\n"
        "    while pid == 0:\n"
        "        try: os.write(1, b'x' * 99 + b'\\n')\n"
        "        except OSError: pass\n"
        "once_begun(flood)\n"
    )
    daemon = start(LOCAL_FORK + flood + GOOD)
    with undisturbed(daemon):
        killed(daemon)
    printed = sum(len(line["text"]) for line in daemon.events("plugin_output"))
    assert 0 < printed < 500_000


def test_forged_reports_hurt_only_its_own_sessions(start: Start):
    """It reports deaths that nobody died, of ids that nobody gave: the worker lives, and serves."""
    text = LOCAL_FORK + (
        "from forkd.sandbox import wire, zygote\n"
        "was = zygote.Zygote._serve\n"
        "def serve(self, fd):\n"
        "    deaths = [wire.Death(id_, 1, 9, 0, 0, 0, 0) for id_ in range(1, 40)]\n"
        "    self._tell(fd, deaths)\n"
        "    was(self, fd)\n"
        "    self._tell(fd, deaths)\n"
        "zygote.Zygote._serve = serve\n"
    )
    daemon = start(text + GOOD)
    with undisturbed(daemon):
        workers = daemon.role("worker")
        for _ in range(3):
            assert ask_hostile(daemon) in (250, 451)
        assert daemon.role("worker") == workers


@pytest.mark.slow
def test_a_zygote_that_never_forks_is_late_for_its_own_sessions_only(start: Start):
    """It reads requests and does nothing: each call fails at its deadline, as on_failure says."""
    text = (
        "import os\n"
        "from forkd.sandbox import child\n"
        "child.Forker.fork = lambda self, record, descriptors: []\n"
    )
    daemon = start(text + GOOD)
    with undisturbed(daemon):
        assert ask_hostile(daemon) == 451
        (failed,) = daemon.told("plugin_failure")
        assert failed["plugin"] == "hostile"
