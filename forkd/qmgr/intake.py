"""Which messages are there? What the spool holds at the start, what workers poke for, what a walk finds."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator

from forkd.fs import Fs
from forkd.qmgr.acts import path_of
from forkd.qmgr.schedule import Schedule
from forkd.queue import recovery, state
from forkd.queue.ids import ID, SLOT
from forkd.queue.spool import Spool

DAY_S = 86_400.0


class Intake:
    """Brings messages to the schedule of one spool. All methods belong to the loop's thread.

    root      of the spool
    counters  one more for each that a walk found
    """

    def __init__(self, root: str, schedule: Schedule, counters: collections.Counter[str], fs: Fs) -> None:
        self._root = root
        self._schedule = schedule
        self._counters = counters
        self._fs = fs
        self._slots = frozenset(Spool.slots(root, fs=fs))
        self._scan: Iterator[recovery.Found | None] | None = None

    def recover(self) -> None:
        """At start-up: clean the spool by recovery's table and learn every message. Raises OSError.

        Cost: a listing, and one small file for each message that was tried before.
        """
        now = time.time()
        for found in recovery.recover(self._root, fs=self._fs):
            path, known = path_of(self._root, found), None
            if found.has_state:
                with contextlib.suppress(OSError):  # then it is read, or fails again, when it is due: now
                    known = state.load(path, fs=self._fs)
            due = 0.0
            if known is not None and known.next_try_at and not known.hold:
                # The clock may have been wrong when it was written: no delay is longer than a day.
                due = min(known.next_try_at, now + DAY_S)
            entry = self._schedule.add(found.id, found.slot, due, has_state=found.has_state)
            if entry is not None and known is not None and known.hold:
                self._schedule.hold(entry)
                # Who holds it again is told that it is held, and nothing more is written.
                with contextlib.suppress(OSError):
                    state.secure(path, fs=self._fs)

    def poked(self, data: bytes, now: float) -> None:
        """Pokes as they come from the pipe, whole lines `<slot>/<id>`; workers are not to be trusted."""
        add, slots = self._schedule.add, self._slots
        for line in data.decode("ascii", "replace").split("\n"):
            slot, _, queue_id = line.partition("/")
            if slot in slots and ID.fullmatch(queue_id):
                add(queue_id, slot, now)
            elif SLOT.fullmatch(slot) and ID.fullmatch(queue_id):
                with contextlib.suppress(OSError):  # then the walk finds it
                    self._slots = frozenset(Spool.slots(self._root, fs=self._fs))
                if slot in self._slots:
                    add(queue_id, slot, now)

    def walk(self, most: int, now: float) -> bool:
        """A bite of the walk over new/ for messages whose poke was lost; true when it is through."""
        if self._scan is None:
            self._scan = recovery.scan(self._root, fs=self._fs)
        seen = 0
        for _, found in zip(range(most), self._scan, strict=False):
            seen += 1
            if found is not None and found.id not in self._schedule:
                self._schedule.add(found.id, found.slot, now, has_state=True)
                self._counters["found_by_walk"] += 1
        if seen == most:
            return False
        self._scan = None
        return True
