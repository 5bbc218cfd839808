"""Zygotes taken over by their plugins, under the real daemon: each costs its own plugin, and nobody else.

The plugin `hostile` does its worst at import, or at its first call, behind the real walls. It is asked for
recipients of hostile.test alone. Beside it a client of another plugin sends mail, and nothing happens to him.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from forkd.master.child import Child
from forkd.master.place import Place
from forkd.master.pool import Slot
from forkd.master.roles import ROLES
from forkd.master.shutdown import Shutdown
from forkd.master.watch import Watch
from forkd.master.zygotes import ZygoteChild
from forkd.sandbox import launch, wire
from forkd.sandbox.confine import LAYERS
from tests.support.daemon import Daemon, alive, titles
from tests.support.forked import child
from tests.support.people import Person, person
from tests.support.sandboxes import MODES, stage
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


# --- what it keeps ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_helpers_forked_as_soon_as_it_may_are_found_and_the_whole_zygote_ends(start: Start):
    """A process that no worker knows: counted, and killed with all the rest; restarts go on."""
    daemon = start(LOCAL_FORK + "once_begun(lambda: [helper() for _ in range(3)])\n" + GOOD)
    with undisturbed(daemon):
        zygote = wait_for(lambda: zygote_of(daemon, "hostile"))
        wait_for(lambda: len(session(zygote)) == 4)
        line = killed(daemon)
        assert "belong to no sandbox that a worker holds" in line["reason"]
        ended_whole(daemon, zygote)
        wait_for(lambda: zygote_of(daemon, "hostile") not in (0, zygote), timeout_s=20)
    counted = restarts(daemon)
    assert counted["hostile"][0] >= 1 and counted["block_senders"][0] == 0


@pytest.mark.slow
def test_a_helper_forked_by_a_call_is_found_too(start: Start):
    """Its sandbox skips the child's filter, and leaves a process behind that outlives the session."""
    text = LOCAL_FORK + (
        "from forkd.sandbox import child\n"
        "was = child.Armour.__init__\n"
        "def arm(self, **how):\n"
        "    was(self, **(how | {'layers': frozenset()}))\n"
        "child.Armour.__init__ = arm\n"
        "from forkd.sdk import Plugin\n"
        "def plugin_init(settings):\n"
        "    def rcpt(session, recipient):\n"
        "        helper()\n"
        "    return Plugin(rcpt=rcpt)\n"
    )
    daemon = start(text)
    with undisturbed(daemon):
        zygote = zygote_of(daemon, "hostile")
        assert ask_hostile(daemon) == 250
        assert "belong to no sandbox" in killed(daemon)["reason"]
        ended_whole(daemon, zygote)


def test_a_zygote_that_keeps_dead_sandboxes_alive_is_ended(start: Start):
    """Its sandboxes' leashes are never armed: the worker sees one outlive its session, and blames."""
    text = (
        "import time\n"
        "from forkd.sandbox import child\n"
        "was = child.serve\n"
        "class Deaf:\n"
        "    def __init__(self, channel): self.channel = channel\n"
        "    def send(self, data): return self.channel.send(data)\n"
        "    def recvmsg_into(self, *how):\n"
        "        got = self.channel.recvmsg_into(*how)\n"
        "        while not got[0]: time.sleep(600)\n"
        "        return got\n"
        "def serve(descriptors, **how):\n"
        "    from forkd.sandbox import linux\n"
        "    linux.syscall(linux.NUMBER['fcntl'], descriptors[1], 4, 0)\n"
        "    was(descriptors, **(how | {'channel': Deaf(how['channel'])}))\n"
        "child.serve = serve\n" + GOOD
    )
    daemon = start(text)
    with undisturbed(daemon):
        zygote = zygote_of(daemon, "hostile")
        assert ask_hostile(daemon) == 250
        assert "after its leash was dropped" in killed(daemon)["reason"]
        ended_whole(daemon, zygote)


@pytest.mark.slow
def test_what_a_zygote_leaves_behind_when_it_dies_is_ended_with_its_successor(start: Start):
    """It forks a helper and is killed: the helper is an orphan, and counted all the same."""
    daemon = start(LOCAL_FORK + "once_begun(helper)\n" + GOOD)
    with undisturbed(daemon):
        zygote = zygote_of(daemon, "hostile")
        (orphan,) = wait_for(lambda: session(zygote) - {zygote})
        os.kill(zygote, signal.SIGKILL)
        wait_for(lambda: not alive(orphan), timeout_s=30)


def test_a_stop_ends_its_helpers_as_well(start: Start):
    """Master's stop is a kill like any other: nothing of the zygote outlives it."""
    daemon = start(LOCAL_FORK + "once_begun(lambda: [helper() for _ in range(3)])\n" + GOOD)
    zygote = zygote_of(daemon, "hostile")
    helpers = wait_for(lambda: found if len(found := session(zygote) - {zygote}) == 3 else set())
    assert daemon.stop() == 0
    assert not [pid for pid in helpers if alive(pid)]


# --- what it says ----------------------------------------------------------------------------------------


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
