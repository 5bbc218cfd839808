"""What a zygote that was taken over keeps alive beside its sandboxes: ended, whole (support/hostile.py)."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.daemon import alive
from tests.support.hostile import (
    GOOD,
    LOCAL_FORK,
    Start,
    ask_hostile,
    ended_whole,
    killed,
    restarts,
    session,
    undisturbed,
    zygote_of,
)
from tests.support.waiting import wait_for


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
