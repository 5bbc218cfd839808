"""Which of our descriptors can be read, and who reads it? One poll for all of them."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

Callback = Callable[[float], None]
"""Called with the time (monotonic) at which its descriptor could be read."""


class Watch:
    """Descriptors with a callback each."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callback] = {}

    def add(self, descriptor: int, callback: Callback) -> None:
        """From now on `callback` is called whenever the descriptor can be read, or hung up."""
        self._callbacks[descriptor] = callback
        self._poll.register(descriptor, select.POLLIN)

    def remove(self, descriptor: int) -> None:
        """To be called before it is closed; nothing where it is not watched."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def wait(self, timeout_ms: int) -> float:
        """Wait, call whose descriptor can be read, return the time by which all of that had been said.

        Judged is by that time: after a SIGSTOP, or on a machine that slept, heartbeats wait in the sockets,
        and poll() may report its timeout alone.
        """
        events = self._poll.poll(timeout_ms)
        now = time.monotonic()
        for descriptor, _ in events or self._poll.poll(0):
            # A callback of this round may have closed a later one's descriptor.
            if callback := self._callbacks.get(descriptor):
                callback(time.monotonic())
        return now
