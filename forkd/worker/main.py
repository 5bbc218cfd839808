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
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from forkd import log
from forkd.config.aliases import NO_ALIASES
from forkd.config.expansion import TAKEN, AliasedRecipients
from forkd.config.recipients import Recipients
from forkd.config.schema import Config, PluginConfig
from forkd.hooks.breaker import Rule
from forkd.hooks.dispatcher import Dispatcher
from forkd.hooks.given import KeptCopy
from forkd.queue.ids import Ids
from forkd.queue.spool import Spool, spool_root
from forkd.rpc import channel, passing, records
from forkd.rpc.messages import Blame, Certificate, FromAnvil, Ready, RefusedCall, ToRole
from forkd.rpc.messages_pool import Heartbeat, Stop
from forkd.rpc.start import RoleStart
from forkd.sandbox.host import Host, HostFilter, HostPlugin, HostProgram
from forkd.worker.admission import Admission
from forkd.worker.authenticator import Authenticator
from forkd.worker.copies import CopyBudget
from forkd.worker.crashes import Crashes
from forkd.worker.failures import Failures
from forkd.worker.names import Resolver
from forkd.worker.next_hop import NextHop
from forkd.worker.rates import Rates
from forkd.worker.services import Services
from forkd.worker.session import Session
from forkd.worker.shadow import Watcher
from forkd.worker.tls import Certificates

LOG_DELAY_S = 0.02
"""How long a line of the log may wait for others: at 500 messages a second nine writes of ten are saved."""
TICK_S = 1.0
"""Sweep over the sessions' deadlines, heartbeat, flush of the log."""
CHECKPASSWORD = "@checkpassword"
"""The name of its zygote (auth.backend "checkpassword")."""
SANDBOXES_PER_CPU = 64
"""Default of a plugin's limits.sandboxes (plugins.md: 64 times CPUs)."""
SWITCH_S = 0.02
"""How long the loop may hold the interpreter while the committer thread wants it. The loop lets go at every
system call anyway; with Python's 5 ms they take it from each other in the middle of work (tests/bench B:
5 to 10 % more CPU)."""
ORPHAN_STOP_S = 5.0
"""When master is gone: how long transactions may still take."""


def main(start: RoleStart) -> int:
    """Serve until master says stop (or is gone); return the exit status."""
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Worker(start).run())


def _host(start: RoleStart, on_blame: Callable[[str, int, str], None], room: CopyBudget) -> Host:
    """The way to sandboxes: of plugins, and of the program that knows passwords."""
    program = start.plugins.get(CHECKPASSWORD)
    return Host(
        asyncio.get_running_loop(),
        [
            _host_filter(start, plugin, room) if plugin.kind == "program" else _host_plugin(start, plugin)
            for plugin in start.plugin_configs
        ],
        on_blame=on_blame,
        programs=[HostProgram(name=CHECKPASSWORD, socket_path=program)] if program else [],
        broker=start.broker,
        overload_wait_s=float(start.config.sandbox.overload_wait),
    )


def _host_plugin(start: RoleStart, plugin: PluginConfig) -> HostPlugin:
    """What the worker's handle on a plugin's sandboxes needs to know; the cap is shared by all workers."""
    return HostPlugin(
        name=plugin.name,
        socket_path=start.plugins[plugin.name],
        sandboxes=_share(start, plugin),
        spare=plugin.limits.spare,
        cpu_s=float(plugin.limits.cpu),
        memory=int(plugin.limits.memory),
        reuse=plugin.limits.reuse,
        broker=plugin.capabilities.brokered,
    )


def _host_filter(start: RoleStart, plugin: PluginConfig, room: CopyBudget) -> HostFilter:
    """The same of a program."""
    return HostFilter(
        name=plugin.name,
        socket_path=start.plugins[plugin.name],
        sandboxes=_share(start, plugin),
        cpu_s=float(plugin.limits.cpu),
        environment=plugin.environment,
        unchanged_if_empty=plugin.unchanged_if_empty,
        message_size=start.config.limits.edited_size,
        room=room,
    )


def _share(start: RoleStart, plugin: PluginConfig) -> int:
    """Of what the plugin may have of sandboxes, this worker's part."""
    over_all = plugin.limits.sandboxes or SANDBOXES_PER_CPU * len(os.sched_getaffinity(0))
    return max(1, over_all // max(1, start.workers))


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
        self._crashes: Crashes | None = None
        self._watcher: Watcher
        self._stop_by: float | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Open, serve, drain."""
        start = self._start
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_stray)
        log.hold(lambda: loop.call_later(LOG_DELAY_S, log.flush))
        anvil = channel.RequestClient(loop, start.anvil, FromAnvil)
        host = self._host = _host(start, self._blame, self._budget)
        host.named.expected = start.names_calls
        services = self._services = self._open(loop, host, anvil)
        await services.authenticator.open(services)
        servers = [
            # The backlog once more: it calls listen() again, and would set its own 100.
            await loop.create_server(
                lambda name=name: Session(services, name),  # type: ignore[misc]
                sock=sock,
                backlog=services.config.listener[name].backlog,
            )
            for name, sock in start.listeners.items()
        ]
        start.master.setblocking(False)
        loop.add_reader(start.master.fileno(), self._from_master)
        channel.try_send(start.master, Ready())
        self._show()
        # What is here now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        ticking = loop.create_task(self._tick())
        await self._stopping.wait()

        services.draining = True
        for server in servers:
            server.close()
        for session in tuple(services.sessions):
            session.drain()
        while services.sessions and (self._stop_by is None or time.monotonic() < self._stop_by):
            await asyncio.sleep(0.02)
        ticking.cancel()
        for session in tuple(services.sessions):
            session.transport.abort()
        services.committer.close()
        await services.names.close()
        await services.authenticator.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        if late := tuple(self._tasks):
            for task in late:
                task.cancel()  # what they still have to tell, they tell now
            await asyncio.wait(late)
        await host.close()
        if self._crashes is not None:
            self._crashes.close()
        anvil.close()
        if services.next_hop is not None:
            services.next_hop.close()
        log.finish()
        return 0

    def _open(self, loop: asyncio.AbstractEventLoop, host: Host, anvil: channel.RequestClient) -> Services:
        start = self._start
        config: Config = start.config
        recipients = AliasedRecipients(Recipients.from_config(config), start.aliases or NO_ALIASES)

        def routable(local: str, domain: str) -> bool:
            return isinstance(recipients.resolve(local, domain, may_relay=False), TAKEN)

        self._crashes = self._open_crashes(loop)
        failures = Failures(
            start.plugin_configs,
            background=self._background,
            ids=Ids(f"w{start.slot}"),
            crashes=self._crashes,
            hashes=start.plugin_hashes,
        )
        self._watcher = Watcher(failures, self._background)
        dispatcher = Dispatcher(
            start.plugin_configs,
            host,
            message_budget_s=float(config.sandbox.message_budget),
            message_size=config.limits.edited_size,
            routable=routable,
            observer=self._watcher,
            breaker=Rule(
                window_s=float(config.breaker.window),
                networks=config.breaker.networks,
                pause_s=float(config.breaker.pause),
            ),
            keep_frames=self._crashes is not None,
        )
        rates = Rates(config.limits, workers=start.workers, anvil=anvil)
        return Services(
            config,
            loop=loop,
            slot=start.slot,
            hostname=config.server.hostname,
            poke=start.poke,
            dispatcher=dispatcher,
            budget=self._budget,
            failures=failures,
            recipients=recipients,
            admission=Admission(config, workers=start.workers, anvil=anvil),
            rates=rates,
            names=Resolver(config.names, loop),
            certificates=Certificates(config, start.certificates, start.client_ca),
            authenticator=Authenticator(config, loop, host=host, rates=rates, dispatcher=dispatcher),
            spool=Spool(
                spool_root(config.server.data_dir),
                f"w{start.slot}",
                durable=config.queue.durability == "fsync",
            ),
            background=self._background,
            next_hop=NextHop(loop, start.proxy, f"w{start.slot}", config) if start.proxy else None,
        )

    def _open_crashes(self, loop: asyncio.AbstractEventLoop) -> Crashes | None:
        crash = self._start.config.crash
        if not crash.keep:
            return None

        def done(copy: KeptCopy) -> None:
            loop.call_soon_threadsafe(copy.close)

        def lost(record: str, reason: str) -> None:
            loop.call_soon_threadsafe(lambda: log.crash_record(act="lost", record=record, reason=reason))

        return Crashes(
            records.crash_folder(self._start.config.server.data_dir),
            keep=crash.keep,
            max_size=int(crash.max_size),
            on_done=done,
            on_lost=lost,
        )

    async def _tick(self) -> None:
        services = self._services
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            transactions = 0
            for session in tuple(services.sessions):
                session.sweep(now)
                transactions += session.transaction is not None
            channel.try_send(
                self._start.master,
                Heartbeat(
                    state="draining" if services.draining else "running",
                    sessions=len(services.sessions),
                    transactions=transactions,
                    counters=dataclasses.asdict(services.counters) | services.failures.tally,
                    info={f"breaker.{name}": state for name, state in self._watcher.breakers.items()},
                    sandboxes=self._host.held(),
                ),
            )
            self._show()
            log.flush()

    def _show(self) -> None:
        state = "draining" if self._services.draining else "running"
        count = len(self._services.sessions)
        self._start.title(f"{state} {count} session{'' if count == 1 else 's'}")

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
                self._begin_stop(order.deadline_s)
        if ended:
            asyncio.get_running_loop().remove_reader(self._start.master.fileno())
            self._begin_stop(ORPHAN_STOP_S)

    def _begin_stop(self, within_s: float | None) -> None:
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
