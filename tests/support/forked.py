"""A process that a test forks, and that cannot outlive it: not when the test fails, nor when it is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from forkd.sandbox import linux


def _nothing() -> None:
    """It only waits."""


@contextmanager
def child(act: Callable[[], object] = _nothing, then: Callable[[], object] = signal.pause) -> Iterator[int]:
    """A process that does this, tells us, and then waits for its end or does what it is to do `then`.

    What is tested may have reaped it: its pid is nobody's then. One that is left behind would hold the
    pipe of whoever reads pytest's output, and he would wait for ever.
    """
    parent = os.getpid()
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                act()
                os.write(told, b"x")
                then()
        finally:
            os._exit(1)
    os.close(told)
    try:
        assert os.read(ready, 1), "the child ended before it was ready"
        yield pid
    finally:
        os.close(ready)
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
