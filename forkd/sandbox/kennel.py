"""Which sandboxes of one plugin does a worker have? Spares, those at work, those whose death is awaited.

Whose turn it is when they do not suffice, shares.py says.
"""

from __future__ import annotations

import dataclasses
import itertools
import select
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from forkd.rpc.calls import Overloaded
from forkd.sandbox import output
from forkd.sandbox.deaths import died, ended, orphaned
from forkd.sandbox.held import Sandbox
from forkd.sandbox.link import Link
from forkd.sandbox.pool import Demand
from forkd.sandbox.shares import Place
from forkd.sandbox.turns import Turns

if TYPE_CHECKING:
    from forkd.sandbox.host import Host

REFILL_DELAY_S = 0.003
"""Spares are made a little later: the session that took one gets the processor first."""
REST_S = 10.0
"""A used sandbox that no session wanted for so long is let go (limits.reuse)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostPlugin:
    """What a worker knows of a plugin's sandboxes.

    sandboxes   alive at once in this worker, spares included (the plugin's limit over the number of workers).
    spare       most warm sandboxes held ready.
    cpu_s       the processor allowance of a session: names the cause when it is used up, and decides with
                `memory` (bytes above the zygote's) whether a used sandbox may serve another session.
    reuse       sessions one sandbox may serve, one after the other.
    broker      its sandboxes have a channel to the broker: as its zygote's specification says.
    """

    name: str
    socket_path: str
    sandboxes: int = 128
    spare: int = 2
    cpu_s: float = 2.0
    memory: int = 256 << 20
    reuse: int = 1
    broker: bool = False


class Kennel(Turns[Sandbox]):
    """One plugin's sandboxes in this worker: spares, those at work, those whose death is awaited."""

    def __init__(self, host: Host, plugin: HostPlugin) -> None:
        super().__init__(host, plugin.name, sandboxes=plugin.sandboxes)
        self.plugin = plugin
        self.alive = 0
        self._fewest = self._most = 0
        now = time.monotonic()
        self.meter = output.Meter(now)
        self._demand = Demand(now)
        self._ids = itertools.count(1)
        self._spares: deque[Sandbox] = deque()
        self._rested: deque[tuple[Sandbox, float]] = deque()
        """Used ones that may serve another session, and since when they rest; the last is taken first."""
        self._unreported: dict[int, Sandbox] = {}
        self._working: set[Sandbox] = set()
        self._link = Link(plugin.socket_path)
        self._registered = -1
        self._flush_due = False
        self._refill_due = False

    async def take(
        self,
        session: str,
        *,
        network: str,
        evict: Callable[[], bool] | None,
        in_mail: Callable[[], bool] | None = None,
    ) -> Sandbox:
        """Host.take()."""
        now = time.monotonic()
        self._demand.arrived(now)
        return await self._take(Place(session, network, evict, now, in_mail=in_mail))

    def _hand_out(self, place: Place) -> Sandbox:
        """A sandbox for who holds `place` from now on. Raises Overloaded when none can be made."""
        sandbox = self._rested_one() if self._rested else None
        if sandbox is None:
            sandbox = self._spares.popleft() if self._spares else self._make()
        try:
            sandbox.begin(place)
        except BaseException:
            sandbox.place = None  # not taken yet
            sandbox.close()
            raise
        self._shares.take(place)
        self._working.add(sandbox)
        if self.plugin.spare:
            self._refill_later()
        return sandbox

    def _rested_one(self) -> Sandbox | None:
        """A used sandbox that kept silent while it rested; None: none is left."""
        while self._rested:
            sandbox = self._rested.pop()[0]
            if sandbox.silent() and sandbox.has_broker():
                return sandbox
            sandbox.close()
        return None

    def _unwanted(self, sandbox: Sandbox) -> None:
        sandbox.close()

    def _make(self) -> Sandbox:
        try:
            sandbox = Sandbox(self, next(self._ids) & 0xFFFF_FFFF)
        except OSError as error:  # EMFILE: the worker is full
            raise Overloaded(str(error)) from error
        self.alive += 1
        self._most = max(self._most, self.alive)
        self._unreported[sandbox.id] = sandbox
        fd = sandbox.channel.fileno()
        self.host.readers[fd] = sandbox
        self.host.epoll.register(fd, select.EPOLLIN)
        self._link.ask(sandbox)
        if not self._flush_due:
            # At the end of this turn of the loop: whoever else asks in it shares the request.
            self._flush_due = True
            self.host.loop.call_soon(self._flush)
        return sandbox

    def _flush(self) -> None:
        self._flush_due = False
        if self._closing:
            return
        for last in (False, True):
            try:
                sent = self._link.flush()
            except OSError as error:
                # The connection was a dead zygote's: once more, with its successor.
                self._disconnected()
                if last:
                    self._unreachable(error)
                continue
            if self._link.fd >= 0:  # nothing waited any more: nobody had to connect
                self._listen(write=not sent)
            return

    def _unreachable(self, error: OSError) -> None:
        for birth in self._link.abandon():
            sandbox = self._unreported.pop(birth.id, None)
            if sandbox is not None:
                sandbox.fail("unavailable", f"no zygote: {error.strerror}")

    def _listen(self, *, write: bool) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if write else 0)
        if self._registered < 0:
            self._registered = self._link.fd
            self.host.readers[self._registered] = self
            self.host.epoll.register(self._registered, events)
        else:
            self.host.epoll.modify(self._registered, events)

    def ready(self, events: int) -> None:
        """The zygote's connection can be read or written."""
        if events & ~select.EPOLLOUT:
            deaths = self._link.receive()
            if deaths is None:
                self._disconnected()
                return
            for death in deaths:
                sandbox = self._unreported.pop(death.id, None)
                if sandbox is not None:
                    died(sandbox, death)
        if events & select.EPOLLOUT and not self._flush_due:
            self._flush()

    def _disconnected(self) -> None:
        """The zygote is dead (or spoke nonsense): nobody will report on what it forked."""
        if self._registered >= 0:
            self.host.forget(self._registered)
            self._registered = -1
        self._link.drop()
        waiting = self._link.unsent()
        orphans = [sandbox for id_, sandbox in self._unreported.items() if id_ not in waiting]
        self._unreported = {id_: self._unreported[id_] for id_ in waiting if id_ in self._unreported}
        for sandbox in orphans:
            if not self._closing:
                orphaned(sandbox)
            elif sandbox.closed:
                ended(sandbox, None)  # we let go of the zygote, and wait for no word
        if self._link.waiting and not self._flush_due and not self._closing:
            self._flush_due = True
            self.host.loop.call_soon(self._flush)

    def released(self, sandbox: Sandbox) -> None:
        """A sandbox was closed."""
        self.alive -= 1
        self._fewest = min(self._fewest, self.alive)
        self._working.discard(sandbox)
        self.unspare(sandbox)
        self._vacate(sandbox)

    def rest(self, sandbox: Sandbox) -> bool:
        """May `sandbox`, whose session is over, serve another? Then its place is free, and it rests here."""
        if self._closing or sandbox.id not in self._unreported or not sandbox.may_serve_again():
            return False  # what an ended zygote left behind does not come back either
        self._working.discard(sandbox)
        self._vacate(sandbox)
        heir = sandbox.hand_over()
        self._unreported[heir.id] = heir
        self.host.readers[heir.channel.fileno()] = heir
        self._rested.append((heir, time.monotonic()))
        return True

    def _vacate(self, sandbox: Sandbox) -> None:
        place, sandbox.place = sandbox.place, None
        self._free(place, well=sandbox.behaved())

    def unspare(self, sandbox: Sandbox) -> None:
        """It is dead or dying: no session may get it."""
        if sandbox.session:
            return
        if sandbox in self._spares:
            self._spares.remove(sandbox)
        self._rested = deque(entry for entry in self._rested if entry[0] is not sandbox)

    def adapt(self, now: float) -> None:
        """Hold as many spares as are wanted now; fewer where nobody comes."""
        wanted = self._demand.spares(now, self.plugin.spare)
        while len(self._spares) > wanted:
            self._spares[-1].close()
        while self._rested and now - self._rested[0][1] > REST_S:
            self._rested[0][0].close()

    def _refill_later(self) -> None:
        if not self._refill_due and len(self._spares) < self.plugin.spare:
            self._refill_due = True
            self.host.loop.call_later(REFILL_DELAY_S, self._refill)

    def _refill(self) -> None:
        self._refill_due = False
        if self._closing:
            return
        wanted = self._demand.spares(time.monotonic(), self.plugin.spare) - len(self._rested)
        while len(self._spares) < wanted and self.alive < self.plugin.sandboxes:
            try:
                self._spares.append(self._make())
            except Overloaded:
                return

    def held(self) -> tuple[int, int]:
        """Sandboxes alive since the last call: the fewest, the most."""
        fewest, most = self._fewest, self._most
        self._fewest = self._most = self.alive
        return fewest, most

    def spare_now(self) -> tuple[int, int]:
        """Sandboxes that wait for a session, and sessions that wait for a sandbox."""
        return len(self._spares) + len(self._rested), self._shares.waiting

    def close(self) -> None:
        self._closing = True
        self._link.abandon()
        for sandbox in (*self._spares, *(entry[0] for entry in self._rested), *self._working):
            sandbox.fail("unavailable", "the worker stops")

    def disconnect(self) -> None:
        self._disconnected()
