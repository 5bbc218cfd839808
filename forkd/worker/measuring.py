"""What does a worker count that no event of the log tells? Replies, the spool's time, how things are now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from forkd import metrics
from forkd.metrics_slot import Slot


class Sandboxes(Protocol):
    """forkd.sandbox.host.Host, as far as it is looked at here."""

    def spares(self) -> Mapping[str, tuple[int, int]]: ...


class Measuring:
    """What sessions and the worker's tick tell of metrics; the rest comes by the log (metrics_events.py)."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self._spent_s = 0.0
        self._numbers = slot.numbers
        self._replies: dict[int, int] = {}
        """Code -> its place in the slot: seven replies to each message of one."""

    def replied(self, code: int) -> None:
        """A client is told that."""
        at = self._replies.get(code)
        if at is None:
            at = self._replies[code] = self.slot.place(metrics.REPLIES, (str(code),))
        self._numbers[at] += 1.0

    def committed(self, took_s: float) -> None:
        """A message was handed to the spool, which took so long to keep it, or to say that it cannot."""
        self.slot.observe(metrics.COMMIT_SECONDS, took_s)

    def now(self, *, sessions: int, transactions: int, places: int, memory: int) -> None:
        """Once a second: how is it?"""
        slot = self.slot
        slot.set(metrics.SESSIONS, sessions)
        slot.set(metrics.TRANSACTIONS, transactions)
        slot.set(metrics.SESSION_PLACES, places)
        slot.set(metrics.PROCESS_MEMORY, memory, "worker")
        spent_s = time.process_time()
        slot.add(metrics.PROCESS_CPU, "worker", by=spent_s - self._spent_s)
        self._spent_s = spent_s
        slot.beat()

    def plugins(
        self, held: Mapping[str, tuple[int, int]], host: Sandboxes, breakers: Mapping[str, str]
    ) -> None:
        """Once a second, before now(): how is it with plugins? held: Host.held()."""
        slot = self.slot
        for plugin, (spares, waiting) in host.spares().items():
            if not plugin.startswith("@"):  # the probe's
                slot.set(metrics.PLUGIN_SPARES, spares, plugin)
                slot.set(metrics.PLUGIN_WAITING, waiting, plugin)
                slot.set(metrics.PLUGIN_SANDBOXES, held[plugin][1], plugin)
                slot.set(metrics.PLUGIN_BREAKERS, plugin in breakers, plugin)
