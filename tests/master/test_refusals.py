"""forkd/master/refusals.py: of whose refused calls are workers told, and of how many?"""

from __future__ import annotations

import ctypes
import os
import platform
import select

import pytest

from forkd.master.child import Child
from forkd.master.refusals import AT_ONCE, PER_S, Refusals, Share
from forkd.rpc import channel
from forkd.rpc.messages import RefusedCall, ToRole
from forkd.sandbox import audit, linux, policy
from forkd.sandbox.syscalls import KILL, Row

GREEDY, OTHER, STRANGER = 64001, 64002, 64003
KEYCTL = {"x86_64": 250, "aarch64": 219}[platform.machine()]


def test_a_plugin_has_a_share_of_what_is_told():
    """A storm of one plugin's takes nothing from another's; other programs' are nobody's."""
    share = Share(at=1000.0)
    taken = [share.take(1000.0) for _ in range(int(AT_ONCE) + 5)]
    assert taken == [True] * int(AT_ONCE) + [False] * 5
    later = [share.take(1001.0) for _ in range(int(PER_S) + 1)]
    assert later == [True] * int(PER_S) + [False]
    assert sum(share.take(10_000.0) for _ in range(1000)) == AT_ONCE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read the audit")
def test_a_storm_of_one_plugins_is_told_in_part():
    """Real refusals, more of them than its share; another plugin's name is told all the same."""
    sock = audit.listen()
    if sock is None:
        pytest.skip("the kernel does not let us read its audit here")
    refusals = Refusals(sock, {GREEDY: "greedy", OTHER: "other"})
    ours, theirs = channel.pair()
    ours.setblocking(False)
    worker = Child(os.getpid(), ours)

    def told_until(plugin: str, *uids: int) -> list[str]:
        for uid in uids:
            refused_call(uid)
        told: list[RefusedCall] = []
        while plugin not in {each.plugin for each in told}:
            assert select.select([sock], [], [], 5)[0], "no record within 5 s"
            refusals.tell([worker])
            told += channel.drain(theirs, ToRole)[0]
        assert {each.call for each in told} == {"keyctl"}
        return [each.plugin for each in told]

    assert told_until("other", GREEDY, STRANGER, OTHER) == ["greedy", "other"]
    refusals.shares["greedy"].left = -1e6  # hours, until there is one
    assert told_until("other", GREEDY, STRANGER, GREEDY, OTHER) == ["other"]
    refusals.close()
    ours.close()
    theirs.close()


def refused_call(uid: int) -> None:
    """A process of that uid is killed for keyctl."""
    program = policy._program(
        [Row(KILL, "keyctl", "for this test")], default=0x7FFF_0000, architecture=platform.machine()
    )
    filter_ = linux.seccomp_filter(program)
    pid = os.fork()
    if pid == 0:
        os.setresuid(uid, uid, uid)
        linux.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
        linux.syscall(linux.NUMBER["seccomp"], linux.SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(filter_))
        linux.syscall(KEYCTL, 0, 0)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 31
