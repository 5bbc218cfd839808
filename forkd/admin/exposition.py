"""What is said at /metrics? The slots of all processes added up, in Prometheus' text format (families.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

import forkd
from forkd import log, metrics, metrics_slot
from forkd.admin.http import Answer
from forkd.admin.peers import Master, Refused
from forkd.metrics import Family, Labels
from forkd.rpc.message import Message
from forkd.rpc.messages_metrics import SlotMade

Found = dict[tuple[Family, Labels], list[float]]


class Exposition:
    """slots: name -> descriptor to read it by; they are ours."""

    def __init__(self, slots: Mapping[str, int], master: Master) -> None:
        self._slots = dict(slots)
        self._master = master

    def made(self, message: Message, descriptors: Sequence[int]) -> None:
        """Master tells of one more (rpc.link.MasterLink, on_passed)."""
        if isinstance(message, SlotMade) and len(descriptors) == 1 and message.name not in self._slots:
            self._slots[message.name] = descriptors[0]
            return
        for descriptor in descriptors:
            os.close(descriptor)

    async def answer(self) -> Answer:
        """The row of admin/http.py."""
        from forkd.admin import families  # noqa: PLC0415 - what it loads nobody needs who does not ask

        found: Found = {}
        now = time.monotonic()
        for name, fd in self._slots.items():
            try:
                series = list(metrics_slot.read(fd, now))
            except OSError as error:
                log.debug("a slot of metrics cannot be read", slot=name, why=str(error))
                continue
            for family, labels, numbers in series:
                add(found, family, labels, numbers)
        await self._ask_master(found)
        return Answer(families.text(found), content_type=families.CONTENT_TYPE)

    async def _ask_master(self, found: Found) -> None:
        add(found, metrics.INFO, (forkd.__version__,), (1.0,))
        try:
            status = await self._master.glance()
        except Refused:
            add(found, metrics.UP, (), (0.0,))
            return
        add(found, metrics.UP, (), (1.0,))
        add(found, metrics.START_TIME, (), (status.started_at,))
        for process in status.processes:
            add(found, metrics.PROCESSES, (process.role, process.state), (1.0,))


def add(found: Found, family: Family, labels: Labels, numbers: Sequence[float]) -> None:
    """To what others have of the same series."""
    before = found.setdefault((family, labels), [0.0] * family.width)
    for place, number in enumerate(numbers):
        before[place] += number
