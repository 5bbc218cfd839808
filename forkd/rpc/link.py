"""A role's side of its channel to master, on an asyncio loop: ready, heartbeats, the order to stop.

For roles whose loop has nothing else to say; the heartbeat is sent from that loop, so it stops when
the loop stands still (README of the design, principle 8).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from forkd.rpc import channel, passing
from forkd.rpc.message import Message
from forkd.rpc.messages import Ready
from forkd.rpc.messages_pool import Heartbeat, Stop
from forkd.rpc.start import RoleStart

BEAT_S = 1.0


class MasterLink:
    """Open from open() to close().

    on_message  what else master says (Status, Done)
    on_passed   a message that brings descriptors, which are its own from then on; None: they are closed
    beat        makes the heartbeat; called once a second
    stopping    set by Stop, or when master is gone; `orphaned` tells which
    """

    def __init__(
        self,
        start: RoleStart,
        *,
        accepts: object,
        beat: Callable[[], Heartbeat] = Heartbeat,
        on_message: Callable[[Message], None] | None = None,
        on_passed: Callable[[Message, Sequence[int]], None] | None = None,
    ) -> None:
        self._start = start
        self._accepts = accepts
        self._beat = beat
        self._on_message = on_message
        self._on_passed = on_passed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.stopping = asyncio.Event()
        self.orphaned = False

    def open(self) -> None:
        """Tell master that the work begins."""
        self._loop.add_reader(self._start.master.fileno(), self._read)
        self.send(Ready())
        self._start.title("running")
        self._tick()

    def send(self, message: Message) -> bool:
        """Send now; false when master does not read or is gone."""
        return channel.try_send(self._start.master, message)

    def close(self) -> None:
        """One more heartbeat, with what was counted since the last one; nothing more is read."""
        if self._timer is not None:
            self._timer.cancel()
            self.send(self._beat())
        self._loop.remove_reader(self._start.master.fileno())

    def _tick(self) -> None:
        self.send(self._beat())
        self._timer = self._loop.call_later(BEAT_S, self._tick)

    def _read(self) -> None:
        messages: list[tuple[Message, list[int]]]
        messages, ended = passing.drain(self._start.master, self._accepts)
        for message, descriptors in messages:
            if descriptors and self._on_passed is not None:
                self._on_passed(message, descriptors)
                continue
            for descriptor in descriptors:
                os.close(descriptor)
            if isinstance(message, Stop):
                self.stopping.set()
            elif self._on_message is not None:
                self._on_message(message)
        if ended:
            self._loop.remove_reader(self._start.master.fileno())
            self.orphaned = True
            self.stopping.set()
