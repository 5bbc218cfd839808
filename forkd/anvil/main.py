"""PROCESS anvil: counts clients over all workers.

runs as        `forkd-admin` where root started us, else the calling user
holds          nothing but counters, in memory
reads from     workers (typed records; one that is not in the protocol ends that worker's connection)
if taken over  wrong limits until it is restarted
restart        by master, with back-off; it starts again from zero
"""

from __future__ import annotations

import asyncio
import socket
import time

import uvloop

from forkd import log
from forkd.anvil.counts import Rates, Sessions
from forkd.rpc import channel
from forkd.rpc.link import MasterLink
from forkd.rpc.message import Message
from forkd.rpc.messages import (
    ClientConnect,
    ClientCounts,
    ClientDisconnect,
    Happened,
    LastMinute,
    ToAnvil,
    ToRole,
)
from forkd.rpc.messages_pool import Heartbeat, Log
from forkd.rpc.start import RoleStart

SWEEP_S = 10.0


def main(start: RoleStart) -> int:
    """Count until master says stop, or is gone; return the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Anvil(start).run())


class Anvil:
    """The process: one listening socket, one connection per worker."""

    def __init__(self, start: RoleStart) -> None:
        self._start = start
        self._listener = start.sockets["anvil"]
        self._sessions = Sessions()
        self._rates = Rates()
        self._workers: dict[int, socket.socket] = {}
        self._asked = 0
        self._swept_at = 0.0

    async def run(self) -> int:
        """Open, serve, stop at once: there is nothing to finish."""
        loop = asyncio.get_running_loop()
        link = MasterLink(self._start, accepts=ToRole, beat=self._beat, on_message=_heard)
        loop.add_reader(self._listener.fileno(), self._accept)
        link.open()
        await link.stopping.wait()
        loop.remove_reader(self._listener.fileno())
        for number in tuple(self._workers):
            self._drop(number)
        link.close()
        return 0

    def _beat(self) -> Heartbeat:
        log.flush()
        now = time.monotonic()
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            self._rates.sweep(now)
        return Heartbeat(
            counters={"questions": self._asked},
            info={"connected": str(len(self._sessions)), "rates": str(len(self._rates))},
        )

    def _accept(self) -> None:
        try:
            worker, _ = self._listener.accept()
        except OSError:
            return  # it is gone again, or there are no descriptors: it asks anew
        worker.setblocking(False)
        self._workers[worker.fileno()] = worker
        asyncio.get_running_loop().add_reader(worker.fileno(), self._serve, worker.fileno())

    def _serve(self, number: int) -> None:
        worker = self._workers[number]
        messages: list[ToAnvil]
        try:
            messages, ended = channel.drain(worker, ToAnvil)
        except channel.BadRecord as error:
            log.overload(what="anvil: a worker spoke out of protocol", detail=str(error))
            self._drop(number)
            return
        now = time.monotonic()
        for message in messages:
            answer = self._answer(number, message, now)
            if answer is not None:
                # A worker that does not read its answers loses them: it goes by its own limit then.
                channel.try_send(worker, answer)
        if ended:
            self._drop(number)

    def _answer(self, number: int, message: ToAnvil, now: float) -> Message | None:
        match message:
            case ClientConnect():
                self._asked += 1
                return self._connect(number, message, now)
            case ClientDisconnect():
                for key in filter(None, (message.client, message.network)):
                    self._sessions.leave(number, key)
                return None
            case Happened():
                self._asked += 1
                times = self._rates.add_all(message.what, message.keys, message.times, now, message.most)
                return LastMinute(n=message.n, times=times) if message.n else None

    def _connect(self, number: int, message: ClientConnect, now: float) -> ClientCounts:
        sessions, client, network = self._sessions, message.client, message.network
        keys = (client, network) if network else (client,)
        times = self._rates.add_all("connection", keys, 1, now, (message.most,))
        return ClientCounts(
            n=message.n,
            sessions=sessions.enter(number, client),
            connections_last_minute=times[0],
            network_sessions=sessions.enter(number, network) if network else 0,
            network_connections_last_minute=times[1] if network else 0,
        )

    def _drop(self, number: int) -> None:
        worker = self._workers.pop(number)
        asyncio.get_running_loop().remove_reader(number)
        worker.close()
        self._sessions.lost(number)


def _heard(message: Message) -> None:
    if isinstance(message, Log):  # a reload keeps anvil as it is
        log.change(message.format, message.level)
