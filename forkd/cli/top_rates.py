"""What happened between two looks? Pure: two answers to `status` and the time between them give rates.

Counters begin anew with each process, so that a difference is taken by process alone, never of a sum.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict, deque
from typing import Any

LEAST_S = 1.9
"""Counters come with heartbeats, one a second: over less than two, rates were nothing and many in turn."""

_PLUGIN = "plugin."
_BREAKER = "breaker."


@dataclasses.dataclass(frozen=True, slots=True)
class Plugin:
    """What one plugin did in that time. `ms` of one call on average; None: it was not called."""

    name: str
    calls: float
    ms: float | None
    failures: float
    failed: int
    """Since the workers that live now were started."""
    open_in: int
    """Workers in which its breaker is open."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """Per second, by name of the counter; of all workers, and of each by (slot, pid)."""

    of_all: dict[str, float]
    of_worker: dict[tuple[int, int], dict[str, float]]
    plugins: tuple[Plugin, ...]


class Looks:
    """The looks of the last while, for rates over LEAST_S or as much longer as nobody could look."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[str, Any]]] = deque()
        """(when, what was seen), the one to compare with first."""

    def rates(self, status: dict[str, Any], at: float) -> Rates:
        """Since an earlier look, `at` which this one was made (monotonic)."""
        looks = self._looks
        while len(looks) > 1 and at - looks[1][0] >= LEAST_S:
            looks.popleft()
        looks.append((at, status))
        then, before = looks[0]
        return rates(before, status, at - then) if at - then >= LEAST_S else rates(None, status, 0.0)


def rates(before: dict[str, Any] | None, now: dict[str, Any], seconds: float) -> Rates:
    """Of the workers; with nothing before, everything is 0."""
    had = {} if before is None else {_key(each): each["counters"] for each in _workers(before)}
    of_all: defaultdict[str, float] = defaultdict(float)
    totals: Counter[str] = Counter()
    of_worker: dict[tuple[int, int], dict[str, float]] = {}
    breakers: Counter[str] = Counter()
    for worker in _workers(now):
        key, counters = _key(worker), worker["counters"]
        totals.update(counters)
        # A worker that was not there before: what it did, it did since then.
        old = {} if before is not None else counters
        old = had.get(key, old)
        grown = {
            name: max(0, number - old.get(name, 0)) / seconds if seconds > 0 else 0.0
            for name, number in counters.items()
        }
        of_worker[key] = grown
        for name, rate in grown.items():
            of_all[name] += rate
        breakers.update(name.removeprefix(_BREAKER) for name in worker["info"] if name.startswith(_BREAKER))
    return Rates(dict(of_all), of_worker, _plugins(now, of_all, totals, breakers))


def _plugins(
    now: dict[str, Any], of_all: defaultdict[str, float], totals: Counter[str], breakers: Counter[str]
) -> tuple[Plugin, ...]:
    names = {name.removeprefix(_PLUGIN).split(".", 1)[0] for name in totals if name.startswith(_PLUGIN)}
    names |= set(breakers) | {each["name"] for each in now["processes"] if each["role"] == "zygote"}
    found = []
    for name in sorted(name for name in names if name and "@" not in name):
        prefix = f"{_PLUGIN}{name}."
        calls = of_all[f"{prefix}calls"]
        failures = {key: rate for key, rate in of_all.items() if key.startswith(f"{prefix}failed.")}
        found.append(
            Plugin(
                name=name,
                calls=calls,
                ms=of_all[f"{prefix}us"] / calls / 1000 if calls else None,
                failures=sum(failures.values()),
                failed=sum(number for key, number in totals.items() if key.startswith(f"{prefix}failed.")),
                open_in=breakers[name],
            )
        )
    return tuple(found)


def _workers(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in status["processes"] if each["role"] == "worker"]


def _key(process: dict[str, Any]) -> tuple[int, int]:
    return process["slot"], process["pid"]
