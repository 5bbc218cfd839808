"""How does a worker get, call and kill sandboxes? The worker's handle on all its plugins.

The worker makes a sandbox's three descriptors itself: the channel (SEQPACKET, one call in flight), the
leash (closing it kills) and the output pipe. It uses the channel at once: the first frame waits in the
socket while the zygote still forks, so taking a sandbox never waits.

held.py is one sandbox, deaths.py its end, kennel.py the sandboxes of one plugin, turns.py and shares.py who
gets them when they do not suffice, brokering.py the way to the broker. program_plugin.py asks a program as
such a plugin is asked, programs.py runs one that is none.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from forkd import log
from forkd.sandbox.brokering import Brokering
from forkd.sandbox.held import Sandbox
from forkd.sandbox.kennel import HostPlugin, Kennel
from forkd.sandbox.named import Named
from forkd.sandbox.program_plugin import Filter, Filters, HostFilter
from forkd.sandbox.programs import HostProgram, Program
from forkd.sandbox.report import Report
from forkd.sandbox.shares import Standing

__all__ = ["Filter", "Host", "HostFilter", "HostPlugin", "HostProgram", "Reader", "Sandbox"]

SURVIVOR_S = 1.0
"""A process not dead so long after its leash was dropped: its zygote is not to be trusted."""
HOUSEKEEPING_S = 0.5

_PEEK = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)


class Reader(Protocol):
    """Whoever wants to hear of a descriptor in Host.epoll."""

    def ready(self, events: int, /) -> None:
        """It can be read, or written."""
        ...


class Host:
    """All plugins' sandboxes of one worker.

    on_report   told of every dead sandbox (a claim of its zygote); default: a debug line in the log.
    on_output   told plugin, session, pid, escaped text and dropped bytes; default: a warning in the log.
    on_blame    told plugin, pid and reason when a sandbox outlived its leash; master ends that zygote.
    programs    what run_program() can run.
    broker      path of the broker's socket, for plugins with such capabilities.
    overload_wait_s  how long take() waits for room (sandbox.overload_wait).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plugins: Iterable[HostPlugin | HostFilter],
        *,
        on_report: Callable[[Report], None] | None = None,
        on_output: Callable[[str, str, int, str, int], None] | None = None,
        on_blame: Callable[[str, int, str], None] | None = None,
        programs: Iterable[HostProgram] = (),
        broker: str = "",
        overload_wait_s: float = 1.0,
    ) -> None:
        self.loop = loop
        self.overload_wait_s = overload_wait_s
        self.standing = Standing()
        self.brokering = Brokering(loop, broker)
        self.named = Named()
        """Names of refused system calls; master tells them where it may."""
        self.asking: set[str] = set()
        """Sessions that wait for a sandbox: not to be asked for another one meanwhile."""
        self.on_report = on_report or _log_report
        self.on_output = on_output or _log_output
        self._on_blame = on_blame
        # One epoll for all channels, itself one reader of the loop: adding a channel costs 1 us, not 3.
        self.epoll = select.epoll()
        self.readers: dict[int, Reader] = {}
        self._dying: deque[tuple[float, int, int, str]] = deque()
        """Time to be dead by, pidfd, pid, plugin."""
        self._kennels: dict[str, Kennel] = {}
        self._filters: dict[str, Filters] = {}
        for plugin in plugins:
            if isinstance(plugin, HostFilter):
                self._filters[plugin.name] = Filters(self, plugin)
            else:
                self._kennels[plugin.name] = Kennel(self, plugin)
        self._programs = {program.name: Program(self, program) for program in programs}
        loop.add_reader(self.epoll.fileno(), self._ready)
        self._timer = loop.call_later(HOUSEKEEPING_S, self._housekeeping)

    async def take(
        self,
        plugin: str,
        session_id: str,
        *,
        network: str = "",
        evict: Callable[[], bool] | None = None,
        in_mail: Callable[[], bool] | None = None,
    ) -> Sandbox | Filter:
        """A sandbox of `plugin` for one session: fresh, or used by fewer than limits.reuse sessions before.

        network   the client's, for its share of the plugin's sandboxes (an eighth); "" has no share: clients
                  that the admin trusts.
        evict     asked, when others wait and this session has had no call in flight for half a second, to
                  end the session: True: it will, and close() its sandboxes soon; False: not now. Must not
                  raise. None: never asked.
        in_mail   is this session between MAIL and the end of data? Such ones are asked last.
        Costs     about 20 microseconds with a spare at hand and 40 without; waits for nothing while there
                  is room, else up to overload_wait_s. The session must release() or close() it.
        Raises    Overloaded when there was no room in time: 451 4.3.2. A zygote that cannot be reached shows
                  at the first call: CallFailed("unavailable").
        """
        kennel = self._kennels.get(plugin) or self._filters[plugin]
        return await kennel.take(session_id, network=network, evict=evict, in_mail=in_mail)

    async def run_program(
        self,
        plugin: str,
        *,
        fds: Mapping[int, int],
        timeout_s: float,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] | None = None,
    ) -> int:
        """Run a program plugin once, in a sandbox of its own; its exit status as waitpid(2) gives it.

        fds          its descriptor -> ours, e.g. {3: pipe}; ours stay open, and the caller's. 0 is /dev/null
                     where not given, 1 and 2 go to the log. At most MAX_PROGRAM_FDS, numbers below 32.
        timeout_s    for all of it; then it and every process it started is killed.
        environment  added to PATH and LC_ALL, which is all it has otherwise.
        arguments    what it is told; None: what it was configured with.
        Raises       CallFailed: "deadline", or "unavailable": it could not be started or its end is not
                     known. Overloaded: as many as may run, did so for all that time. Cancelled: killed.
        """
        return await self._programs[plugin].run(
            fds, timeout_s=timeout_s, environment=environment or {}, arguments=arguments
        )

    def alive(self, plugin: str) -> int:
        """Sandboxes of `plugin` that this worker holds, spares included."""
        return (self._kennels.get(plugin) or self._filters[plugin]).alive

    def held(self) -> dict[str, tuple[int, int]]:
        """Plugin -> sandboxes held since the last call: the fewest, the most. For master, who counts them."""
        return {name: kennel.held() for name, kennel in self._kennels.items()}

    def spares(self) -> dict[str, tuple[int, int]]:
        """Plugin -> spare sandboxes, and sessions that wait for one, now."""
        return {name: kennel.spare_now() for name, kennel in self._kennels.items()}

    async def close(self) -> None:
        """Let go of every sandbox; waits until the kernel has ended them, SURVIVOR_S at most."""
        self._timer.cancel()
        for kennel in self._kennels.values():
            kennel.close()
        programs: list[Program | Filters] = [*self._programs.values(), *self._filters.values()]
        for program in programs:
            program.close()
        until = time.monotonic() + SURVIVOR_S
        while self._dying and time.monotonic() < until:
            self._bury()
            if self._dying:
                await asyncio.sleep(0.005)
        for _, pidfd, _, _ in self._dying:
            os.close(pidfd)
        self._dying.clear()
        self.loop.remove_reader(self.epoll.fileno())
        for kennel in self._kennels.values():
            kennel.disconnect()
        for program in programs:
            program.disconnect()
        self.brokering.close()
        self.epoll.close()

    def _ready(self) -> None:
        for fd, events in self.epoll.poll(0):
            reader = self.readers.get(fd)
            if reader is not None:
                reader.ready(events)

    def forget(self, fd: int) -> None:
        if self.readers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def watch_death(self, sandbox: Sandbox) -> None:
        """Before the leash is dropped: hold the process by pidfd, so that its death can be seen.

        The pid came from the kernel, but may be another process' by now. Only while the channel's other end
        is open is it the sandbox's: nobody else holds that end.
        """
        try:
            pidfd = os.pidfd_open(sandbox.pid)
        except OSError:
            return
        try:
            sandbox.channel.recv(1, _PEEK)
        except BlockingIOError:
            self._dying.append((time.monotonic() + SURVIVOR_S, pidfd, sandbox.pid, sandbox.plugin))
            return
        except OSError:
            pass
        os.close(pidfd)

    def _bury(self) -> None:
        """Forget the dead among the dying; blame the zygote of one that is overdue."""
        if not self._dying:
            return
        poll = select.poll()
        for _, pidfd, _, _ in self._dying:
            poll.register(pidfd, select.POLLIN)
        dead = {pidfd for pidfd, _ in poll.poll(0)}
        now = time.monotonic()
        waiting: deque[tuple[float, int, int, str]] = deque()
        for entry in self._dying:
            by, pidfd, pid, plugin = entry
            if pidfd not in dead and now < by:
                waiting.append(entry)
                continue
            os.close(pidfd)
            if pidfd not in dead and self._on_blame is not None:
                self._on_blame(plugin, pid, f"pid {pid} lived {SURVIVOR_S:g} s after its leash was dropped")
        self._dying = waiting

    def _housekeeping(self) -> None:
        self._bury()
        now = time.monotonic()
        for kennel in self._kennels.values():
            kennel.adapt(now)
        self._timer = self.loop.call_later(HOUSEKEEPING_S, self._housekeeping)


def _log_report(dead: Report) -> None:
    log.sandbox_end(
        plugin=dead.plugin,
        pid=dead.pid,
        claimed_pid=0 if dead.pid else dead.claimed_pid,
        status=dead.status,
        session=dead.session,
        user_ms=dead.user_s * 1000,
        system_ms=dead.system_s * 1000,
        memory_kib=dead.memory >> 10,
    )


def _log_output(plugin: str, session: str, pid: int, text: str, dropped: int) -> None:
    log.plugin_output(plugin=plugin, session=session, pid=pid, text=text, dropped=dropped)
