"""Which message is due when? Pure: no clock, no file, no thread."""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable, Iterator

from forkd.queue.ids import QueueId
from forkd.queue.outcome import Outcome


class Standing(enum.Enum):
    """Where a message stands, as `forkd queue list` names it."""

    WAITING = "deferred"
    """For its next try, or its destinations' turn (turns.py); a message that was never tried shows as active,
    since its try is now."""
    RUNNING = "active"
    HELD = "hold"
    """Quarantined by a plugin or held by an admin: not tried, and not flushed, before it is released."""


class Entry:
    """One queued message: what has to be known of it in memory (about 400 octets with its place)."""

    __slots__ = (
        "again",
        "bounced",
        "due",
        "flushed_at",
        "has_state",
        "hold_by",
        "id",
        "removed_by",
        "slot",
        "standing",
        "unrecorded",
    )

    def __init__(self, queue_id: QueueId, slot: str, due: float, *, has_state: bool) -> None:
        self.id = queue_id
        self.slot = slot
        self.due = due
        """Unix time, seconds: it is looked at then. Of one that waits for a destination's turn: when its
        sender must be told of the delay, or it is given up."""
        self.has_state = has_state
        """There may be a `.state` file: look before delivering."""
        self.standing = Standing.WAITING
        self.unrecorded: tuple[Outcome, ...] = ()
        """Outcomes that could not be written: kept so that at least we do not deliver twice."""
        self.flushed_at = 0.0
        """An admin flushed it then, and it was not looked at since."""
        self.again: frozenset[int] = frozenset()
        """Recipients that are to be tried as soon as they can, whatever became of them before."""
        self.removed_by = ""
        """An admin asked for its removal while it was running ..."""
        self.bounced = False
        """... and that its sender is told."""
        self.hold_by = ""
        """An admin asked to hold it while it was running."""


class Schedule:
    """All messages of the queue, and when each is to be tried."""

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        self._entries: dict[QueueId, Entry] = {}
        # (due, id): an entry's place counts only while its due is still that one.
        self._heap: list[tuple[float, QueueId]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, queue_id: QueueId) -> bool:
        return queue_id in self._entries

    def get(self, queue_id: QueueId) -> Entry | None:
        """The entry, if the message is known."""
        return self._entries.get(queue_id)

    def add(self, queue_id: QueueId, slot: str, due: float, *, has_state: bool = False) -> Entry | None:
        """A message that may be new; None when it is known."""
        if queue_id in self._entries:
            return None
        entry = self._entries[queue_id] = Entry(queue_id, slot, due, has_state=has_state)
        heapq.heappush(self._heap, (due, queue_id))
        return entry

    def take(self, now: float, limit: int) -> list[Entry]:
        """Up to `limit` messages that are due, the longest due first; they are running from now on."""
        taken: list[Entry] = []
        heap = self._heap
        while heap and len(taken) < limit and heap[0][0] <= now:
            due, queue_id = heapq.heappop(heap)
            entry = self._entries.get(queue_id)
            if entry is not None and entry.standing is Standing.WAITING and entry.due == due:
                entry.standing = Standing.RUNNING
                taken.append(entry)
        return taken

    def next_due(self) -> float | None:
        """When the next message is due; perhaps too early, never too late. None: nothing waits."""
        return self._heap[0][0] if self._heap else None

    def wait(self, entry: Entry, due: float) -> None:
        """Look at it (again) then, whatever it did before."""
        entry.standing = Standing.WAITING
        entry.due = due
        heapq.heappush(self._heap, (due, entry.id))
        # Places that count no more stay until their time; they do not outnumber the others for long.
        if len(self._heap) > 2 * len(self._entries) + 1000:
            waiting = (entry for entry in self._entries.values() if entry.standing is Standing.WAITING)
            self._heap = [(entry.due, entry.id) for entry in waiting]
            heapq.heapify(self._heap)

    def shift(self, by_s: float) -> None:
        """All that waits for a time waits so much longer; negative: shorter."""
        for entry in self._entries.values():
            entry.due += by_s
        self._heap = [(due + by_s, queue_id) for due, queue_id in self._heap]
        heapq.heapify(self._heap)  # times that became equal are ordered by id

    def start(self, entry: Entry) -> None:
        """It is running from now on, due or not."""
        entry.standing = Standing.RUNNING

    def park(self, entry: Entry) -> None:
        """Due, but not tried before wait() is said again: whoever says so keeps it."""
        entry.standing = Standing.WAITING

    def hold(self, entry: Entry) -> None:
        """No further try before wait() is said again."""
        entry.standing = Standing.HELD

    def remove(self, queue_id: QueueId) -> None:
        """The message is gone."""
        self._entries.pop(queue_id, None)

    def flush(self, ids: Iterable[QueueId], now: float) -> int:
        """Make messages that wait due now; return how many. No ids: all of them."""
        wanted = list(ids)
        chosen = (
            [self._entries[i] for i in wanted if i in self._entries] if wanted else self._entries.values()
        )
        count = 0
        for entry in chosen:
            if entry.standing is Standing.WAITING:
                self.flush_entry(entry, now)
                count += 1
        return count

    def flush_entry(self, entry: Entry, now: float) -> None:
        """Try it now, and whether its destinations are back."""
        entry.flushed_at = now
        self.wait(entry, min(now, entry.due))

    def standings(self) -> Iterator[tuple[QueueId, Standing]]:
        """Of all messages."""
        return ((queue_id, entry.standing) for queue_id, entry in self._entries.items())

    def ids(self) -> list[QueueId]:
        """Of all messages; those of one slot nearly in order. Costs 1 ms at 200,000."""
        return list(self._entries)
