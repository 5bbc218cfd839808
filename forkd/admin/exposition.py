"""What is said at /metrics? The slots of all processes added up, in Prometheus' text format (families.py)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Final

import forkd
from forkd import log, metrics, metrics_slot
from forkd.admin.http import Answer
from forkd.admin.peers import Master, Refused
from forkd.metrics import Family, Labels
from forkd.rpc.message import Message
from forkd.rpc.messages_metrics import SlotMade

MOST_SERIES: Final = 8000
"""Of one slot, ever: so many have room in it, and an honest process never takes one away."""

Found = dict[tuple[Family, Labels], list[float]]


class Exposition:
    """slots: name -> descriptor to read it by; they are ours."""

    def __init__(self, slots: Mapping[str, int], master: Master) -> None:
        self._slots = dict(slots)
        self._shown: dict[str, set[tuple[Family, Labels]]] = {}
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
                for family, labels, numbers in self._believed(name, metrics_slot.read(fd, now)):
                    add(found, family, labels, numbers)
            except OSError as error:
                log.debug("a slot of metrics cannot be read", slot=name, why=str(error))
        await self._ask_master(found)
        return Answer(families.text(found), content_type=families.CONTENT_TYPE)

    def _believed(self, name: str, series: metrics_slot.Read) -> metrics_slot.Read:
        """What that process may say: what its role counts, and in the end no more than fits into a slot.

        One that was taken over would else make new series for each scrape, until who stores them dies of it.
        """
        role, shown = name.partition(".")[0], self._shown.setdefault(name, set())
        for family, labels, numbers in series:
            if not family.told_by(role, labels):
                continue
            if (family, labels) not in shown:
                if len(shown) >= MOST_SERIES:
                    continue
                shown.add((family, labels))
            yield family, labels, numbers

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
