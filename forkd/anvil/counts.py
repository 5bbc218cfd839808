"""How many sessions has each client and network, and what have they done in the last minute? Pure.

`now` is monotonic seconds; a key is whatever text the workers agree on (an address, an IPv6 /64, a
network, an account). A rate is counted in SLICES parts of a minute, so it costs the same whatever a client
does; it covers the last 60 to 70 seconds.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Hashable, Sequence

SLICE_S = 10.0
SLICES = 7
"""Six full ones and the one under way."""

MAX_KEYS = 200_000
"""Remembered for their rates, some 400 octets each; beyond it the oldest are forgotten: they pass, they do
not fail."""


class _Rate:
    """How often one thing happened to one key, slice by slice, the newest last."""

    __slots__ = ("hits", "slice")

    def __init__(self, number: int) -> None:
        self.slice = number
        self.hits = [0] * SLICES

    def turn(self, number: int) -> None:
        """Now it is slice `number`."""
        behind = min(number - self.slice, SLICES)
        if behind > 0:
            self.hits = self.hits[behind:] + [0] * behind
            self.slice = number


class Rates:
    """What happened in the last minute, by (what, key)."""

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        self._rates: collections.OrderedDict[tuple[str, str], _Rate] = collections.OrderedDict()
        """In the order in which something last happened."""
        self._max_keys = max_keys

    def __len__(self) -> int:
        return len(self._rates)

    def add(self, what: str, key: str, times: int, now: float) -> int:
        """It happened so often (0: tell only); how often in the last minute, this time included."""
        number = int(now / SLICE_S)
        rate = self._rates.get((what, key))
        if rate is None:
            if not times:
                return 0
            rate = self._rates[what, key] = _Rate(number)
            if len(self._rates) > self._max_keys:
                self._rates.popitem(last=False)
        rate.turn(number)
        if times:
            rate.hits[-1] += times
            self._rates.move_to_end((what, key))
        return sum(rate.hits)

    def add_all(
        self, what: str, keys: Sequence[str], times: int, now: float, most: Sequence[int] = ()
    ) -> tuple[int, ...]:
        """add() to each key, the narrowest first; behind one that is beyond its `most` (0: none) only tell.

        What a client is refused by its own limit is no act of its network.
        """
        counts = []
        for key, limit in itertools.zip_longest(keys, most[: len(keys)], fillvalue=0):
            counts.append(count := self.add(what, str(key), times, now))
            if 0 < limit < count:
                times = 0
        return tuple(counts)

    def sweep(self, now: float) -> None:
        """Forget to whom nothing happened for a minute; to be called now and then."""
        stale = int(now / SLICE_S) - SLICES
        # A question turns a rate without moving it: one that is not stale may stand before stale ones.
        # Those go with a later sweep.
        while self._rates:
            key, rate = next(iter(self._rates.items()))
            if rate.slice > stale:
                return
            del self._rates[key]


class Sessions:
    """Who is connected now. A worker is whatever tells one apart from another, e.g. a descriptor."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._workers: dict[Hashable, collections.Counter[str]] = {}

    def __len__(self) -> int:
        """Clients and networks that are connected."""
        return len(self._counts)

    def enter(self, worker: Hashable, key: str) -> int:
        """One session more; how many there are, this one included."""
        self._workers.setdefault(worker, collections.Counter())[key] += 1
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count

    def leave(self, worker: Hashable, key: str) -> None:
        """One less. A key that this worker never told of (we were restarted) is ignored."""
        told = self._workers.get(worker)
        if told is None or not told[key]:
            return
        told[key] -= 1
        if not told[key]:
            del told[key]
        self._less(key, 1)

    def lost(self, worker: Hashable) -> None:
        """The worker is gone, and all of its sessions with it."""
        for key, count in self._workers.pop(worker, collections.Counter()).items():
            self._less(key, count)

    def _less(self, key: str, count: int) -> None:
        self._counts[key] -= count
        if not self._counts[key]:
            del self._counts[key]
