"""What does a dead sandbox's status mean? From a zygote's claim to the cause that a log line names.

Claims: the plugin ran in the zygote first and can forge them. They name causes and fill statistics;
no limit and no decision rests on them.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal

from forkd.sandbox.child import EXIT_ARMING, EXIT_CHANNEL, EXIT_ERROR
from forkd.sandbox.wire import Death

_EXITS = {
    EXIT_ARMING: "a wall could not be raised",
    EXIT_CHANNEL: "its channel broke",
    EXIT_ERROR: "after an error",
}
_CPU_SHARE = 0.9
"""Of its allowance: a SIGKILL that is not ours, with so much used, was the CPU timer's."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One dead sandbox.

    pid      on this host, as the kernel told it with the sandbox's first answer; 0: there was none.
    claimed_pid  what its zygote calls it: in a PID namespace of its own that is another number.
    status   `exit N`, a signal's name, or `never forked`; empty: its zygote is gone, and said nothing. Times
             in seconds, memory in bytes (peak resident).
    ours     the worker had dropped the leash before: SIGKILL is the normal end.
    call     the system call it was killed for, where the kernel's audit told; not a claim.
    cause, detail  of a CallFailed, where the call did not wait for this report; else empty.
    """

    plugin: str
    session: str
    pid: int
    claimed_pid: int = 0
    status: str = ""
    user_s: float = 0.0
    system_s: float = 0.0
    memory: int = 0
    faults: int = 0
    ours: bool = False
    call: str = ""
    cause: str = ""
    detail: str = ""


def report(death: Death, *, plugin: str, session: str, pid: int = 0, ours: bool) -> Report:
    """A claim as a record; `pid` is none."""
    return Report(
        plugin=plugin,
        session=session,
        pid=pid,
        claimed_pid=death.pid,
        status=status_text(death),
        user_s=death.user_us / 1e6,
        system_s=death.system_us / 1e6,
        memory=death.max_rss_kib << 10,
        faults=death.faults,
        ours=ours,
    )


def status_text(death: Death) -> str:
    """`exit 0`, `SIGSEGV`, `never forked`."""
    return _status_text(death.status) if death.pid else "never forked"


@functools.lru_cache(maxsize=256)
def _status_text(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"
    return f"exit {os.waitstatus_to_exitcode(status)}" if os.WIFEXITED(status) else "unknown"


def cause(death: Death, *, cpu_s: float) -> tuple[str, str]:
    """Why a sandbox ended that we had not let go: cause and detail of a CallFailed."""
    status = status_text(death)
    used = f"{death.user_us / 1000 + death.system_us / 1000:.0f} ms CPU, {death.max_rss_kib >> 10} MiB"
    if death.pid == 0:
        return "unavailable", "the zygote could not fork"
    if status == "SIGSYS":
        return "syscall", f"refused system call; {used}"
    if status in ("SIGKILL", "SIGXCPU"):
        if death.user_us + death.system_us >= cpu_s * 1e6 * _CPU_SHARE:
            return "cpu", f"{status} after {used}"
        return "memory", f"{status}, not ours: out of memory? {used}"
    if status.startswith("exit "):
        why = _EXITS.get(os.waitstatus_to_exitcode(death.status), "without an answer")
        return "crash", f"{status} {why}; {used}"
    return "crash", f"{status}; {used}"
