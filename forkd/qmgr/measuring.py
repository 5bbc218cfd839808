"""What does qmgr count that no event of the log tells? How long the queue is, and how old."""

from __future__ import annotations

import collections
import time

from forkd import metrics
from forkd.metrics_slot import Slot
from forkd.qmgr.schedule import Schedule, Standing
from forkd.queue.ids import time_of

LOOK_S = 15.0
"""Between two looks at every message: as Prometheus asks, as a rule."""
LOOK_SHARE = 200
"""A look may take 1/200 of the time: 200,000 messages take some 0.1 s."""


class Measuring:
    """Told by the loop, once a second."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._next_look = 0.0
        self._spent_s = 0.0

    def now(self, schedule: Schedule) -> None:
        """How is it?"""
        slot, now = self.slot, time.monotonic()
        slot.set(metrics.QUEUE_DEPTH, len(schedule))
        if now >= self._next_look:
            self._look(schedule)
            self._next_look = now + max(LOOK_S, LOOK_SHARE * (time.monotonic() - now))
        spent_s = time.process_time()
        slot.add(metrics.PROCESS_CPU, "qmgr", by=spent_s - self._spent_s)
        self._spent_s = spent_s
        slot.beat()

    def _look(self, schedule: Schedule) -> None:
        states: collections.Counter[Standing] = collections.Counter()
        oldest = ""
        for queue_id, standing in schedule.standings():
            states[standing] += 1
            if standing is not Standing.HELD and (not oldest or queue_id < oldest):
                oldest = queue_id  # ids begin with their time, so they compare as it does
        for standing in Standing:
            self.slot.set(metrics.QUEUE_MESSAGES, states[standing], standing.value)
        age_s = max(0.0, time.time() - time_of(oldest)) if oldest else 0.0
        self.slot.set(metrics.QUEUE_OLDEST, age_s)
