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
from forkd.anvil.counts import Counts
from forkd.rpc import channel
from forkd.rpc.link import MasterLink
from forkd.rpc.messages import ClientConnect, ClientCounts, Heartbeat, ToAnvil, ToRole
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
        self._counts = Counts()
        self._workers: dict[int, socket.socket] = {}
        self._asked = 0
        self._swept_at = 0.0

    async def run(self) -> int:
        """Open, serve, stop at once: there is nothing to finish."""
        loop = asyncio.get_running_loop()
        link = MasterLink(self._start, accepts=ToRole, beat=self._beat)
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
            self._counts.sweep(now)
        return Heartbeat(
            counters={"questions": self._asked},
            info={"clients": str(len(self._counts)), "connections": str(self._counts.sessions)},
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
            if isinstance(message, ClientConnect):
                self._asked += 1
                sessions, rate = self._counts.connect(number, message.client, now)
                # A worker that does not read its answers loses them: it goes by its own limit then.
                channel.try_send(
                    worker, ClientCounts(n=message.n, sessions=sessions, connections_last_minute=rate)
                )
            else:
                self._counts.disconnect(number, message.client)
        if ended:
            self._drop(number)

    def _drop(self, number: int) -> None:
        worker = self._workers.pop(number)
        asyncio.get_running_loop().remove_reader(number)
        worker.close()
        self._counts.lost(number)
