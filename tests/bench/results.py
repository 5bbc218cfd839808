"""What has one run of the harness measured? Everything, before it is made into tables."""

from __future__ import annotations

import dataclasses

from tests.bench.faults import Kill, Trip
from tests.bench.idle import Idle
from tests.bench.load import Latency, Run
from tests.bench.memory import Rest


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """A part of a long run: the `number`th of several equal ones, in CPU seconds per 1,000 messages."""

    server: str
    number: int
    messages: int
    cpu: float
    pss_mib: float
    problem: str = ""


@dataclasses.dataclass(slots=True)
class Results:
    """By workload where that matters; lists grow in the order of measuring.

    accounts   one line a server: were all messages counted?
    shares     of the machine's CPU that others used, for each measurement
    short      repeats that were left out because the budget was used up
    """

    runs: dict[str, list[Run]] = dataclasses.field(default_factory=dict)
    latencies: dict[str, list[Latency]] = dataclasses.field(default_factory=dict)
    accounts: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    shares: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    short: dict[str, str] = dataclasses.field(default_factory=dict)
    trips: list[Trip] = dataclasses.field(default_factory=list)
    kills: list[Kill] = dataclasses.field(default_factory=list)
    idles: list[Idle] = dataclasses.field(default_factory=list)
    rests: list[Rest] = dataclasses.field(default_factory=list)
    slices: list[Slice] = dataclasses.field(default_factory=list)
    forks_ms: list[float] = dataclasses.field(default_factory=list)
