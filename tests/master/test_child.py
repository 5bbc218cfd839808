"""forkd/master/child.py: what is done to a process that is dead already?"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from forkd.master.child import Child
from forkd.master.zygote_child import ZygoteChild
from tests.support.sandboxes import ROOT, USER, as_mode, stage


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Who got the number of a process that was reaped; he leads a session, as a zygote does."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


def test_the_number_of_a_reaped_process_is_not_killed(stranger: subprocess.Popen[bytes]):
    """What it had said may still be read, and be out of protocol."""
    child = Child(stranger.pid, None, reaped=True)
    child.kill()
    stranger.terminate()
    assert stranger.wait(10) == -signal.SIGTERM  # a SIGKILL would have been first


@pytest.mark.parametrize("mode", [ROOT, USER])
def test_nor_is_that_of_a_reaped_zygote(mode: str):
    """Its number, group and session may be others'; what is left of it in a cgroup is ended all the same."""

    def body() -> None:
        with stage(mode) as st:
            st.start("def attack(_): pass\n", namespaces=False, cgroup=mode == ROOT)
            process = st.zygote
            child = ZygoteChild(process.pid, process.control, process.output, process=process, reaped=True)
            child.kill()
            if process.cgroup is None:
                os.kill(process.pid, signal.SIGTERM)
            ended = os.WTERMSIG(os.waitpid(process.pid, 0)[1])
            assert ended == (signal.SIGTERM if process.cgroup is None else signal.SIGKILL)

    as_mode(mode, body)
