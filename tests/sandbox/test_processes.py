"""forkd/sandbox/processes.py: what /proc says of all processes, whatever they are called."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forkd.sandbox import processes
from tests.support.forked import child
from tests.support.waiting import wait_for

NAMES = [b"plain", b") Z 0 0 0", b"Uid:\t0\t", b"\nUid:\t7\t", b"\xff) R 1", b""]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_of_any_octets_says_nothing(name: bytes):
    """prctl(2): a process calls itself what it likes."""

    def act() -> None:
        os.setsid()
        ctypes.CDLL(None).prctl(15, ctypes.c_char_p(name), 0, 0, 0)

    with child(act) as pid:
        seen = processes.see(pid)
        assert seen is not None and (seen.pid, seen.dead, seen.session) == (pid, False, pid)
        assert seen in list(processes.look())
        assert processes.owner(pid) == (os.getuid(), 1)


def test_the_dead_are_told_apart_and_the_gone_are_none():
    """A zombie is there until it is reaped."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    seen = processes.see(pid)
    assert seen is not None and seen.dead
    os.waitpid(pid, 0)
    assert processes.see(pid) is None
    assert processes.owner(pid) == (-1, 0)


def test_a_process_is_known_again_by_its_start():
    """Pids come again: the number alone is nobody's name."""
    me = processes.see(os.getpid())
    assert me is not None and me.started > 0 and me == processes.see(os.getpid())


FREEZER = Path("/sys/fs/cgroup/freezer")
EXIT = {"x86_64": 60, "aarch64": 93}[platform.machine()]
"""exit(2) of one thread."""


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """It gets no processor, not even for its end: as on a machine that is too busy, only for certain."""
    if not os.access(FREEZER / "cgroup.procs", os.W_OK):
        pytest.skip("cgroup controllers: no freezer of version 1, which holds up the killed too")
    group = Path(tempfile.mkdtemp(prefix="forkd-test-", dir=FREEZER))
    (group / "cgroup.procs").write_text(str(pid))
    (group / "freezer.state").write_text("FROZEN")
    wait_for(lambda: (group / "freezer.state").read_text() == "FROZEN\n")
    try:
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        wait_for(lambda: group.rmdir() is None)  # when its last process has ended: who is in it is killed


def test_who_is_killed_is_dying_until_he_gets_the_processor():
    """A busy machine may let him wait for seconds: nobody keeps him alive."""
    with child() as pid:
        seen = processes.see(pid)
        assert seen is not None and (seen.dead, seen.dying) == (False, False)
        with frozen(pid):
            os.kill(pid, signal.SIGKILL)
            seen = processes.see(pid)
            assert seen is not None and (seen.dead, seen.dying) == (False, True)


def test_other_signals_do_not_make_it_dying():
    """One that is blocked stays pending as long as its process likes."""

    def act() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGTERM)

    with child(act) as pid:
        seen = processes.see(pid)
        assert seen is not None and (seen.dead, seen.dying) == (False, False)


def test_a_process_whose_first_thread_has_ended_lives():
    """pthread_exit(3): it shows as a zombie, and the others go on."""

    def act() -> None:
        threading.Thread(target=signal.pause).start()

    with child(act, then=lambda: ctypes.CDLL(None).syscall(EXIT, 0)) as pid:
        wait_for(lambda: "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text())
        seen = processes.see(pid)
        assert seen is not None and (seen.dead, seen.dying) == (False, False)
