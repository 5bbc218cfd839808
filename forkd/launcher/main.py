"""launcher: starts queue programs for qmgr.

runs as          forkd-launcher where root starts us, else the service's user
holds            the right to exec, no_new_privs not set, no Landlock, no filter: programs inherit those
reads from       qmgr (the name of a transport), programs' exit statuses; never a message, never the network
if taken over    whatever its user may do on this machine, setuid programs included; not the spool, no mail
                 but what it would divert on its way to a queue program
restart rule     respawned with back-off; programs that ran are told by end of file that nothing may be queued
"""

from __future__ import annotations

import dataclasses
import os
import resource
import select
import socket
import time
from functools import partial

from forkd import log
from forkd.config.schema import Config, QmailQueue
from forkd.exits import Exit
from forkd.launcher.spawning import NUMBERS, Command, Process, spawn
from forkd.rpc import channel, passing
from forkd.rpc.messages import Launch, Launched, Ready
from forkd.rpc.messages_pool import Heartbeat, Stop
from forkd.rpc.start import RoleStart

BEAT_S = 1.0
DESCRIPTORS = 4096
"""As its limit: programs inherit it, and old ones close every number up to it one by one."""
SPARE = 16
"""More programs of a transport than qmgr's threads may want at once: killed ones that have not ended yet."""


def commands(config: Config) -> dict[str, Command]:
    """What there is to start, by the name of the transport."""
    return {
        name: Command(table.argv, table.environment, float(table.timeout))
        for name, table in config.transport.items()
        if isinstance(table, QmailQueue)
    }


def main(start: RoleStart) -> int:
    """Run until told to stop or until master is gone; return the exit status."""
    os.chdir("/")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold mail
    loop = Loop(start)
    channel.send(start.master, Ready())
    start.title("running")
    loop.run()
    return Exit.OK


@dataclasses.dataclass(slots=True, eq=False)
class Run:
    """One connection of qmgr's, and the program it asked for.

    client  None: qmgr does not want to know any more
    """

    client: socket.socket | None
    transport: str = ""
    process: Process | None = None
    until: float = 0.0
    """Monotonic; when it is killed."""
    late: bool = False


class Loop:
    """Everything that the launcher waits for, in one poll."""

    def __init__(self, start: RoleStart) -> None:
        self._start = start
        self._commands = commands(start.config)
        self._most = start.config.queue.concurrency + SPARE
        """Of one transport: what one leaves unfinished is no other's trouble."""
        self._listener = start.sockets["launcher"]
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._ready = {start.master.fileno(): self._told, self._listener.fileno(): self._accept}
        for fd in self._ready:
            self._poll.register(fd, select.EPOLLIN)
        self._runs: set[Run] = set()
        self._next_beat = 0.0
        self._stopping = False
        self._counters = {"programs_started": 0, "programs_not_started": 0, "programs_killed": 0}

    def run(self) -> None:
        """Until stopped; what still runs then is killed: qmgr, that would wait for it, has ended before."""
        while not self._stopping:
            timeout_s = self._turn(time.monotonic())
            for fd, _ in self._poll.poll(timeout_s):
                act = self._ready.get(fd)
                if act is not None:
                    act()
        for run in tuple(self._runs):
            self._kill(run, "forkd stops")

    def _turn(self, now: float) -> float:
        """What the clock asks for; returns how long nothing is due, seconds."""
        if now >= self._next_beat:
            self._next_beat = now + BEAT_S
            self._poll.modify(self._listener.fileno(), select.EPOLLIN)
            running = sum(run.process is not None for run in self._runs)
            channel.try_send(
                self._start.master, Heartbeat(transactions=running, counters=dict(self._counters))
            )
            self._start.title(f"running {running} programs")
            log.flush()
        due = self._next_beat
        for run in tuple(self._runs):
            if run.process is None or run.late:
                continue
            if now >= run.until:
                run.late = True
                self._kill(run, "its time was over")
            else:
                due = min(due, run.until)
        return max(0.0, due - now)

    def _told(self) -> None:
        told: list[Stop]
        try:
            told, ended = channel.drain(self._start.master, Stop)
        except channel.BadRecord:
            return  # a message for other roles
        self._stopping = bool(told) or ended

    # --- qmgr -----------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return  # gone again
        except OSError as error:
            # No descriptors, say. It would be ready again at once: not before the next beat.
            self._poll.modify(self._listener.fileno(), 0)
            log.program(act="refused", detail=f"a connection: {error.strerror}", level="error")
            return
        client.setblocking(False)
        run = Run(client)
        self._runs.add(run)
        self._watch(client.fileno(), partial(self._asked, run))

    def _asked(self, run: Run) -> None:
        assert run.client is not None
        asked: list[tuple[Launch, list[int]]]
        try:
            asked, ended = passing.drain(run.client, Launch, at_most=2)
        except channel.BadRecord as error:
            log.program(act="refused", detail=str(error), level="error")
            asked, ended = [], True
        for launch, descriptors in asked:
            try:
                if run.transport:
                    ended = True  # one connection, one program
                elif not ended:  # else who asked has gone, perhaps while no launcher was there to hear it
                    self._launch(run, launch.transport, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        if ended and run.client is not None:
            self._hang_up(run)
            if run.process is not None:
                self._kill(run, "qmgr gave it up")
            else:
                self._runs.discard(run)

    def _launch(self, run: Run, transport: str, descriptors: list[int]) -> None:
        run.transport = transport or "?"
        command = self._commands.get(transport)
        if command is None or len(descriptors) != len(NUMBERS):
            self._answer(run, Launched(error="no such transport, or not four descriptors"))
            return
        if sum(other.transport == transport for other in self._runs) > self._most:
            self._answer(run, Launched(error="too many of this transport's programs run already"))
            return
        try:
            run.process = spawn(command, descriptors)
        except OSError as error:
            self._counters["programs_not_started"] += 1
            detail = f"{command.argv[0]}: {os.strerror(error.errno or 0)}"
            log.program(act="not_started", transport=transport, detail=detail, level="error")
            self._answer(run, Launched(error=detail))
            return
        self._counters["programs_started"] += 1
        run.until = time.monotonic() + command.limit_s
        self._watch(run.process.pidfd, partial(self._ended, run))

    def _answer(self, run: Run, answer: Launched) -> None:
        if run.client is not None:
            channel.try_send(run.client, answer)
            self._hang_up(run)
        self._runs.discard(run)

    def _hang_up(self, run: Run) -> None:
        assert run.client is not None
        self._unwatch(run.client.fileno())
        run.client.close()
        run.client = None

    # --- programs -------------------------------------------------------------------------------------

    def _ended(self, run: Run) -> None:
        assert run.process is not None
        pidfd = run.process.pidfd
        status = run.process.reap()
        if status is None:
            return  # the event was of another one, whose descriptor had this number
        del self._ready[pidfd]  # epoll forgot it when it was closed
        self._answer(run, Launched(status=status, late=run.late))

    def _kill(self, run: Run, why: str) -> None:
        if run.process is None:
            return
        self._counters["programs_killed"] += 1
        refused = run.process.kill()
        pid = run.process.pid
        if refused:
            detail = f"{why}, but it cannot be killed: {refused}"
            log.program(act="not_killed", transport=run.transport, pid=pid, detail=detail, level="error")
            # It will be reaped when it ends. What it queues from here on may come twice.
            if run.client is not None:
                channel.try_send(run.client, Launched(late=True))
                self._hang_up(run)
        else:
            log.program(act="killed", transport=run.transport, pid=pid, detail=why, level="warning")

    # --- the poll -------------------------------------------------------------------------------------

    def _watch(self, fd: int, act: partial[None]) -> None:
        self._ready[fd] = act
        self._poll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        del self._ready[fd]
        self._poll.unregister(fd)
