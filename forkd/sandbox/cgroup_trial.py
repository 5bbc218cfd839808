"""Do the limits of a cgroup hold on this machine? Tried by a throw-away process in one of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from forkd.sandbox import cgroups
from forkd.sandbox.finding import ABSENT, ENFORCED, FAILED, Finding

_MOST_PROCESSES, _MOST_MEMORY = 4, 64 << 20
_TOO_MUCH = 2 * _MOST_MEMORY
_PIDS_FAILED, _MEMORY_FAILED = 1, 2
_NOT_TRIED = 4
_GONE_S = 2.0
_ONLY_KILL = "no pids and no memory controller delegated; cgroup.kill is used where there is no PID namespace"


def examine() -> Finding:
    """The row `cgroup`. Blocks for some 50 ms where there are controllers."""
    try:
        home = cgroups.home()
        if len(home.lacking) == len(cgroups.CONTROLLERS):
            return Finding("cgroup", ABSENT, _ONLY_KILL)
        folder = cgroups.make("selftest", {"pids": _MOST_PROCESSES, "memory": _MOST_MEMORY})
    except cgroups.CgroupError as error:
        return Finding("cgroup", ABSENT, str(error))
    try:
        wrong = _try(folder, home.controllers)
    finally:
        cgroups.remove(folder)
    if wrong:
        return Finding("cgroup", FAILED, "; ".join(wrong))
    if home.lacking:
        return Finding("cgroup", ABSENT, f"no {home.lacking[0]} controller delegated; the other is used")
    return Finding("cgroup", ENFORCED)


def _try(folder: Path, controllers: frozenset[str]) -> list[str]:
    pid = os.fork()
    if pid == 0:
        _act(folder, controllers)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    wrong = [] if 0 <= code < _NOT_TRIED else [f"it could not be tried ({code})"]
    if 0 < code < _NOT_TRIED:
        wrong += [f"more than {_MOST_PROCESSES} processes"] if code & _PIDS_FAILED else []
        wrong += [f"more than {_MOST_MEMORY >> 20} MiB"] if code & _MEMORY_FAILED else []
    # What it left forked is ended as a zygote's sandboxes are.
    if not cgroups.kill(folder):
        cgroups.signal_all(folder)
    until = time.monotonic() + _GONE_S
    while cgroups.processes(folder):
        if time.monotonic() > until:
            return [*wrong, "cgroup.kill: processes are left"]
        time.sleep(0.001)
    return wrong


def _act(folder: Path, controllers: frozenset[str]) -> None:
    """In the new process; never returns."""
    code = _NOT_TRIED
    try:
        cgroups.join(folder)
        code = 0
        if "memory" in controllers and not _starves():
            code |= _MEMORY_FAILED
        if "pids" in controllers and not _fork_fails():
            code |= _PIDS_FAILED
    finally:
        os._exit(code)


def _starves() -> bool:
    pid = os.fork()
    if pid == 0:
        bytearray(_TOO_MUCH)[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * (_TOO_MUCH // os.sysconf("SC_PAGE_SIZE"))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _fork_fails() -> bool:
    for _ in range(_MOST_PROCESSES):
        try:
            if os.fork() == 0:
                signal.pause()
        except OSError:
            return True
    return False
