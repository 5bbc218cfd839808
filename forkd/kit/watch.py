"""What did each call cost? A host of sandboxes that looks at them from outside, before and after.

The processor's clock of another process can be read by anybody (clock_gettime of its pid), page faults and
the peak of memory in /proc. The first call of a sandbox has its start in it: the fork, and what the child
does before it reads its first frame.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from forkd.rpc.calls import Answer, CallFailed, Overloaded
from forkd.sandbox.host import Filter, Host, Sandbox
from forkd.sandbox.report import Report

_CPUCLOCK_SCHED: Final = 2
"""clock_gettime(2) of another process: its pid inverted, shifted by three, or'ed with this."""


@dataclasses.dataclass(slots=True)
class Cost:
    """Of one call, or of several: seconds of wall time and processor, page faults; peak memory in bytes."""

    calls: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    faults: int = 0
    memory: int = 0
    started: bool = False
    """The start of the sandbox is in it."""

    def add(self, other: Cost) -> None:
        """Both together."""
        self.calls += other.calls
        self.wall_s += other.wall_s
        self.cpu_s += other.cpu_s
        self.faults += other.faults
        self.memory = max(self.memory, other.memory)
        self.started = self.started or other.started


class WatchedHost:
    """A SandboxHost whose sandboxes tell what their calls cost.

    on_call  told the frame, the cost, and the cause of a failure ("" of none).
    """

    def __init__(self, host: Host, on_call: Callable[[bytes, Cost, str], None]) -> None:
        self._host = host
        self._on_call = on_call

    async def take(
        self,
        plugin: str,
        session_id: str,
        *,
        network: str = "",
        evict: Callable[[], bool] | None = None,
        in_mail: Callable[[], bool] | None = None,
    ) -> WatchedSandbox:
        """As Host.take()."""
        sandbox = await self._host.take(plugin, session_id, network=network, evict=evict, in_mail=in_mail)
        return WatchedSandbox(sandbox, self._on_call)


class WatchedSandbox:
    """One of them."""

    def __init__(self, sandbox: Sandbox | Filter, on_call: Callable[[bytes, Cost, str], None]) -> None:
        self._sandbox = sandbox
        self._on_call = on_call
        self._cpu_s = 0.0
        self._faults = 0

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        """As Sandbox.call()."""
        started = time.perf_counter()
        failure = ""
        try:
            return await self._sandbox.call(frame, n, timeout_s=timeout_s, message_fd=message_fd)
        except CallFailed as why:
            failure = why.cause
            raise
        except Overloaded:
            failure = "overload"
            raise
        finally:
            wall_s = time.perf_counter() - started
            cost = Cost(calls=1, wall_s=wall_s, started=n == 1)
            pid = self._sandbox.pid
            if pid and not failure:
                cpu_s, faults = processor_s(pid), page_faults(pid)
                cost.cpu_s, self._cpu_s = cpu_s - self._cpu_s, cpu_s
                cost.faults, self._faults = faults - self._faults, faults
                cost.memory = peak_memory(pid)
            self._on_call(frame, cost, failure)

    def hide(self, arguments: bytes) -> None:
        """As Sandbox.hide()."""
        self._sandbox.hide(arguments)

    def release(self) -> None:
        """As Sandbox.release()."""
        self._sandbox.release()

    def close(self) -> None:
        """As Sandbox.close()."""
        self._sandbox.close()

    @property
    def last_output(self) -> str:
        """As Sandbox.last_output."""
        return self._sandbox.last_output

    @property
    def untaken(self) -> bool:
        """As Sandbox.untaken."""
        return self._sandbox.untaken

    async def last_report(self) -> Report | None:
        """As Sandbox.last_report()."""
        return await self._sandbox.last_report()


def processor_s(pid: int) -> float:
    """Processor time of a process so far; 0 for one that is gone."""
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def page_faults(pid: int) -> int:
    """Minor page faults of a process so far; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[7])
    except (OSError, IndexError):
        return 0


def peak_memory(pid: int) -> int:
    """The most it ever had resident, bytes; 0 for one that is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0
