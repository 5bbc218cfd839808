"""forkd/sandbox/processes.py: what /proc says of all processes, whatever they are called."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from forkd.sandbox import processes

NAMES = [b"plain", b") Z 0 0 0", b"Uid:\t0\t", b"\nUid:\t7\t", b"\xff) R 1", b""]


@contextmanager
def child(act: Callable[[], object]) -> Iterator[int]:
    """A process that does this, and then waits for its end."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os.write(told, b"x")
            signal.pause()
        finally:
            os._exit(1)
    try:
        os.read(ready, 1)
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)


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
