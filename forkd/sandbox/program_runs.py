"""What does a worker hold of a program that runs? Its leash, its output, and who waits for its end.

Each run has a process group of its own, ended by its leash at the latest. The zygote that forks for it holds
no code of a plugin: so the exit status it reports may be relied on. What the program itself may do:
program.py, profiles.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import itertools
import os
import select
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sandbox import wire
from forkd.sandbox.link import Link
from forkd.sandbox.wire import Death

if TYPE_CHECKING:
    from forkd.sandbox.host import Host


@dataclasses.dataclass(slots=True)
class Run:
    """One run of a program.

    leash    our end; closed, the kernel kills the program and what it started.
    theirs   the program's end of it, which it arms before it starts.
    printed  what it prints: to descriptor 2, and to 1 where that was not given.
    ended    how it ended, as its zygote says; CallFailed("unavailable") where nobody will say.
    """

    leash: int
    theirs: int
    printed: int
    ended: asyncio.Future[Death]

    def late(self, timeout_s: float) -> CallFailed:
        """It has not ended in its `timeout_s`: whose fault is that? Before close().

        No program can feign that it was never started: the leash is armed before there is one, and it cannot
        disarm it.
        """
        if fcntl.fcntl(self.theirs, fcntl.F_GETFL) & os.O_ASYNC:
            return CallFailed("deadline", f"no end within {timeout_s:g} s")
        return CallFailed("unavailable", f"its zygote started no program within {timeout_s:g} s")

    def let_go(self) -> None:
        """Kill whatever of it lives. What it printed can still be read. Idempotent."""
        if self.leash >= 0:
            os.close(self.leash)
            self.leash = -1

    def close(self) -> None:
        """Kill it, and forget what it printed. Idempotent."""
        self.let_go()
        if self.printed >= 0:
            os.close(self.printed)
            os.close(self.theirs)
            self.printed = self.theirs = -1


class Runs:
    """The runs of one zygote's program in this worker."""

    def __init__(self, host: Host, socket_path: str) -> None:
        self.host = host
        self._link = Link(socket_path)
        self._registered = -1
        self._ids = itertools.count(1)
        self._runs: dict[int, Run] = {}

    def start(
        self, fds: Mapping[int, int], *, environment: bytes, arguments: Sequence[str] | None = None
    ) -> Run:
        """Have the program started; its descriptor -> ours, which stay open, and the caller's.

        environment  entries NAME=value, each with a NUL behind it; beyond PATH and LC_ALL it has no other.
        arguments    in the place of those it was configured with.
        Raises       CallFailed("unavailable"), Overloaded.
        """
        host = self.host
        id_ = next(self._ids) & 0xFFFF_FFFF
        own: list[int] = []
        theirs: list[int] = []
        try:
            try:
                _pipe(theirs, own, os.O_CLOEXEC)
                # Nobody may open it again for writing through /proc: then it would never hang up.
                os.fchmod(theirs[0], 0)
                own.append(os.dup(theirs[0]))
                _pipe(own, theirs, os.O_CLOEXEC | os.O_NONBLOCK)
                theirs.append(os.memfd_create("environment", os.MFD_CLOEXEC))
                _write(theirs[2], environment + (b"" if arguments is None else _packed(arguments)))
            except OSError as error:
                raise Overloaded(f"nothing to start it with: {error.strerror}") from error
            try:
                self._send(wire.pack_run(wire.Run(id_, tuple(fds))), (*theirs, *fds.values()))
            except OSError as error:
                raise CallFailed("unavailable", f"it could not be started: {error.strerror}") from error
        except BaseException:
            for fd in own:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        run = self._runs[id_] = Run(own[0], own[1], own[2], host.loop.create_future())
        # Who has given it up does not look at how it ended.
        run.ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return run

    def _send(self, record: bytes, descriptors: tuple[int, ...]) -> None:
        try:
            sent = self._link.send(record, descriptors)
        except OSError:
            # The connection was a dead zygote's: once more, with its successor.
            self.disconnect()
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
            self.disconnect()
            return
        for death in deaths:
            run = self._runs.pop(death.id, None)
            if run is None or run.ended.done():
                continue
            if death.pid:
                run.ended.set_result(death)
            else:
                run.ended.set_exception(CallFailed("unavailable", "the zygote could not fork"))

    def disconnect(self) -> None:
        """The zygote is dead: how its programs end nobody will know, so they are ended."""
        if self._registered >= 0:
            self.host.forget(self._registered)
            self._registered = -1
        self._end("zygote ended", "its zygote is gone, and nobody says how the program ended")
        self._link.drop()

    def close(self) -> None:
        """The worker stops: end all runs."""
        self._end("unavailable", "the worker stops")

    def _end(self, cause: str, detail: str) -> None:
        runs, self._runs = self._runs, {}
        for run in runs.values():
            run.let_go()
            if not run.ended.done():
                run.ended.set_exception(CallFailed(cause, detail))


def pack_environment(variables: Mapping[str, str]) -> bytes:
    """As start() takes it. A NUL, which would end an entry and begin another, becomes a question mark."""
    entries = (f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in variables.items())
    return b"".join(entry.replace(b"\0", b"?") + b"\0" for entry in entries)


def _packed(arguments: Sequence[str]) -> bytes:
    """As they stand behind the environment (wire.unpack_environment)."""
    words = (word.encode("utf-8", "surrogateescape").replace(b"\0", b"?") for word in arguments)
    return b"\0" + b"".join(word + b"\0" for word in words)


def _pipe(reader: list[int], writer: list[int], flags: int) -> None:
    """Both ends of a new pipe, noted."""
    read_end, write_end = os.pipe2(flags)
    reader.append(read_end)
    writer.append(write_end)


def _write(fd: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(fd, view) :]
