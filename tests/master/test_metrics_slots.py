"""What a process measured is so no more when it is dead, however it died (metrics_slots.py)."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import time
from pathlib import Path

import msgspec
import pytest

from forkd import metrics, metrics_slot
from forkd.config.load import load
from forkd.master.child import Child
from forkd.master.generation import Generation
from forkd.master.ground import Ground
from forkd.master.metrics_slots import MetricsSlots
from forkd.master.privileges import Identities
from forkd.master.roles import ROLES
from forkd.master.roster import Roster
from forkd.master.runtime import Runtime
from forkd.rpc import channel, passing
from forkd.rpc.messages import ToRole
from forkd.rpc.messages_metrics import SlotMade
from forkd.rpc.messages_pool import Stop
from forkd.rpc.start import RoleStart


def test_gauges_of_the_dead_are_nobodys(tmp_path: Path):
    """A qmgr that was killed while the next one comes at another number: the queue is not twice as long."""
    nobody = Identities({})
    ground = Ground(Runtime(tmp_path, nobody), nobody, Roster())
    role = next(role for role in ROLES if role.name == "qmgr")
    place = Generation(1, load(None, cwd=tmp_path), ground).place(role, 1)
    fd = ground.metrics.open("qmgr.1")
    slot = metrics_slot.Slot(fd)
    slot.set(metrics.SESSIONS, 7)
    slot.add(metrics.REPLIES, "250")
    slot.beat()
    assert len(list(metrics_slot.read(fd, time.monotonic()))) == 2
    place.on_end()
    assert [family for family, _, _ in metrics_slot.read(fd, time.monotonic())] == [metrics.REPLIES]
    ground.close()


def test_an_admin_is_told_of_each_slot_however_late(tmp_path: Path):
    """One that did not read then, and one that stays, as the next one did not come up; to read alone."""
    slots = MetricsSlots()
    pairs = [channel.pair() for _ in range(2)]
    admins = [Child(pid, ours) for pid, (ours, _) in enumerate(pairs, 2)]
    try:
        slots.forked(admins[0])
        while admins[0].tell(Stop(deadline_s=None)):
            pass
        slots.open("worker.0")
        slots.forked(admins[1])
        admins[1].close()
        told = []
        for turn in range(200):
            messages, _ = passing.drain(pairs[0][1], ToRole)
            told += [(message.name, fds) for message, fds in messages if isinstance(message, SlotMade)]
            if turn == 1:
                slots.open("worker.1")
            slots.look(0.0)
        assert [name for name, _ in told] == ["worker.0", "worker.1"]
        for _, (fd,) in told:
            assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            os.close(fd)
    finally:
        slots.close()
        for ours, theirs in pairs:
            ours.close()
            theirs.close()


@pytest.mark.parametrize("listen", ["auto", ""])
def test_where_nobody_can_read_it_nothing_is_counted(tmp_path: Path, listen: str):
    """A process has no slot then, and no observer of its log for it."""
    nobody = Identities({})
    ground = Ground(Runtime(tmp_path, nobody), nobody, Roster())
    loaded = load(None, cwd=tmp_path)
    metrics = msgspec.structs.replace(loaded.config.metrics, listen=listen)
    config = msgspec.structs.replace(loaded.config, metrics=metrics)
    generation = Generation(1, dataclasses.replace(loaded, config=config), ground)
    role = dataclasses.replace(
        next(role for role in ROLES if role.name == "broker"),
        main="tests.master.test_metrics_slots:show", needs=frozenset({"counts"}), may=None,
    )  # fmt: skip
    child = generation.place(role, 0).start()
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == (7 if listen else 8)
        assert ("broker.0" in ground.metrics.files) == bool(listen)
    finally:
        child.close()
        ground.close()


def show(start: RoleStart) -> int:
    """Of the process: has it somewhere to count?"""
    return 7 if start.metrics >= 0 else 8
