"""PROCESS worker: serves SMTP to many clients from one event loop.

runs as        `forkd` where root started us, else the calling user
holds          listening SMTP sockets, create rights in the spool, a way to each plugin's zygote
reads from     any client, sandboxes (distrusted), anvil, master
if taken over  mail that passes through it; not plugins' state, no other files
restart        by master, with back-off; a worker whose loop stands still for server.heartbeat is killed
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import sys
import time
from collections.abc import Coroutine
from typing import Any

import uvloop

from forkd import log
from forkd.metrics_events import counting
from forkd.metrics_slot import Slot
from forkd.rpc import channel, hush, passing, tracing
from forkd.rpc.messages import Blame, Certificate, FromAnvil, Ready, RefusedCall, ToRole
from forkd.rpc.messages_pool import Heartbeat, Room, Stop
from forkd.rpc.start import RoleStart
from forkd.rpc.tracing import Tracer
from forkd.sandbox.host import Host
from forkd.worker import assembly, ending, hosting
from forkd.worker.control import Control
from forkd.worker.copies import CopyBudget
from forkd.worker.doors import Doors
from forkd.worker.measuring import Measuring
from forkd.worker.probing import Probing
from forkd.worker.services import Services
from forkd.worker.session import Session
from forkd.worker.vitals import Vitals

LOG_DELAY_S = 0.02
"""How long a line of the log may wait for others: at 500 messages a second nine writes of ten are saved."""
TICK_S = 1.0
"""Sweep over the sessions' deadlines, heartbeat, flush of the log."""
SWITCH_S = 0.02
"""How long the loop may hold the interpreter while the committer thread wants it. The loop lets go at every
system call anyway; with Python's 5 ms they take it from each other in the middle of work (tests/bench B:
5 to 10 % more CPU)."""
QUIET_S = 10.0
"""Told to end gently: whom nobody heard for so long is done, or comes again."""
GENTLE_S = 300.0
"""So long; then every session ends with its transaction, for there are clients that never let go."""
ORPHAN_STOP_S = 5.0
"""When master is gone: how long transactions may still take."""


def main(start: RoleStart) -> int:
    """Serve until master says stop (or is gone); return the exit status."""
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Worker(start).run())


def _log_stray(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What escaped every boundary is a bug of ours: logged like any other, never printed raw."""
    error = context.get("exception") or RuntimeError(context.get("message", "unknown"))
    log.bug(where="loop", error=error)


class Worker:
    """The process: what it opens, its tick, its end."""

    def __init__(self, start: RoleStart) -> None:
        self._start = start
        self._tasks: set[asyncio.Task[None]] = set()
        self._budget = CopyBudget(start.config.sandbox.message_copies)
        self._services: Services
        self._host: Host
        self._made: assembly.Assembled
        self._doors: Doors
        self._probing: Probing
        self._control: Control
        self._vitals = Vitals()
        self._measuring = Measuring(Slot(start.metrics))
        self._gently = False
        self._tracer: Tracer | None = None
        self._stop_by: float | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Open, serve, drain."""
        start = self._start
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_stray)
        log.hold(lambda: loop.call_later(LOG_DELAY_S, log.flush))
        tracer = self._tracer = tracing.on_loop(start, loop)
        log.observe(tracer, counting(self._measuring.slot))
        anvil = channel.RequestClient(loop, start.anvil, FromAnvil)
        host = self._host = hosting.host(start, self._blame, self._budget)
        host.named.expected = start.names_calls
        made = self._made = assembly.assemble(
            start,
            assembly.Given(
                loop=loop,
                host=host,
                anvil=anvil,
                budget=self._budget,
                measuring=self._measuring,
                background=self._background,
            ),
        )
        services = self._services = made.services
        await services.authenticator.open(services)
        doors = self._doors = Doors(
            loop,
            {name: (sock, services.config.listener[name].backlog) for name, sock in start.listeners.items()},
            welcome=lambda name: Session(services, name),
            full=services.admission.full,
            on_shut=self._beat,
        )
        await doors.begin()
        probing = self._probing = Probing(services, host, anvil, self._background)
        await probing.open(start.sockets.get("probe"))
        control = self._control = Control(start.control, services, self._background)
        control.look()
        start.master.setblocking(False)
        loop.add_reader(start.master.fileno(), self._from_master)
        channel.try_send(start.master, Ready())
        self._show()
        # What is here now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        ticking = loop.create_task(self._tick())
        await self._stopping.wait()

        if await doors.leave():
            for session in services.sessions:
                if not session.transport.is_closing():
                    hush.lift(session.transport.get_extra_info("socket").fileno())
        probing.close()
        await self._run_dry()
        ticking.cancel()
        control.close()
        probing.abort()
        await ending.end_all(services)
        await services.names.close()
        await services.authenticator.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if late := tuple(self._tasks):
            for task in late:
                task.cancel()  # what they still have to tell, they tell now
            await asyncio.wait(late)
        await host.close()
        if made.crashes is not None:
            made.crashes.close()
        anvil.close()
        if services.next_hop is not None:
            services.next_hop.close()
        self._beat()  # what was counted since the last one
        self._measuring.slot.end()
        log.finish()
        if tracer is not None:
            tracer.finish()
        return 0

    async def _run_dry(self) -> None:
        """Until no session is left, or the time is over."""
        services, gentle_by = self._services, time.monotonic() + GENTLE_S
        while services.sessions and (self._stop_by is None or time.monotonic() < self._stop_by):
            if self._gently and time.monotonic() < gentle_by:
                await asyncio.sleep(0.1)
                continue
            if not services.draining:
                services.draining = True
                for session in tuple(services.sessions):
                    ending.drain(session)
            await asyncio.sleep(0.02)

    async def _tick(self) -> None:
        services = self._services
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            for session in tuple(services.sessions):
                ending.sweep(session, now)
                if self._gently and (session.idle_since or now) <= now - QUIET_S:
                    ending.drain(session)
            self._probing.sweep(now)
            self._doors.look()
            self._control.look()
            self._vitals.look()
            self._beat()
            self._show()
            log.flush()
            if self._tracer is not None:
                self._tracer.flush()

    def _beat(self) -> None:
        """Once a second, and when the last place is taken: master may have somebody else to send."""
        services = self._services
        transactions = sum(session.transaction is not None for session in services.sessions)
        held = self._host.held()
        self._measuring.plugins(held, self._host, self._made.watcher.breakers)
        self._measuring.now(
            sessions=len(services.sessions),
            transactions=transactions,
            places=services.config.limits.sessions,
            memory=self._vitals.memory,
        )
        channel.try_send(
            self._start.master,
            Heartbeat(
                state=self._state,
                sessions=len(services.sessions) + self._doors.coming,
                transactions=transactions,
                counters=dataclasses.asdict(services.counters) | services.failures.counters(),
                info={f"breaker.{name}": state for name, state in self._made.watcher.breakers.items()},
                sandboxes=held,
                places=services.config.limits.sessions,
                busy=self._vitals.busy,
                memory=self._vitals.memory,
                served=services.counters.connections,
            ),
        )

    @property
    def _state(self) -> str:
        return "draining" if self._stopping.is_set() else "running"

    def _show(self) -> None:
        count = len(self._services.sessions)
        self._start.title(f"{self._state} {count} session{'' if count == 1 else 's'}")

    def _from_master(self) -> None:
        orders: list[tuple[ToRole, list[int]]]
        orders, ended = passing.drain(self._start.master, ToRole)
        for order, descriptors in orders:
            if isinstance(order, Certificate):
                self._services.certificates.replace(order.name, descriptors)
                continue
            if isinstance(order, RefusedCall):
                self._host.named.told(order.plugin, order.pid, order.call)
                continue
            for descriptor in descriptors:
                os.close(descriptor)  # nothing else brings any
            if isinstance(order, Stop):
                self._begin_stop(order.deadline_s, gently=order.gently)
            elif isinstance(order, Room):
                self._doors.elsewhere = order.elsewhere
                self._doors.look()
        if ended:
            asyncio.get_running_loop().remove_reader(self._start.master.fileno())
            self._begin_stop(ORPHAN_STOP_S)

    def _begin_stop(self, within_s: float | None, *, gently: bool = False) -> None:
        self._gently = gently and (self._gently or not self._stopping.is_set())
        by = None if within_s is None else time.monotonic() + within_s
        if not self._stopping.is_set() or by is not None:
            self._stop_by = by
        self._stopping.set()

    def _blame(self, plugin: str, pid: int, reason: str) -> None:
        channel.try_send(self._start.master, Blame(plugin=plugin, pid=pid, reason=reason))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
