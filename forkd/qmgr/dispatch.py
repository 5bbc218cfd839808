"""Who delivers what has its turn? A lane for each transport, and how much each of them has room for."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from forkd.deliver.transport import Delivery
from forkd.qmgr.lanes import Job, Lane, Pass
from forkd.qmgr.network import AsyncLane, Network, Recording, is_removal
from forkd.qmgr.routing import Routing, Way
from forkd.qmgr.schedule import Entry
from forkd.queue.ids import QueueId

RECORDING = ""
"""Beside the names of transports: what is recorded without a delivery waits for room there."""

NOTE_S = 1.0
"""What was delivered to one destination is on disk so soon, however long another of the message's takes."""


class Dispatch:
    """The lanes. All methods belong to the loop's thread, and none but close() waits.

    threads  of one blocking transport, at most
    settle   called in other threads with passes that are complete
    note     called in one of them with a pass that goes on; never beside its settle
    """

    def __init__(
        self,
        routing: Routing,
        threads: int,
        settle: Callable[[list[Pass]], None],
        note: Callable[[Pass], None],
    ) -> None:
        self._routing = routing
        self._threads = threads
        self._settle = settle
        self._network = Network()
        self._recording = Recording(settle, note)
        self._lanes: dict[str, Lane | AsyncLane] = {}
        self._given: dict[str, list[Job]] = {}
        """Not sent yet: a lane gets all of it at once."""
        self._held: set[str] = set()
        self._divided: set[Pass] = set()
        """Passes to several destinations."""
        self._note_at = 0.0
        """Monotonic."""
        self._parked: dict[str, dict[QueueId, Entry]] = {}
        """Transport -> messages that are due, and wait for room there: not loaded, and in nobody's way."""

    def room(self, transport: str) -> int:
        """So many more queued messages may be given to it, or to record()."""
        if transport == RECORDING:
            return self._recording.room
        if transport in self._held:
            return 0
        return self._lane(transport).room - len(self._given.get(transport, ()))

    def rooms(self) -> dict[str, int]:
        """Of all that have any. None has, while what was delivered before gathers in front of the disk."""
        if self._recording.room <= 0:
            return {}
        rooms = {name: self.room(name) for name in (*self._routing.transports, self._routing.nowhere.name)}
        return {name: room for name, room in rooms.items() if room > 0}

    def has_place(self, transport: str) -> bool:
        """One more client may wait for it."""
        return self._lane(transport).has_place

    def hold(self, transport: str, *, held: bool) -> None:
        """It has no room for queued mail any more, or has again."""
        (self._held.add if held else self._held.discard)(transport)

    def park(self, transport: str, entry: Entry) -> None:
        """It waits for room there."""
        self._parked.setdefault(transport, {})[entry.id] = entry

    def unpark(self) -> list[Entry]:
        """Those that there is room for now, the first first; some may have left the queue meanwhile."""
        found: list[Entry] = []
        for name, parked in tuple(self._parked.items()):
            ids = tuple(itertools.islice(parked, max(0, self.room(name))))
            found += [parked.pop(queue_id) for queue_id in ids]
            if not parked:
                del self._parked[name]
        return found

    def give(self, attempt: Pass, ways: Sequence[Way]) -> None:
        """A pass to those destinations; begun when it is sent."""
        attempt.wanted = sum(len(way.targets) for way in ways)
        attempt.open = len(ways)
        if len(ways) > 1 and attempt.turn is not None:
            self._divided.add(attempt)
        for way in ways:
            job = Job(attempt, Delivery(attempt.message, way.targets, together=attempt.tell is not None))
            self._given.setdefault(way.transport.name, []).append(job)

    def send(self) -> None:
        """Let the lanes begin with what they were given."""
        given, self._given = self._given, {}
        for name, jobs in given.items():
            self._lane(name).put(jobs)

    def record(self, attempt: Pass) -> None:
        """A pass that has its results already."""
        self._recording.put(attempt)

    def ended(self, attempt: Pass) -> None:
        """It was taken back."""
        self._divided.discard(attempt)

    def note_divided(self) -> None:
        """One destination that hangs does not keep the others' outcomes off the disk."""
        now = time.monotonic()
        if now < self._note_at:
            return
        self._note_at = now + NOTE_S
        for attempt in self._divided:
            if attempt.noted < (there := len(attempt.results)):
                attempt.noted = there
                self._recording.put(attempt, complete=False)

    def _settle_threaded(self, passes: list[Pass]) -> None:
        """In a lane's thread: what is done with it removes itself. What needs a sync is for those who wait
        for several at once, and so are passes that others had a part in, which may be noted just now."""
        own: list[Pass] = []
        others: list[Pass] = []
        for attempt in passes:
            mine = attempt.turn is None and (
                attempt.tell is not None or is_removal(attempt) or self._recording.room <= 0
            )
            (own if mine else others).append(attempt)
        for attempt in others:
            self._recording.put(attempt)
        if own:
            self._settle(own)

    def drop_waiting(self) -> None:
        """Let what runs end, answer the rest with nothing."""
        for lane in self._lanes.values():
            lane.drop_waiting()

    def cancel(self) -> None:
        """End what runs, as far as it can be."""
        for lane in self._lanes.values():
            lane.cancel()

    def close(self, limit_s: float) -> None:
        """Say good-bye to next hops whose connections are kept; blocks for so long at most."""
        self._recording.close()
        self._network.close(
            [lane.transport for lane in self._lanes.values() if isinstance(lane, AsyncLane)], limit_s
        )

    def _lane(self, name: str) -> Lane | AsyncLane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = self._made(name)
        return lane

    def _made(self, name: str) -> Lane | AsyncLane:
        if (networked := self._routing.networked.get(name)) is not None:
            return AsyncLane(networked, self._network, self._recording)
        return Lane(
            self._routing.threaded.get(name, self._routing.nowhere), self._threads, self._settle_threaded
        )
