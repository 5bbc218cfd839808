"""forkd/sandbox/{ending,cgroups}.py: a zygote ends with all it has forked, by each of the three ways."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkd.sandbox import cgroup_trial, cgroups, ending, launch
from forkd.sandbox.confine import LAYERS
from forkd.sandbox.launch import ZygoteSpec
from forkd.sandbox.policy import compile_policy
from tests.support.sandboxes import MODES, ROOT, USER, as_mode, stage
from tests.support.waiting import wait_for

GONE_S = 0.1
"""sandbox.md, "Life": 100 ms when many go together; asserted with ten times slack."""

HELPERS = """
for _ in range(5):
    if os.fork() == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if os.fork() == 0:
            if os.fork() == 0:
                os.setpriority(os.PRIO_PROCESS, 0, 19)
                while True: pass
            os._exit(0)
        while True: time.sleep(60)
def attack(_): pass
"""
"""A hostile author's helpers: forked at import, twice, with every signal blocked. (fork is the zygote's.)"""

WAYS = {
    "PID namespace": {"cgroup": False},
    "cgroup": {"namespaces": False},
    "proc": {"namespaces": False, "cgroup": False},
}


def possible(way: str, mode: str) -> bool:
    """An ordinary user was delegated no cgroup here."""
    return way != "cgroup" or mode == ROOT


@pytest.mark.parametrize(
    ("way", "mode"), [(way, mode) for way in WAYS for mode in MODES if possible(way, mode)]
)
def test_nothing_is_left_of_a_zygote(way: str, mode: str):
    """Helpers, twice forked, looping and blocking signals: dead within 100 ms, and nobody else is."""

    def body() -> None:
        with stage(mode) as st:
            st.start(HELPERS, **WAYS[way])
            assert ("pid" in st.zygote.namespaces) == (way == "PID namespace")
            assert (st.zygote.cgroup is not None) == (way == "cgroup")
            assert wait_for(lambda: len(st.processes()) >= 10, timeout_s=5)
            started = time.monotonic()
            launch.end_all(st.zygote)
            assert wait_for(lambda: not st.processes(), timeout_s=5)
            assert time.monotonic() - started < GONE_S * 10
            assert os.waitpid(st.zygote.pid, 0)[1] == signal.SIGKILL

    as_mode(mode, body)


@pytest.mark.parametrize("mode", MODES)
def test_who_forks_on_is_caught_by_his_process_group(mode: str):
    """Without namespaces and cgroup: a chain of processes, each ending once it has forked the next.

    Whoever looks for it in /proc finds one that has ended already; it ran on for an hour once.
    """
    code = """
if os.fork() == 0:
    while True:
        if os.fork(): os._exit(0)
def attack(_): pass
"""

    def body() -> None:
        with stage(mode) as st:
            st.start(code, namespaces=False, cgroup=False)
            group = st.zygote.pid
            try:
                ending.end_all(st.zygote)
                os.waitpid(group, 0)
                assert wait_for(lambda: not _is_there(group), timeout_s=5)
            except AssertionError:
                os.killpg(group, signal.SIGKILL)
                raise

    as_mode(mode, body)


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


NAMELESS = """
if os.fork() == 0:
    libc.prctl(15, b"\\xff")
    while True: time.sleep(60)
def attack(_): pass
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_name_that_is_no_text_is_in_nobodys_way(mode: str):
    """PR_SET_NAME takes any octets: of its own processes, and of those of any local user."""

    def body() -> None:
        with stage(mode) as st:
            layers = tuple(layer for layer in LAYERS if layer != "seccomp")
            st.start(NAMELESS, namespaces=False, cgroup=False, layers=layers)
            (helper,) = st.processes()
            assert wait_for(lambda: Path(f"/proc/{helper}/comm").read_bytes() == b"\xff\n", timeout_s=5)
            assert sorted(ending.members(st.zygote)) == sorted([st.zygote.pid, helper])
            with_threads = ZygoteSpec(name="a", policy=compile_policy(threads=True), threads=2)
            assert json.loads(with_threads.encode())["limits"]["sandbox_processes"] > 0
            launch.end_all(st.zygote)
            assert wait_for(lambda: not st.processes(), timeout_s=5)

    as_mode(mode, body)


def test_what_ended_already_is_no_error():
    """Never raises: master calls it whatever it has seen of the zygote."""
    with stage(MODES[0]) as st:
        st.start("def attack(_): pass\n")
        os.kill(st.zygote.pid, signal.SIGKILL)
        os.waitpid(st.zygote.pid, 0)
        launch.end_all(st.zygote)
        assert st.processes() == []


# --- cgroups --------------------------------------------------------------------------------------------

needs_cgroup = pytest.mark.skipif(os.geteuid() != 0, reason="cgroup controllers: none delegated to this user")


@needs_cgroup
def test_a_zygote_and_its_sandboxes_are_in_its_cgroup():
    """It joins before the exec, so that all it ever forks is in there; the folder goes with it."""
    with stage(ROOT) as st:
        st.start("if os.fork() == 0:\n    time.sleep(60)\ndef attack(_): pass\n", namespaces=False)
        folder = st.zygote.cgroup
        assert folder is not None
        assert folder.parent == cgroups.home().folder
        assert sorted(cgroups.processes(folder)) == sorted([st.zygote.pid, *st.processes()])
        assert len(cgroups.processes(folder)) == 2
        launch.end_all(st.zygote)
        os.waitpid(st.zygote.pid, 0)
        assert wait_for(lambda: not cgroups.processes(folder), timeout_s=5)
    cgroups.remove(folder)
    assert not folder.exists()


@needs_cgroup
def test_what_dead_masters_left_is_swept():
    """A master that was killed removes nothing; the next one does, but for what is alive."""
    top = cgroups.own()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    stale = top / f"forkd-{child}" / "plugin-x-1"
    stale.mkdir(parents=True)
    cgroups._home.cache_clear()
    home = cgroups.home()
    assert not stale.parent.exists()
    assert home.folder.exists()


@pytest.fixture
def delegated() -> Iterator[tuple[Path, str]]:
    """A cgroup with a controller that may be handed on, `pids` where there is that."""
    offered = cgroups._words(cgroups.own() / "cgroup.controllers")
    if not offered:
        pytest.skip("cgroup controllers: none in the unified hierarchy")
    controller = "pids" if "pids" in offered else sorted(offered)[0]
    top = cgroups.own() / f"forkd-test-{os.getpid()}"
    before = cgroups._words(cgroups.own() / "cgroup.subtree_control")
    (cgroups.own() / "cgroup.subtree_control").write_text(f"+{controller}")
    top.mkdir()
    try:
        yield top, controller
    finally:
        _remove(top)
        if controller not in before:
            (cgroups.own() / "cgroup.subtree_control").write_text(f"-{controller}")


def _in(top: Path, body: Callable[[], None]) -> None:
    """Run `body` in a process of its own that is in `top`."""
    pid = os.fork()
    if pid == 0:
        try:
            cgroups.join(top)
            body()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@needs_cgroup
def test_controllers_are_handed_down_by_stepping_aside(delegated: tuple[Path, str]):
    """No internal processes (cgroup-v2): alone in a delegated cgroup, we go into a child of it first."""
    top, controller = delegated

    def body() -> None:
        home = cgroups.home((controller,))
        assert home.folder == top / f"forkd-{os.getpid()}"
        assert home.controllers == {controller}
        assert cgroups.own() == home.folder / "master"
        assert (home.folder / "cgroup.subtree_control").read_text().split() == [controller]

    _in(top, body)


@needs_cgroup
def test_controllers_are_not_handed_down_over_the_heads_of_others(delegated: tuple[Path, str]):
    """A shell is in a desktop's scope beside us: with `pids` its children would be for threads alone."""
    top, controller = delegated
    other = subprocess.Popen(["sleep", "60"])
    (top / "cgroup.procs").write_text(str(other.pid))

    def body() -> None:
        assert cgroups.home((controller,)).controllers == set()
        assert (top / "cgroup.subtree_control").read_text().split() == []
        cgroups.join(cgroups.make("beside", {controller: 10}))

    try:
        _in(top, body)
    finally:
        other.kill()
        other.wait()


def _remove(top: Path) -> None:
    if top.exists():
        for folder in sorted(top.rglob("*/"), reverse=True):
            folder.rmdir()
        top.rmdir()


@needs_cgroup
def test_limits_of_a_cgroup_hold():
    """The row `cgroup`: processes and memory as a whole, tried by a throw-away process."""
    if cgroups.home().lacking:
        pytest.skip("cgroup controllers: pids and memory are not both delegated")
    assert cgroup_trial.examine().result == "enforced"


@needs_cgroup
def test_a_limit_that_does_not_hold_is_seen():
    """Honesty of that row: in a cgroup without limits the same acts succeed, and it says so."""
    folder = cgroups.make("honest", {})
    try:
        wrong = cgroup_trial._try(folder, frozenset(cgroups.CONTROLLERS))
        assert wrong == ["more than 4 processes", "more than 64 MiB"]
    finally:
        cgroups.remove(folder)
    assert not folder.exists()


def test_an_ordinary_user_without_delegation_is_told_so():
    """Nothing silent: the row says why there is none."""
    if USER not in MODES or os.geteuid() != 0:
        pytest.skip("cgroup controllers: may be delegated to this user")

    def body() -> None:
        cgroups._home.cache_clear()
        found = cgroup_trial.examine()
        assert found.result == "absent"
        assert "none delegated" in found.detail

    as_mode(USER, body)
