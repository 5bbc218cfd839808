"""Which message is due when? Pure: no clock, no file, no thread."""

from __future__ import annotations

import enum
import heapq
from collections.abc import Iterable

from forkd.queue.ids import QueueId
from forkd.queue.state import Outcome


class Standing(enum.Enum):
    """Where a message stands, as `forkd queue list` names it."""

    WAITING = "deferred"
    """For its next try; a message that was never tried shows as active, since its try is now."""
    RUNNING = "active"
    FAILED = "failed"
    HELD = "hold"
    """Quarantined by a plugin or held by an admin: not tried, and not flushed, before it is released."""


class Entry:
    """One queued message: what has to be known of it in memory (about 400 octets with its place)."""

    __slots__ = (
        "due",
        "has_state",
        "hold_by",
        "id",
        "removed_by",
        "retry_failed",
        "slot",
        "standing",
        "unrecorded",
    )

    def __init__(self, queue_id: QueueId, slot: str, due: float, *, has_state: bool) -> None:
        self.id = queue_id
        self.slot = slot
        self.due = due
        """Unix time, seconds: it is written to `.state`, so it must mean the same after a restart."""
        self.has_state = has_state
        """There may be a `.state` file: look before delivering."""
        self.standing = Standing.WAITING
        self.unrecorded: tuple[Outcome, ...] = ()
        """Outcomes that could not be written: kept so that at least we do not deliver twice."""
        self.retry_failed = False
        """An admin flushed it by id: failed recipients are tried once more."""
        self.removed_by = ""
        """An admin asked for its removal while it was running."""
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
        """Try it (again) then, whatever it did before."""
        entry.standing = Standing.WAITING
        entry.due = due
        heapq.heappush(self._heap, (due, entry.id))

    def park(self, entry: Entry) -> None:
        """Due, but not tried before wait() is said again: whoever says so keeps it."""
        entry.standing = Standing.WAITING

    def fail(self, entry: Entry) -> None:
        """No further try, unless it is flushed."""
        entry.standing = Standing.FAILED

    def hold(self, entry: Entry) -> None:
        """No further try before wait() is said again."""
        entry.standing = Standing.HELD

    def remove(self, queue_id: QueueId) -> None:
        """The message is gone."""
        self._entries.pop(queue_id, None)

    def flush(self, ids: Iterable[QueueId], now: float) -> int:
        """Make messages due now; return how many. No ids: all that wait; failed ones only by id."""
        wanted = list(ids)
        chosen = (
            [self._entries[i] for i in wanted if i in self._entries] if wanted else self._entries.values()
        )
        count = 0
        for entry in chosen:
            if entry.standing is Standing.WAITING or (wanted and entry.standing is Standing.FAILED):
                entry.retry_failed = bool(wanted)
                self.wait(entry, min(now, entry.due))
                count += 1
        return count

    def after(self, queue_id: QueueId, limit: int) -> list[Entry]:
        """The next `limit` entries by id, for paging. Costs a look at every entry (20 ms at 200,000)."""
        ids = heapq.nsmallest(limit, (i for i in self._entries if i > queue_id))
        return [self._entries[i] for i in ids]


def retry_delay(attempts: int, *, first_s: float, most_s: float, chance: float) -> float:
    """How long to wait after so many attempts: doubling from `first_s` to `most_s`, 10 % jitter.

    chance  0..1: spreads what was deferred together, so that it does not come back together
    """
    delay = min(most_s, first_s * 2.0 ** min(attempts - 1, 30))
    return delay * (0.9 + 0.2 * chance)
