"""Which failure does the name of a refused system call belong to? A worker keeps what master tells (audit.py)
until the failure asks for it; a failure that is first waits a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

WAIT_S = 0.25
"""How long a worker waits for a name. The record is written before the process is dead, and is here within a
millisecond or two where nobody is busy; no client waits for it."""
RECENT_S = 2.0
"""A name told longer ago belongs to no failure of now."""
KEPT = 256
"""Names that a worker keeps until somebody asks for them."""


class Named:
    """A worker's side: names that master told, until the failure that one belongs to asks for it.

    expected  master reads records: it is worth waiting for one.
    """

    __slots__ = ("_told", "_waiting", "expected")

    def __init__(self) -> None:
        self.expected = False
        self._told: deque[tuple[float, str, int, str]] = deque(maxlen=KEPT)
        """When, plugin, pid, call."""
        self._waiting: dict[tuple[str, int], tuple[bool, asyncio.Future[str]]] = {}
        """Plugin and pid -> is that the kernel's number, and who waits for it."""

    def told(self, plugin: str, pid: int, call: str) -> None:
        """Master says: process `pid`, of `plugin`, was killed for `call`."""
        _, future = self._waiting.get((plugin, pid), (False, None))
        if future is not None and not future.done():
            future.set_result(call)
        else:
            self._told.append((time.monotonic(), plugin, pid, call))

    async def name(self, plugin: str, pid: int, *, claimed: int = 0) -> str:
        """The call that this sandbox was killed for, or "".

        pid      as the kernel told it to us; 0: it never answered.
        claimed  what its zygote says then. In a PID namespace of its own that is another number, and nobody
                 here knows the one that the kernel logs: it is "likely CALL" then, or "one of" several.
        """
        number = pid or claimed
        for entry in self._told:
            if entry[1:3] == (plugin, number):
                self._told.remove(entry)
                return entry[3]
        if not self.expected:
            return ""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        key, mine = (plugin, number), (pid != 0, future)
        # What a zygote claims never takes the place of what the kernel says.
        if pid or not self._waiting.get(key, mine)[0]:
            self._waiting[key] = mine
        timer = loop.call_later(WAIT_S, _give_up, future)
        try:
            call = await future
        finally:
            timer.cancel()
            if self._waiting.get(key) is mine:
                del self._waiting[key]
        return call or ("" if pid else self._one_of(plugin))

    def _one_of(self, plugin: str) -> str:
        """What is left of that plugin's when all that are known have taken theirs."""
        since = time.monotonic() - RECENT_S
        recent = [entry for entry in self._told if entry[1] == plugin and entry[0] > since]
        if len(recent) == 1:
            self._told.remove(recent[0])
        calls = sorted({entry[3] for entry in recent})
        if len(calls) == 1:
            return f"likely {calls[0]}"  # its own may be late, and this somebody else's
        return f"one of {', '.join(calls)}" if calls else ""


def _give_up(future: asyncio.Future[str]) -> None:
    if not future.done():
        future.set_result("")
