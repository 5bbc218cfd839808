"""Which sandboxes of one plugin does a worker have? Spares, those at work, those whose death is awaited."""

from __future__ import annotations

import dataclasses
import itertools
import select
import time
from collections import deque
from typing import TYPE_CHECKING

from forkd.rpc.calls import Overloaded
from forkd.sandbox import output
from forkd.sandbox.held import Sandbox
from forkd.sandbox.link import Link
from forkd.sandbox.pool import Demand

if TYPE_CHECKING:
    from forkd.sandbox.host import Host

REFILL_DELAY_S = 0.003
"""Spares are made a little later: the session that took one gets the processor first."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostPlugin:
    """What a worker knows of a plugin's sandboxes.

    sandboxes   alive at once in this worker, spares included (the plugin's limit over the number of workers).
    spare       most warm sandboxes held ready.
    cpu_s       the processor allowance, only to name the cause when it is used up.
    """

    name: str
    socket_path: str
    sandboxes: int = 128
    spare: int = 2
    cpu_s: float = 2.0


class Kennel:
    """One plugin's sandboxes in this worker: spares, those at work, those whose death is awaited."""

    def __init__(self, host: Host, plugin: HostPlugin) -> None:
        self.host = host
        self.plugin = plugin
        self.alive = 0
        now = time.monotonic()
        self.meter = output.Meter(now)
        self._demand = Demand(now)
        self._ids = itertools.count(1)
        self._spares: deque[Sandbox] = deque()
        self._unreported: dict[int, Sandbox] = {}
        self._working: set[Sandbox] = set()
        self._link = Link(plugin.socket_path)
        self._registered = -1
        self._flush_due = False
        self._refill_due = False
        self._closing = False

    @property
    def connected(self) -> bool:
        """A zygote may still report."""
        return self._link.fd >= 0

    def take(self, session: str) -> Sandbox:
        now = time.monotonic()
        self._demand.arrived(now)
        if self._spares:
            sandbox = self._spares.popleft()
        else:
            if self.alive >= self.plugin.sandboxes:
                raise Overloaded(f"{self.alive} sandboxes of {self.plugin.name} are alive")
            sandbox = self._make()
        sandbox.session = session
        self._working.add(sandbox)
        self._refill_later()
        return sandbox

    def _make(self) -> Sandbox:
        try:
            sandbox = Sandbox(self, next(self._ids) & 0xFFFF_FFFF)
        except OSError as error:  # EMFILE: the worker is full
            raise Overloaded(str(error)) from error
        self.alive += 1
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
                    sandbox.died(death)
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
            if sandbox.closed:
                sandbox.ended(None)  # no word will come
        if self._link.waiting and not self._flush_due and not self._closing:
            self._flush_due = True
            self.host.loop.call_soon(self._flush)

    def released(self, sandbox: Sandbox) -> None:
        """A sandbox was closed."""
        self.alive -= 1
        self._working.discard(sandbox)
        self.unspare(sandbox)

    def unspare(self, sandbox: Sandbox) -> None:
        """It is dead or dying: no session may get it."""
        if not sandbox.session and sandbox in self._spares:
            self._spares.remove(sandbox)

    def adapt(self, now: float) -> None:
        """Hold as many spares as are wanted now; fewer where nobody comes."""
        wanted = self._demand.spares(now, self.plugin.spare)
        while len(self._spares) > wanted:
            self._spares[-1].close()

    def _refill_later(self) -> None:
        if not self._refill_due and len(self._spares) < self.plugin.spare:
            self._refill_due = True
            self.host.loop.call_later(REFILL_DELAY_S, self._refill)

    def _refill(self) -> None:
        self._refill_due = False
        if self._closing:
            return
        wanted = self._demand.spares(time.monotonic(), self.plugin.spare)
        while len(self._spares) < wanted and self.alive < self.plugin.sandboxes:
            try:
                self._spares.append(self._make())
            except Overloaded:
                return

    def close(self) -> None:
        self._closing = True
        self._link.abandon()
        for sandbox in (*self._spares, *self._working):
            sandbox.fail("unavailable", "the worker stops")

    def disconnect(self) -> None:
        self._disconnected()
