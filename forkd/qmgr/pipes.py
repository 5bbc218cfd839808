"""How does qmgr have a transport's program run? By its zygote, as a worker does with a program plugin's.

Everything happens on the event loop of the asynchronous transports (network.py): the programs' handle is made
there with the first run, and is theirs alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping

from forkd.config.schema import Config, Pipe
from forkd.deliver.pipe import Run
from forkd.deliver.programs import SAID_BYTES, Ending, HostGone
from forkd.rpc import places
from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sandbox.host import Host, HostProgram

_READ_BYTES = 65_536


class Pipes:
    """deliver.pipe.ProgramRunner for all transports of kind "pipe".

    zygotes  name of a zygote -> path of its socket (RoleStart.plugins). The socket is master's and outlives
             a zygote.
    """

    def __init__(self, config: Config, zygotes: Mapping[str, str]) -> None:
        self._programs = {
            name: HostProgram(name=name, socket_path=path, at_once=table.connections)
            for name, table in config.transport.items()
            if isinstance(table, Pipe) and (path := zygotes.get(places.PIPE + name))
        }
        self._host: Host | None = None

    async def run(self, transport: str, run: Run) -> tuple[Ending, bytes]:
        """As ProgramRunner.run."""
        if transport not in self._programs:
            raise HostGone("nobody starts programs here")
        loop = asyncio.get_running_loop()
        if self._host is None:
            self._host = Host(loop, (), programs=self._programs.values())
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(reader, False)  # the other end is the program's, which expects it to block
            said = _Said(loop, reader)
            try:
                status = await self._host.run_program(
                    transport,
                    fds={0: run.message, 1: writer, 2: writer},
                    timeout_s=run.timeout_s,
                    environment=run.environment,
                    arguments=run.arguments,
                )
                ending = Ending(os.waitstatus_to_exitcode(status))
            except CallFailed as failed:
                if failed.cause != "deadline":
                    raise HostGone(str(failed)) from failed
                ending = Ending(late=True)
            except Overloaded as why:
                raise HostGone(str(why)) from why
            finally:
                said.close()
            return ending, said.kept()
        finally:
            os.close(reader)
            os.close(writer)

    async def close(self) -> None:
        """As ProgramRunner.close."""
        host, self._host = self._host, None
        if host is not None:
            await host.close()


class _Said:
    """What a program writes, read as it comes; the beginning is kept, the rest dropped, so it never waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reader: int) -> None:
        self._loop = loop
        self._reader = reader
        self._kept = bytearray()
        loop.add_reader(reader, self._read)

    def _read(self) -> None:
        # At its end it is not: we hold the writing end too.
        with contextlib.suppress(BlockingIOError):
            octets = os.read(self._reader, _READ_BYTES)
            self._kept += octets[: SAID_BYTES - len(self._kept)]

    def kept(self) -> bytes:
        """The first SAID_BYTES of it, what is in the pipe now included; after close()."""
        self._read()
        return bytes(self._kept)

    def close(self) -> None:
        """Read no more on the loop."""
        self._loop.remove_reader(self._reader)
