"""Which connections to next hops are open, and which of them is used again?"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Final

from forkd.deliver.connection import Connection
from forkd.deliver.hosts import Hop
from forkd.deliver.opening import HowToConnect, NotConnected, open_connection
from forkd.smtp.client_events import WasReset
from forkd.smtp.client_phases import Phase

DOWN_S: Final = 60.0
"""So long a hop that could not be connected to is asked after the others: not each mail waits for it."""
SILENT_S: Final = 600.0
"""One that did not even refuse: longer than mail waits for its second try, which so begins with others."""
MOST_DOWN: Final = 1000
"""Such hops that are remembered; their names come from outside."""
PROBE_S: Final = 10.0
"""For that answer; a new connection is a better one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """What of a transport's settings bounds its connections."""

    connections: int = 50
    """Open at once, idle ones too: the one that was idle longest makes place."""
    messages_per_connection: int = 100
    """Then it is ended; servers count them too."""
    idle_s: float = 5.0
    """Then it is ended: servers' patience, and their places, are not ours. 0: each has one mail."""
    probe_after_s: float = 2.0
    """So long idle, and RSET asks whether the server is still there before it is trusted with a mail: the end
    of a connection is seen at once, but what keeps its state on the way (NAT) forgets it silently."""


class Pool:
    """The idle connections of one transport, by hop."""

    def __init__(self, how: HowToConnect, limits: PoolLimits) -> None:
        self._how = how
        self._limits = limits
        self._idle: dict[Hop, list[Connection]] = {}
        """The last one is the one that was used last."""
        self._down: dict[Hop, float] = {}
        """Until when, by the loop's clock; the first was added first."""
        self._busy = 0
        self._sweep: asyncio.TimerHandle | None = None

    def has_idle(self, hop: Hop) -> bool:
        """One can be used again there, as far as is known."""
        return any(connection.end is None for connection in self._idle.get(hop, ()))

    def is_down(self, hop: Hop) -> bool:
        """A moment ago it could not be connected to."""
        return bool(self._down) and self._down.get(hop, 0.0) > asyncio.get_running_loop().time()

    async def take(self, hop: Hop, *, fresh: bool = False) -> Connection:
        """A connection on which mail may go, idle or `fresh`; give() it back. Raises NotServed."""
        self._busy += 1
        try:
            while not fresh and (idle := self._idle.get(hop)):
                connection = idle.pop()
                if not idle:
                    del self._idle[hop]
                if connection.end is None and await self._is_there(connection):
                    return connection
            self._make_place()
            connection = await open_connection(hop, self._how)
        except BaseException as error:
            self._busy -= 1
            if isinstance(error, NotConnected):
                self._down.pop(hop, None)
                down_s = DOWN_S if error.at_once else SILENT_S
                self._down[hop] = asyncio.get_running_loop().time() + down_s
                if len(self._down) > MOST_DOWN:
                    del self._down[next(iter(self._down))]
            raise
        self._down.pop(hop, None)
        return connection

    def give(self, connection: Connection, hop: Hop) -> None:
        """It is not used any more: kept for the next mail if it may have one, else ended."""
        self._busy -= 1
        engine = connection.engine
        if connection.end is not None or engine.phase is not Phase.IDLE:
            connection.abort()
            return
        offered = engine.offered
        limit = offered.transactions if offered is not None else None
        most = self._limits.messages_per_connection
        most = most if limit is None else min(limit, most)
        # A limit of domains is the connection's (RFC 9422 4.3): what was spent of it nobody counts.
        spent = offered is not None and offered.domains is not None
        if engine.transactions >= most or spent or not self._limits.idle_s:
            connection.quit()
            return
        loop = asyncio.get_running_loop()
        connection.used_at = loop.time()
        self._idle.setdefault(hop, []).append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(self._limits.idle_s, self._end_idle)

    async def close(self) -> None:
        """End all idle ones."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connections in self._idle.values():
            for connection in connections:
                connection.quit()
        self._idle.clear()
        await asyncio.sleep(0)  # the last words leave at the end of the loop's turn

    def _make_place(self) -> None:
        """For one more."""
        while self._idle and self._busy + sum(map(len, self._idle.values())) > self._limits.connections:
            hop = min(self._idle, key=lambda each: self._idle[each][0].used_at)
            self._idle[hop].pop(0).quit()
            if not self._idle[hop]:
                del self._idle[hop]

    def _end_idle(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time() - self._limits.idle_s
        for hop, connections in tuple(self._idle.items()):
            # The clock of the timer is in milliseconds.
            left = [each for each in connections if each.end is None and each.used_at > since + 0.001]
            for connection in connections:
                if connection not in left:
                    connection.quit()
            if left:
                self._idle[hop] = left
            else:
                del self._idle[hop]
        first = min((each[0].used_at for each in self._idle.values()), default=None)
        self._sweep = None if first is None else loop.call_at(first + self._limits.idle_s, self._end_idle)

    async def _is_there(self, connection: Connection) -> bool:
        """It was used just now, or its server answers RSET."""
        loop = asyncio.get_running_loop()
        if loop.time() - connection.used_at < self._limits.probe_after_s:
            return True
        there = False
        try:
            async with asyncio.timeout(PROBE_S):
                connection.engine.rset()
                there = isinstance(await connection.next_event(), WasReset) and connection.end is None
        except TimeoutError:
            pass
        finally:
            if not there:
                connection.abort()
        return there
