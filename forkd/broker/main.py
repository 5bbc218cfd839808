"""PROCESS broker: does for sandboxes what they were granted: DNS, kept state, connections.

runs as        `forkd-broker` where root started us, else the calling user
holds          the network for DNS and granted targets, the state store; a channel to each sandbox of a plugin
               that was granted something
reads from     workers (typed records; one that is not in the protocol ends that worker's connection),
               sandboxes (distrusted), name servers, the state file
if taken over  answers given to plugins, and what they keep; no mail
restart        by master, with back-off; running sandboxes lose their channels and see "temporary", sessions
               that begin meanwhile wait for the next one
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket

import uvloop

from forkd import log
from forkd.broker.channel import Channel
from forkd.broker.serving import Service
from forkd.broker.sqlite_store import SqliteStore
from forkd.broker.state import Store
from forkd.config.schema import Config
from forkd.lookups.resolver import Resolver
from forkd.metrics_events import counting
from forkd.metrics_slot import Slot
from forkd.rpc import channel, passing, places, tracing
from forkd.rpc.link import MasterLink
from forkd.rpc.messages import SandboxChannel, SandboxSession, ToBroker, ToRole
from forkd.rpc.messages_pool import Heartbeat
from forkd.rpc.start import RoleStart
from forkd.rpc.tracing import Tracer

AT_ONCE = 64
"""Records of one worker in one turn of the loop."""


def main(start: RoleStart) -> int:
    """Serve until master says stop, or is gone; return the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Broker(start).run())


class Broker:
    """The process: one listening socket, one connection per worker, one channel per sandbox."""

    def __init__(self, start: RoleStart) -> None:
        self._start = start
        self._listener = start.sockets["broker"]
        self._workers: dict[int, _Worker] = {}
        self._resolver: Resolver
        self._store: Store | None = None
        self._reused: set[str] = set()
        """Plugins whose sandboxes serve several sessions."""
        self._service: Service
        self._loop: asyncio.AbstractEventLoop
        self._tracer: Tracer | None = None

    async def run(self) -> int:
        """Open, serve, stop: what was written is made durable, nothing else has to be finished."""
        start = self._start
        config: Config = start.config
        loop = self._loop = asyncio.get_running_loop()
        tracer = self._tracer = tracing.on_loop(start, loop)
        log.observe(tracer, counting(Slot(start.metrics)))
        os.umask(0o077)  # what plugins keep is nobody else's, not even its group's
        plugins = [plugin for plugin in start.plugin_configs if plugin.capabilities.brokered]
        self._reused = {plugin.name for plugin in plugins if plugin.limits.reuse > 1}
        self._resolver = Resolver(config.dns)
        if any(plugin.capabilities.state for plugin in plugins):
            self._store = SqliteStore(
                places.state_file(config.server.data_dir),
                loop,
                max_keys=config.state.max_keys,
                max_value=int(config.state.max_value),
                on_trouble=_log_store,
            )
        self._service = Service(config, plugins, resolver=self._resolver, store=self._store)
        link = MasterLink(start, accepts=ToRole, beat=self._beat)
        loop.add_reader(self._listener.fileno(), self._accept)
        link.open()
        await link.stopping.wait()
        loop.remove_reader(self._listener.fileno())
        for number in tuple(self._workers):
            self._drop(number)
        await self._resolver.close()
        if self._store is not None:
            await self._store.close()
        link.close()
        if tracer is not None:
            tracer.finish()
        return 0

    def _beat(self) -> Heartbeat:
        log.flush()
        if self._tracer is not None:
            self._tracer.flush()
        channels = sum(len(worker.channels) for worker in self._workers.values())
        info = {"channels": str(channels), "cached": str(len(self._resolver))}
        if self._store is not None:
            info |= self._store.info()
        return Heartbeat(sessions=channels, counters=dict(self._service.counters), info=info)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it is gone again, or there are no descriptors: it asks anew
        number = connection.fileno()
        self._workers[number] = _Worker(connection)
        self._loop.add_reader(number, self._serve, number)

    def _settle(self, number: int) -> None:
        """Do all that worker has said until now."""
        while self._serve(number):
            pass

    def _serve(self, number: int) -> bool:
        """Do what that worker has said, AT_ONCE at most, so that none holds the loop; False: that was all."""
        worker = self._workers[number]
        messages: list[tuple[ToBroker, list[int]]]
        try:
            messages, ended = passing.drain(worker.connection, ToBroker, at_most=AT_ONCE)
        except channel.BadRecord as error:
            log.overload(what="broker: a worker spoke out of protocol", detail=str(error))
            self._drop(number)
            return False
        for message, descriptors in messages:
            match message:
                case SandboxChannel() if len(descriptors) == 1 and not ended:
                    ended = not self._open(worker, number, message, descriptors.pop())
                case SandboxSession():
                    self._renew(worker, message)
            for descriptor in descriptors:
                os.close(descriptor)  # nothing else brings any
        if ended:
            self._drop(number)
        return len(messages) == AT_ONCE and not ended

    def _open(self, worker: _Worker, number: int, message: SandboxChannel, descriptor: int) -> bool:
        """Serve a sandbox on that channel. False: it is no channel, and its worker is not to be believed."""
        try:
            end = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            return False
        if (end.family, end.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            end.close()
            return False
        caller = self._service.caller(message.plugin, message.session)
        if caller is None:
            end.close()  # of a plugin that we know nothing of
            return True
        channels, id_ = worker.channels, message.id
        if id_ in channels:
            channels[id_].close()

        def forget() -> None:
            del channels[id_]

        settle = functools.partial(self._settle, number) if message.plugin in self._reused else None
        channels[id_] = Channel(self._service, caller, end, self._loop, forget, settle=settle)
        return True

    def _renew(self, worker: _Worker, message: SandboxSession) -> None:
        found = worker.channels.get(message.id)
        caller = self._service.caller(message.plugin, message.session)
        if found is not None and caller is not None:
            found.begin(caller)

    def _drop(self, number: int) -> None:
        """A worker is gone, or not to be believed: its sandboxes have no broker any more."""
        worker = self._workers.pop(number)
        self._loop.remove_reader(number)
        worker.connection.close()
        for each in tuple(worker.channels.values()):
            each.close()


class _Worker:
    """Its connection, and the channels that it brought, by the numbers it gave them."""

    __slots__ = ("channels", "connection")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.channels: dict[int, Channel] = {}


def _log_store(trouble: str) -> None:
    """The store cannot be used, or can be again."""
    if trouble:
        log.service(act="state_unavailable", level="error", detail=trouble)
    else:
        log.service(act="state_available")
