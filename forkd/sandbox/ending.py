"""How does a zygote end with everything it has forked, at once? By the surest way there is.

    its PID namespace   the kernel kills all of it with its first process
    its cgroup          cgroup.kill: whoever is in it, and whoever is forked meanwhile
    its process group   one kill(2): nobody forks between two of its steps, so no chain of processes that
                        end and leave a successor outruns it; setpgid and setsid are refused in there
    /proc               programs, which have groups of their own: its session and, where it has one of its
                        own, its uid, looked for and killed until nobody is left

Only for a zygote whose sandboxes do not end with their leashes: in good order it ends by its control socket.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Protocol

from forkd.sandbox import cgroups, processes

_ENOUGH_S = 0.1
"""For /proc."""


class Endable(Protocol):
    """What is read of a launch.ZygoteProcess."""

    @property
    def pid(self) -> int: ...
    @property
    def namespaces(self) -> tuple[str, ...]: ...
    @property
    def cgroup(self) -> Path | None: ...
    @property
    def uid(self) -> int | None: ...


def end_all(process: Endable) -> None:
    """SIGKILL to the zygote and everything that came of it; the caller reaps the zygote. Never raises.

    Blocks for less than a millisecond with a PID namespace or a cgroup, else for some, 100 at most.
    Before the zygote is reaped: afterwards its pid may be another's.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, signal.SIGKILL)
    if "pid" in process.namespaces:
        return
    if process.cgroup is not None and cgroups.kill(process.cgroup):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    until = time.monotonic() + _ENOUGH_S
    with contextlib.suppress(OSError):  # no descriptor is left to look with
        while time.monotonic() < until:
            if process.cgroup is not None:
                cgroups.signal_all(process.cgroup)
            found = members(process)
            if not found:
                return
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)


def end_rest(process: Endable) -> None:
    """The same when the zygote is reaped, as far as it goes without its pid. Never raises.

    A PID namespace has ended with it; a cgroup is known by its folder. What else there is, master's census
    of its session finds.
    """
    if process.cgroup is not None and not cgroups.kill(process.cgroup):
        cgroups.signal_all(process.cgroup)


def members(process: Endable) -> list[int]:
    """Its living processes, itself among them: by session and, where it has one of its own, by uid.

    Raises OSError.
    """
    uid = process.uid
    return [
        seen.pid
        for seen in processes.look()
        if not seen.dead
        and (seen.session == process.pid or (uid is not None and processes.owner(seen.pid)[0] == uid))
    ]
