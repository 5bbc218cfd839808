"""What do the files of a message that is due say, and what is done where they cannot be read? How many of
these messages are kept in memory?"""

from __future__ import annotations

import collections
import contextlib

from forkd import log
from forkd.fs import Fs
from forkd.qmgr.acts import path_of
from forkd.qmgr.planning import Loaded
from forkd.qmgr.routing import Routing
from forkd.qmgr.schedule import Entry, Schedule
from forkd.queue import recovery, state, stored
from forkd.queue.format import Damaged
from forkd.queue.ids import QueueId

UNREADABLE_RETRY_S = 60.0
"""When a spool file cannot be opened or read: the disk's fault, not the message's."""


KEPT = 256
"""Messages that wait for their turn and stay loaded (each at most stored.WHOLE_BYTES); more are loaded again
when it comes."""
KEPT_RECIPIENTS = 50_000
"""Of these together: about 1 KiB each with its outcome."""


class Kept:
    """Loaded messages that wait for their turn: the first ones, as many as memory has a place for."""

    def __init__(self) -> None:
        self._loaded: dict[QueueId, Loaded] = {}
        self._recipients = 0

    def put(self, queue_id: QueueId, loaded: Loaded) -> None:
        """In the place that it has, or behind all."""
        self._recipients += _recipients(loaded) - _recipients(self._loaded.get(queue_id))
        self._loaded[queue_id] = loaded

    def pop(self, queue_id: QueueId) -> Loaded | None:
        """Its turn has come, or it has left; None: it is to be loaded again."""
        loaded = self._loaded.pop(queue_id, None)
        self._recipients -= _recipients(loaded)
        return loaded

    def trim(self) -> None:
        """Let go of the latest: their turn is far."""
        while len(self._loaded) > KEPT or (len(self._loaded) > 1 and self._recipients > KEPT_RECIPIENTS):
            self._recipients -= _recipients(self._loaded.popitem()[1])


def _recipients(loaded: Loaded | None) -> int:
    return len(loaded.message.envelope.recipients) if loaded is not None else 0


class Loading:
    """All methods belong to the loop's thread; they block for the spool's disk, as short as a read is.

    root      of the spool
    schedule  is told of a message that cannot be delivered now
    """

    def __init__(
        self, root: str, schedule: Schedule, counters: collections.Counter[str], routing: Routing, fs: Fs
    ) -> None:
        self._root = root
        self._schedule = schedule
        self._counters = counters
        self._routing = routing
        self._fs = fs

    def load(self, entry: Entry, now: float) -> Loaded | None:
        """The message; None when it is not to be delivered now: the schedule has been told."""
        path = path_of(self._root, entry)
        try:
            message = stored.load(path, entry.id, fs=self._fs)
            known = state.load(path, fs=self._fs) if entry.has_state else state.State()
        except stored.Emptied:
            log.queue_event(
                act="emptied", id=entry.id, level="warning",
                detail="empty file removed: delivered before a cut, or lost to one with durability none",
            )  # fmt: skip
            with contextlib.suppress(OSError):
                state.remove(path, has_state=entry.has_state, fs=self._fs)
            self._schedule.remove(entry.id)
            return None
        except FileNotFoundError:
            # A stale poke or a name the walk saw just before its removal.
            self._schedule.remove(entry.id)
            return None
        except Damaged as damage:
            self._quarantine(entry, str(damage), now)
            return None
        except OSError as error:
            log.queue_event(act="unreadable", id=entry.id, detail=f"{error.strerror}", level="error")
            self._schedule.wait(entry, now + UNREADABLE_RETRY_S)
            return None
        if known.held(message.envelope):
            self._schedule.hold(entry)
            return None
        for outcome in entry.unrecorded:
            known.last[outcome.recipient] = outcome
        return self.routed(entry, message, known)

    def routed(self, entry: Entry, message: stored.StoredMessage, known: state.State) -> Loaded:
        """The same, of a message that is here."""
        wanted = known.open(message.envelope.recipients)
        again = frozenset(wanted) if entry.flushed_at else entry.again.intersection(wanted)
        return Loaded(message, known, self._routing.route(message.envelope, wanted), again)

    def _quarantine(self, entry: Entry, why: str, now: float) -> None:
        try:
            recovery.quarantine(self._root, path_of(self._root, entry), entry.id, why, fs=self._fs)
        except OSError as error:
            log.queue_event(act="not_quarantined", id=entry.id, detail=f"{error.strerror}", level="error")
            self._schedule.wait(entry, now + UNREADABLE_RETRY_S)
            return
        self._schedule.remove(entry.id)
        self._counters["quarantined"] += 1
