"""How is a program run that is no plugin (checkpassword, pipes)? Given descriptors, and its exit status.

How a program plugin is asked: program_plugin.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sandbox import output
from forkd.sandbox.program_runs import Run, Runs, pack_environment
from forkd.sandbox.report import report
from forkd.sandbox.wire import Death

if TYPE_CHECKING:
    from forkd.sandbox.host import Host


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostProgram:
    """What a worker, or qmgr, knows of a program.

    at_once   runs of this worker at the same time; who comes later waits, up to his own deadline.
    """

    name: str
    socket_path: str
    at_once: int = 16


class Program:
    """One program's runs in this worker."""

    def __init__(self, host: Host, program: HostProgram) -> None:
        self.host = host
        self.program = program
        self._room = asyncio.Semaphore(program.at_once)
        self._runs = Runs(host, program.socket_path)
        self._meter = output.Meter(time.monotonic())

    async def run(
        self,
        fds: Mapping[int, int],
        *,
        timeout_s: float,
        environment: Mapping[str, str],
        arguments: Sequence[str] | None = None,
    ) -> int:
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
            run = self._runs.start(fds, environment=pack_environment(environment), arguments=arguments)
            death = await self._end_of(run, by=by, timeout_s=timeout_s)
        finally:
            self._room.release()
        self.host.on_report(report(death, plugin=self.program.name, session="", ours=False))
        return death.status

    async def _end_of(self, run: Run, *, by: float, timeout_s: float) -> Death:
        try:
            try:
                async with asyncio.timeout_at(by):
                    death = await asyncio.shield(run.ended)
            except TimeoutError:
                raise run.late(timeout_s) from None
            except CallFailed as why:
                raise CallFailed("unavailable", why.detail) from None
            self._printed(output.read(run.printed), death.pid)
            return death
        finally:
            run.close()  # whatever it started is killed

    def close(self) -> None:
        """End all runs."""
        self._runs.close()

    def disconnect(self) -> None:
        """The worker ends: no connection stays open."""
        self._runs.disconnect()

    def _printed(self, text: bytes, pid: int) -> None:
        if text and self._meter.take(len(text), time.monotonic()):
            dropped, self._meter.dropped = self._meter.dropped, 0
            self.host.on_output(self.program.name, "", pid, output.escape(text), dropped)
