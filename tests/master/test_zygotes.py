"""Plugins' zygotes under a real master: start-up, death, output (sandbox.md, life of a sandbox)."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.exits import Exit
from forkd.master import zygotes
from forkd.master.privileges import Identities
from forkd.master.runtime import Runtime
from forkd.master.zygote_child import ASKS, ZygoteChild
from forkd.master.zygotes import Wanted
from forkd.rpc import places
from forkd.rpc.channel import BadRecord
from forkd.sandbox import launch
from forkd.sandbox import policy as policies
from tests.support.trivial import Trivial
from tests.support.waiting import wait_for

GOOD = """
from forkd.sdk import Plugin

def plugin_init(settings):
    return Plugin(mail=lambda *_: None)
"""


def plugin(tmp_path, name: str, text: str) -> None:
    (tmp_path / "plugins").mkdir(exist_ok=True)
    (tmp_path / "plugins" / f"{name}.py").write_text(text)


def zygote(forkd: Trivial) -> int:
    pids = [pid for pid, title in forkd.titles().items() if "zygote" in title and "@" not in title]
    return pids[0] if len(pids) == 1 else 0


def test_a_plugin_that_fails_stops_the_start_with_its_traceback(tmp_path):
    """Its author reads what went wrong, where; the status is PLUGIN, nothing is left."""
    plugin(tmp_path, "bad", "def plugin_init(settings):\n    raise LookupError('no list')\n")
    forkd = Trivial(tmp_path, "zygote,steady").start()
    assert forkd.ended() == Exit.PLUGIN
    assert "plugin 'bad' did not start: load failed: LookupError: no list" in forkd.log()
    assert 'bad.py", line 2, in plugin_init\n' in forkd.log()
    assert not forkd.seen("start")


def test_a_setting_that_a_plugin_refuses_is_one_line(tmp_path):
    """ValueError of plugin_init: its text is the admin's, who has no use for a traceback."""
    text = "def plugin_init(settings):\n    raise ValueError('setting x: two are bad:\\none\\nother')\n"
    plugin(tmp_path, "strict", text)
    forkd = Trivial(tmp_path, "zygote,steady").start()
    assert forkd.ended() == Exit.PLUGIN
    told = [line for line in forkd.log().splitlines() if "setting x" in line and "level=debug" not in line]
    assert any("plugin 'strict' did not start: setting x: two are bad: one; other" in line for line in told)
    assert len([line for line in forkd.log().splitlines() if "level=error" in line]) == 1
    assert "Traceback" not in forkd.log()


def test_a_plugin_that_hangs_stops_the_start(tmp_path):
    """Not ready within sandbox.start_timeout."""
    plugin(tmp_path, "hangs", "while True: pass\n")
    forkd = Trivial(tmp_path, "zygote,good", environment={"START_TIMEOUT": "1"}).start()
    assert forkd.ended() == Exit.PLUGIN
    assert "plugin 'hangs' did not start: not ready within 1 s" in forkd.log()


def test_a_killed_zygote_comes_back_on_the_same_socket(tmp_path):
    """Workers that connect in between wait instead of being refused."""
    plugin(tmp_path, "fine", GOOD)
    with Trivial(tmp_path, "zygote,good") as forkd:
        first = wait_for(lambda: zygote(forkd))
        os.kill(first, signal.SIGKILL)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
            worker.connect(str(forkd.run / "plugin" / "fine"))
        forkd.wait_log("act=ready", "name=fine")
        assert zygote(forkd) not in (0, first)
        forkd.signal(signal.SIGTERM)
        assert forkd.ended() == Exit.OK


@pytest.fixture
def asked() -> Iterator[tuple[ZygoteChild, socket.socket]]:
    """A zygote that may stand still for 10 s, and the other end of its control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reader, writer = os.pipe()
    process = launch.ZygoteProcess(1, ours, reader)
    with ours, theirs:
        yield ZygoteChild(1, ours, process=process, heard=True, patience_s=10.0), theirs
    os.close(reader)
    os.close(writer)


def test_a_zygote_is_late_when_it_was_asked_often_not_when_much_time_went_by(asked):
    """All of us may have been stopped meanwhile (a container that is paused): that is none of its doing."""
    child, _ = asked
    assert [child.ask(1000.0 * hour) for hour in range(ASKS)] == [""] * ASKS
    assert child.ask_at == 1000.0 * (ASKS - 1) + 1.0
    assert child.ask(0.0) == "its loop stands still: no answer for 10 s"


def test_a_zygote_that_answers_is_never_late(asked):
    """However late it answers within its time; one question is under way at a time."""
    child, theirs = asked
    for _ in range(3):
        assert [child.ask(0.0) for _ in range(ASKS)] == [""] * ASKS
        theirs.send(theirs.recv(100))
        assert child.hear(0.0) == ([], False)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_an_answer_to_another_question_is_a_breach(asked):
    """Nothing that it says is taken for the answer that is still to come."""
    child, theirs = asked
    for n in (0, 2):
        child.ask(0.0)
        theirs.send(b'{"t":"alive","n":%d}' % n)
        with pytest.raises(BadRecord):
            child.hear(0.0)


def test_a_killed_master_leaves_no_zygote(tmp_path):
    """Parent-death signal, where nobody is left to close its control socket."""
    plugin(tmp_path, "fine", GOOD)
    with Trivial(tmp_path, "zygote,good,admin") as forkd:
        forkd.signal(signal.SIGKILL)
        forkd.ended()


def test_what_a_plugin_prints_is_in_the_log_and_bounded(tmp_path):
    """Whole lines, escaped, so much and no more; what was dropped is counted."""
    plugin(tmp_path, "loud", GOOD + "print('hello\\x1b[2J')\nfor n in range(9000): print('x' * 99)\n")
    with Trivial(tmp_path, "zygote,good") as forkd:
        forkd.wait_log("event=plugin_output", "plugin=loud", r'"hello\x1b[2J"')
        assert forkd.log().count("x" * 99) < 400


def spec(tmp_path: Path, kind: str, files: tuple[Path, ...]) -> launch.ZygoteSpec:
    return launch.ZygoteSpec(
        name="way", policy=policies.compile_policy(profile="exec"), kind=kind, argv=("/bin/cat",), files=files
    )


def test_a_program_stays_over_a_reload_although_it_was_granted_files(tmp_path: Path):
    """It reads them each time it starts. Else qmgr, which asks it, would end with each reload. Not where a
    name is another file's by now, which its walls do not leave it; and a plugin may have read them once."""
    runtime = Runtime(tmp_path, Identities({}))
    places.plugin_socket(runtime.folder, "way").parent.mkdir(parents=True)
    table = tmp_path / "table"
    table.write_text("one")
    found = zygotes.Zygote(Wanted(spec=spec(tmp_path, "program", (table,))), runtime)
    table.write_text("two")
    assert found.still(Wanted(spec=spec(tmp_path, "program", (table,))))
    other = tmp_path / "other"
    other.write_text("three")
    other.replace(table)
    assert not found.still(Wanted(spec=spec(tmp_path, "program", (table,))))
    found.close()
    loaded = zygotes.Zygote(Wanted(spec=spec(tmp_path, "python", (table,))), runtime)
    assert not loaded.still(Wanted(spec=spec(tmp_path, "python", (table,))))
    loaded.close()
