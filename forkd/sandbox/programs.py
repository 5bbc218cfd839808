"""How does a worker run a program plugin? One run, one process group, ended by its leash at the latest.

The zygote that forks for it holds no code of a plugin: so the exit status it reports may be relied on, and
checkpassword's is an answer. What the program itself may do: program.py, profiles.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import select
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sandbox import output, wire
from forkd.sandbox.link import Link
from forkd.sandbox.report import report
from forkd.sandbox.wire import Death

if TYPE_CHECKING:
    from forkd.sandbox.host import Host


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostProgram:
    """What a worker knows of a program plugin.

    at_once   runs of this worker at the same time; who comes later waits, up to his own deadline.
    """

    name: str
    socket_path: str
    at_once: int = 16


class Program:
    """One program plugin's runs in this worker."""

    def __init__(self, host: Host, program: HostProgram) -> None:
        self.host = host
        self.program = program
        self._room = asyncio.Semaphore(program.at_once)
        self._link = Link(program.socket_path)
        self._registered = -1
        self._ids = itertools.count(1)
        self._meter = output.Meter(time.monotonic())
        self._runs: dict[int, asyncio.Future[Death]] = {}

    async def run(self, fds: Mapping[int, int], *, timeout_s: float, environment: Mapping[str, str]) -> int:
        """Host.run_program()."""
        by = self.host.loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(by):
                await self._room.acquire()
        except TimeoutError:
            raise Overloaded(
                f"{self.program.at_once} runs of {self.program.name} did not end within {timeout_s:g} s"
            ) from None
        try:
            death = await self._run(fds, by=by, timeout_s=timeout_s, environment=environment)
        finally:
            self._room.release()
        self.host.on_report(report(death, plugin=self.program.name, session="", ours=False))
        return death.status

    async def _run(
        self, fds: Mapping[int, int], *, by: float, timeout_s: float, environment: Mapping[str, str]
    ) -> Death:
        entries = tuple(f"{name}={value}".encode() for name, value in environment.items())
        id_ = next(self._ids) & 0xFFFF_FFFF
        record = wire.pack_run(wire.Run(id_, tuple(fds), entries))
        ended: asyncio.Future[Death] = self.host.loop.create_future()
        opened: list[int] = []
        try:
            leash, ours = _pipe(opened, os.O_CLOEXEC)
            # Nobody may open it again for writing through /proc: then it would never hang up.
            os.fchmod(leash, 0)
            printed, output_end = _pipe(opened, os.O_CLOEXEC | os.O_NONBLOCK)
            self._send(record, (leash, output_end, *fds.values()))
            self._runs[id_] = ended
            os.close(leash)
            os.close(output_end)
            opened[:] = ours, printed
            try:
                async with asyncio.timeout_at(by):
                    death = await ended
            except TimeoutError:
                raise CallFailed("deadline", f"no end within {timeout_s:g} s") from None
            if not death.pid:
                raise CallFailed("unavailable", "the zygote could not fork")
            self._printed(output.read(printed), death.pid)
            return death
        except OSError as error:
            raise CallFailed("unavailable", f"it could not be started: {error.strerror}") from error
        finally:
            self._runs.pop(id_, None)
            for fd in opened:
                os.close(fd)  # the leash among them: whatever it started is killed

    def _send(self, record: bytes, descriptors: tuple[int, ...]) -> None:
        try:
            sent = self._link.send(record, descriptors)
        except OSError:
            # The connection was a dead zygote's: once more, with its successor.
            self._disconnected()
            sent = self._link.send(record, descriptors)
        if not sent:
            raise CallFailed("unavailable", "the zygote does not read")
        if self._registered < 0:
            self._registered = self._link.fd
            self.host.readers[self._registered] = self
            self.host.epoll.register(self._registered, select.EPOLLIN)

    def ready(self, _events: int) -> None:
        """The zygote's connection can be read."""
        deaths = self._link.receive()
        if deaths is None:
            self._disconnected()
            return
        for death in deaths:
            ended = self._runs.get(death.id)
            if ended is not None and not ended.done():
                ended.set_result(death)

    def _disconnected(self) -> None:
        """The zygote is dead: how its programs end nobody will know, so they are ended."""
        if self._registered >= 0:
            self.host.forget(self._registered)
            self._registered = -1
            self.close()
        self._link.drop()

    def close(self) -> None:
        """End all runs."""
        for ended in self._runs.values():
            if not ended.done():
                ended.set_exception(CallFailed("unavailable", "its zygote ended, or the worker stops"))

    def disconnect(self) -> None:
        """The worker ends: no connection stays open."""
        self._disconnected()

    def _printed(self, text: bytes, pid: int) -> None:
        if text and self._meter.take(len(text), time.monotonic()):
            dropped, self._meter.dropped = self._meter.dropped, 0
            self.host.on_output(self.program.name, "", pid, output.escape(text), dropped)


def _pipe(opened: list[int], flags: int) -> tuple[int, int]:
    """Both ends of a new pipe, noted in `opened`."""
    ends = os.pipe2(flags)
    opened += ends
    return ends
