"""What a process measured is so no more when it is dead, however it died (metrics_slots.py)."""

from __future__ import annotations

import time
from pathlib import Path

from forkd import metrics, metrics_slot
from forkd.config.load import load
from forkd.master.generation import Generation
from forkd.master.ground import Ground
from forkd.master.privileges import Identities
from forkd.master.roles import ROLES
from forkd.master.roster import Roster
from forkd.master.runtime import Runtime


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
