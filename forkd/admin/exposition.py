"""What is said at /metrics? The slots of all processes added up, in Prometheus' text format 0.0.4.

Written here, since prometheus-client would be loaded by each start of the daemon for it (50 ms, 140 modules)
and its multi-process mode keeps a file for each pid for ever; promtool says whether it is right (tests).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import forkd
from forkd import log, metrics, metrics_slot
from forkd.admin.http import Answer
from forkd.admin.peers import Master, Refused
from forkd.metrics import FAMILIES, Family, Labels
from forkd.rpc.message import Message
from forkd.rpc.messages import AskStatus, Status
from forkd.rpc.messages_metrics import SlotMade

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

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
        return Answer(text(found).encode(), content_type=CONTENT_TYPE)

    async def _ask_master(self, found: Found) -> None:
        add(found, metrics.INFO, (forkd.__version__,), (1.0,))
        try:
            status = await self._master.ask(lambda n: AskStatus(n=n))
        except Refused:
            status = None
        add(found, metrics.UP, (), (float(isinstance(status, Status)),))
        if isinstance(status, Status):
            add(found, metrics.START_TIME, (), (status.started_at,))
            for process in status.processes:
                add(found, metrics.PROCESSES, (process.role, process.state), (1.0,))


def add(found: Found, family: Family, labels: Labels, numbers: Sequence[float]) -> None:
    """To what others have of the same series."""
    before = found.setdefault((family, labels), [0.0] * family.width)
    for place, number in enumerate(numbers):
        before[place] += number


def text(found: Found) -> str:
    """All families, also those of which there is nothing yet: rules and dashboards find their names."""
    of: dict[Family, list[tuple[Labels, list[float]]]] = {family: [] for family in FAMILIES.values()}
    for (family, labels), numbers in found.items():
        of[family].append((labels, numbers))
    lines: list[str] = []
    for family, series in of.items():
        if not series and not family.labels and family.kind != "gauge":
            series.append(((), [0.0] * family.width))
        lines += (f"# HELP {family.name} {_help(family.help)}", f"# TYPE {family.name} {family.kind}")
        for labels, numbers in sorted(series):
            lines += _shown(family, labels, numbers)
    return "\n".join(lines) + "\n"


def _shown(family: Family, labels: Labels, numbers: Sequence[float]) -> Iterable[str]:
    pairs = [f'{name}="{_value(value)}"' for name, value in zip(family.labels, labels, strict=True)]
    if family.kind != "histogram":
        yield f"{family.name}{_braced(pairs)} {_number(numbers[0])}"
        return
    count = 0.0
    for bound, number in zip((*map(_number, family.buckets), "+Inf"), numbers, strict=False):
        count += number
        within = _braced([*pairs, 'le="' + bound + '"'])
        yield f"{family.name}_bucket{within} {_number(count)}"
    yield f"{family.name}_sum{_braced(pairs)} {_number(numbers[-1])}"
    yield f"{family.name}_count{_braced(pairs)} {_number(count)}"


def _braced(pairs: Sequence[str]) -> str:
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _value(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")
