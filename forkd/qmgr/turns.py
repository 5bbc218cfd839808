"""Of the messages that are due, which is delivered next, and where to? Pure: no clock, no file, no thread.

    schedule.py     when a message is due (by its time)
    turns.py        who comes next of what is due (by destination)
    destination.py  how much one destination bears

A message has one part per destination. The destinations with mail that may start stand in a ring, one per
transport; each gets one part at its turn and goes to the end. So what waits for a slow one, however much,
holds up no other: between two turns of a destination each other has one at most. A destination that is
full or away leaves the ring, and comes back when a run ends or its probe is due. Nothing here looks at more
than it starts; what is taken away is marked, and passed over once at its turn.

One run has a message at most, since its outcomes go into one file: a part whose message is running steps
aside until that ends, and goes on at the front. A run takes along the other parts of its message where
nobody else waits for the place.
"""

from __future__ import annotations

import dataclasses
import enum
import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from forkd.qmgr.destination import FIRST_WINDOW, Destination, Seen
from forkd.qmgr.retry import Retry
from forkd.queue.ids import QueueId

if TYPE_CHECKING:
    from forkd.deliver.transport import Result


class Stage(enum.Enum):
    """Where a part stands."""

    LATER = "later"
    """Not due; known, so that an admin finds it by its destination."""
    WAITING = "waiting"
    ASIDE = "aside"
    """It was its turn, but another part of its message runs."""
    RUNNING = "running"
    GONE = "gone"


class Part:
    """The recipients of one message that go to one destination."""

    __slots__ = ("at", "id", "stage")

    def __init__(self, queue_id: QueueId, at: Destination) -> None:
        self.id = queue_id
        self.at = at
        self.stage = Stage.LATER


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """A destination of a message, as routing says it."""

    transport: str
    name: str
    """The next hop, or a domain; whatever shares its fate. One for all, where a transport has only one."""
    concurrency: int
    retry: Retry
    window: float = FIRST_WINDOW
    """What it opens with: all of it, where no next hop must be spared."""


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """A run to be started: one message, these destinations."""

    id: QueueId
    parts: tuple[Part, ...]
    probes: tuple[Part, ...] = ()
    """Those of them whose destinations are tried to see whether they are back."""


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """What a run made of one of its parts."""

    seen: Seen = Seen.UNTRIED
    """UNTRIED: it waits again, in front."""
    settled: bool = False
    """Delivered or failed, all of it. Else it is for later: place() makes it wait again."""
    why: Result | None = None
    """What was said by a destination that is away."""


Key = tuple[str, str]
"""A destination: transport, name."""


class Turns:
    """All parts of the messages that were looked at, and whose turn it is."""

    __slots__ = ("_away", "_destinations", "_messages", "_rings", "_running")

    def __init__(self) -> None:
        self._destinations: dict[Key, Destination] = {}
        self._messages: dict[QueueId, tuple[Part, ...]] = {}
        self._running: dict[QueueId, Turn] = {}
        self._rings: dict[str, deque[Destination]] = {}
        # (probe_at, transport, name): counts while the destination's probe_at is still that one.
        self._away: list[tuple[float, str, str]] = []

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def idle(self) -> bool:
        """take() has nothing to give, and nothing to do."""
        return not self._messages and not self._away

    # --- what is there ------------------------------------------------------------------------------

    def place(self, queue_id: QueueId, bounds: Iterable[Bound]) -> None:
        """The message is due there: those parts wait for their turn. What waits or runs already goes on."""
        old = {(part.at.transport, part.at.name): part for part in self._messages.get(queue_id, ())}
        new: list[Part] = []
        for bound in bounds:
            key = bound.transport, bound.name
            part = old.get(key)
            if part is None:
                at = self._destination(bound)
                part = old[key] = at.parts[queue_id] = Part(queue_id, at)
                new.append(part)
            if part.stage is Stage.LATER:
                self._wait(part)
        if new:
            self._messages[queue_id] = (*self._messages.get(queue_id, ()), *new)

    def stages(self, queue_id: QueueId) -> dict[Key, Stage]:
        """Where the parts of a message stand; none of one that is not known."""
        return {(part.at.transport, part.at.name): part.stage for part in self._messages.get(queue_id, ())}

    def knows(self, queue_id: QueueId) -> bool:
        """It has parts here."""
        return queue_id in self._messages

    def is_running(self, queue_id: QueueId) -> bool:
        """A run of it was taken and is not done."""
        return queue_id in self._running

    def at(self, transport: str, name: str) -> Destination | None:
        """What is known of a destination; its `parts` name the messages for it."""
        return self._destinations.get((transport, name))

    def destinations(self) -> Iterable[Destination]:
        """All that have mail, or are away."""
        return self._destinations.values()

    # --- whose turn it is ---------------------------------------------------------------------------

    def take(self, now: float, room: Mapping[str, int]) -> list[Turn]:
        """The runs to be started now, in a fair order.

        room  transport -> parts that it has room for; one that is not named has none
        """
        self._wake(now)
        left = dict(room)
        taken: list[Turn] = []
        for transport in room:
            ring = self._rings.get(transport)
            while ring and left[transport] > 0:
                destination = ring.popleft()
                part = self._first(destination, now)
                if part is None:
                    destination.in_ring = False
                    self._forget_if_empty(destination, now)
                    continue
                taken.append(self._start(part, now, left))
                # At its end: whether it has more, and may, is seen when its turn has come.
                ring.append(destination)
        return taken

    def next_wake(self) -> float | None:
        """When take() may have more without anything else happening: the next probe; perhaps too early."""
        return self._away[0][0] if self._away else None

    def done(self, turn: Turn, ends: Mapping[Key, End], now: float) -> None:
        """A run has ended; what is not in `ends` was not tried."""
        del self._running[turn.id]
        back: list[Part] = []
        for part in turn.parts:
            at, end = part.at, ends.get((part.at.transport, part.at.name), End())
            probe_at = at.probe_at
            at.end(end.seen, now, probe=part in turn.probes, why=end.why)
            if at.probe_at is not None and at.probe_at != probe_at:
                heapq.heappush(self._away, (at.probe_at, at.transport, at.name))
            part.stage = Stage.LATER
            if end.settled:
                self._drop(part, now)
            elif end.seen is Seen.UNTRIED:
                back.append(part)
            self._to_ring(at)
        back += [part for part in self._messages.get(turn.id, ()) if part.stage is Stage.ASIDE]
        for part in reversed(back):
            self._wait(part, first=True)

    # --- what an admin asks -------------------------------------------------------------------------

    def remove(self, queue_id: QueueId, now: float) -> bool:
        """The message is not to be delivered (any more), or is on hold. False: it is running."""
        if queue_id in self._running:
            return False
        for part in self._messages.get(queue_id, ()):
            self._drop(part, now)
        return True

    def hold(self, transport: str, name: str, *, held: bool = True) -> bool:
        """Start nothing there, or do again. False: no such destination has mail."""
        at = self._destinations.get((transport, name))
        if at is None:
            return False
        at.held = held
        self._to_ring(at)
        if at.probe_at is None:  # else its probe's time sees to it
            self._forget_if_empty(at, 0.0)
        return True

    def flush(self, transport: str, name: str) -> list[QueueId]:
        """An admin says that it is back: nothing waits for a probe. Returns the messages that are for later,
        to be placed again now."""
        at = self._destinations.get((transport, name))
        if at is None:
            return []
        at.forget()
        self._to_ring(at)
        return [queue_id for queue_id, part in at.parts.items() if part.stage is Stage.LATER]

    def shift(self, by_s: float) -> None:
        """All probes wait so much longer; negative: shorter."""
        for at in self._destinations.values():
            at.failed_at += by_s
            if at.probe_at is not None:
                at.probe_at += by_s
        self._away = [(probe_at + by_s, transport, name) for probe_at, transport, name in self._away]
        heapq.heapify(self._away)

    # --- within -------------------------------------------------------------------------------------

    def _destination(self, bound: Bound) -> Destination:
        key = bound.transport, bound.name
        at = self._destinations.get(key)
        if at is None:
            at = Destination(*key, limit=bound.concurrency, retry=bound.retry, window=bound.window)
            self._destinations[key] = at
        return at

    def _wait(self, part: Part, *, first: bool = False) -> None:
        part.stage = Stage.WAITING
        if first:
            part.at.waiting.appendleft(part)
        else:
            part.at.waiting.append(part)
        self._to_ring(part.at)

    def _to_ring(self, at: Destination) -> None:
        if at.waiting and not at.in_ring and not at.held:
            at.in_ring = True
            self._rings.setdefault(at.transport, deque()).append(at)

    def _first(self, at: Destination, now: float) -> Part | None:
        """The part whose turn it is there; None: it has none, or may start none."""
        if not at.free(now):
            return None
        while at.waiting:
            part = at.waiting.popleft()
            if part.stage is not Stage.WAITING:
                continue
            if part.id not in self._running:
                return part
            part.stage = Stage.ASIDE
        return None

    def _start(self, part: Part, now: float, left: dict[str, int]) -> Turn:
        parts = [part]
        for other in self._messages[part.id]:
            at = other.at
            # The place of the part itself is kept for it.
            room = left.get(at.transport, 0) - (at.transport == part.at.transport)
            if other is part or other.stage is not Stage.WAITING or room <= 0:
                continue
            # Where it would take a place that others wait for, it waits with them.
            if not at.away and len(at.waiting) <= at.free(now):
                at.waiting.remove(other)  # as short as the window, so a short look
                parts.append(other)
                left[at.transport] -= 1
        for each in parts:
            each.stage = Stage.RUNNING
        left[part.at.transport] -= 1
        probes = tuple(each for each in parts if each.at.start())
        turn = self._running[part.id] = Turn(part.id, tuple(parts), probes)
        return turn

    def _wake(self, now: float) -> None:
        """Destinations whose probe is due."""
        while self._away and self._away[0][0] <= now:
            probe_at, *key = heapq.heappop(self._away)
            at = self._destinations.get((key[0], key[1]))
            if at is not None and at.probe_at == probe_at:
                self._to_ring(at)
                self._forget_if_empty(at, now)

    def _drop(self, part: Part, now: float) -> None:
        part.stage = Stage.GONE
        at = part.at
        del at.parts[part.id]
        rest = tuple(other for other in self._messages[part.id] if other is not part)
        if rest:
            self._messages[part.id] = rest
        else:
            del self._messages[part.id]
        # The gone do not outnumber the living: each is copied once per part that was taken away.
        if len(at.waiting) > 16 + 2 * len(at.parts):
            at.waiting = deque(part for part in at.waiting if part.stage is Stage.WAITING)
        self._forget_if_empty(at, now)

    def _forget_if_empty(self, at: Destination, now: float) -> None:
        """Names come from outside: what has no mail is remembered only as long as it is away, or held."""
        away = at.probe_at is not None and at.probe_at > now
        if not (at.parts or at.running or at.held or away or at.in_ring):
            self._destinations.pop((at.transport, at.name), None)
