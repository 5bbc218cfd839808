"""How often is each client connected, and how often has it connected in the last minute? Pure.

`now` is monotonic seconds; a client is whatever text the workers agree on (an address, or an IPv6 /64).
The rate is counted in SLICES parts of a minute, so it costs the same whatever a client does; it covers
the last 60 to 70 seconds.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Hashable

SLICE_S = 10.0
SLICES = 7
"""Six full ones and the one under way."""

MAX_CLIENTS = 200_000
"""Remembered for their rate; beyond it the oldest are forgotten: they pass, they do not fail."""


@dataclasses.dataclass(slots=True)
class _Client:
    sessions: int = 0
    slice: int = 0
    """Number of the newest slice in `hits`."""
    hits: collections.deque[int] = dataclasses.field(default_factory=lambda: collections.deque([0], SLICES))


class Counts:
    """All counters. A worker is whatever tells one apart from another, e.g. a descriptor."""

    def __init__(self, *, max_clients: int = MAX_CLIENTS) -> None:
        self._clients: collections.OrderedDict[str, _Client] = collections.OrderedDict()
        self._workers: dict[Hashable, collections.Counter[str]] = {}
        self._max_clients = max_clients
        self.sessions = 0
        """Of all clients."""

    def __len__(self) -> int:
        return len(self._clients)

    def connect(self, worker: Hashable, client: str, now: float) -> tuple[int, int]:
        """Count one connection; returns (sessions, connections in the last minute), this one included."""
        entry = self._clients.get(client)
        if entry is None:
            entry = self._clients[client] = _Client(slice=int(now / SLICE_S))
            if len(self._clients) > self._max_clients:
                self._make_room()
        else:
            self._clients.move_to_end(client)
        self._turn(entry, now)
        entry.sessions += 1
        entry.hits[-1] += 1
        self.sessions += 1
        self._workers.setdefault(worker, collections.Counter())[client] += 1
        return entry.sessions, sum(entry.hits)

    def disconnect(self, worker: Hashable, client: str) -> None:
        """One connection less. A client that this worker never told of (we were restarted) is ignored."""
        told = self._workers.get(worker)
        if told is None or not told[client]:
            return
        told[client] -= 1
        if not told[client]:
            del told[client]
        self._less(client, 1)

    def lost(self, worker: Hashable) -> None:
        """The worker is gone, and all of its clients with it. Their rates stay."""
        for client, count in self._workers.pop(worker, collections.Counter()).items():
            self._less(client, count)

    def sweep(self, now: float) -> None:
        """Forget who is not connected and has not been for a minute; to be called now and then."""
        stale = int(now / SLICE_S) - SLICES
        # In order of their last connection, so those at the front decide; who is still connected is
        # put at the end, to be looked at no more in this sweep.
        for _ in range(len(self._clients)):
            client, entry = next(iter(self._clients.items()))
            if entry.slice > stale:
                return
            if entry.sessions:
                self._turn(entry, now)
                self._clients.move_to_end(client)
            else:
                del self._clients[client]

    def _turn(self, entry: _Client, now: float) -> None:
        current = int(now / SLICE_S)
        behind = min(current - entry.slice, SLICES)
        if behind > 0:
            entry.hits.extend([0] * behind)
            entry.slice = current

    def _less(self, client: str, count: int) -> None:
        entry = self._clients.get(client)
        if entry is not None:
            entry.sessions -= count
            self.sessions -= count

    def _make_room(self) -> None:
        """Forget the oldest client that is not connected, looking at a few only."""
        for client in [name for name, _ in zip(self._clients, range(8), strict=False)]:
            if not self._clients[client].sessions:
                del self._clients[client]
                return
