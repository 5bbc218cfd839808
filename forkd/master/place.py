"""Where is one process at a time, and what is said of it? In the log, and to whoever started us.

A place is a role's row, a slot of the pool, and a way to start a process there.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable

from forkd import log
from forkd.exits import EXITS, Exit
from forkd.master.child import Child, Failed
from forkd.master.errors import StartError
from forkd.master.output import Output
from forkd.master.pool import Slot
from forkd.master.roles import Role
from forkd.rpc.messages_pool import Heartbeat


def _nothing() -> None:
    """Nobody wants to know."""


@dataclasses.dataclass(slots=True, eq=False)
class Place:
    """Where one process at a time is. `start` makes it, and raises OSError when it cannot.

    generation  of the configuration that its processes are given
    on_end      called with each death of what is here
    on_gone     called once, when the place has vanished from the roster
    """

    role: Role
    slot: Slot
    start: Callable[[], Child]
    child: Child | None = None
    said: Heartbeat | None = None
    failed: Failed | None = None
    output: Output | None = None
    refused: str = ""
    """Why no process could be made the last time: said once, not at each try."""
    generation: int = 1
    on_end: Callable[[], None] = _nothing
    on_gone: Callable[[], None] = _nothing

    @property
    def shown(self) -> str:
        """Who it is, for people: `plugin 'filter'`, `worker 0`."""
        slot = self.slot
        return f"plugin {slot.name!r}" if slot.name else f"{slot.role} {slot.number}"

    def kill(self, why: str, *, level: str = "error") -> None:
        """End what is there now; `why` stays unless it had said something itself."""
        self.slot.killed = True
        if self.child is not None:
            self.child.kill()
        if self.failed is None:
            self.failed = Failed(why)
        self.log("killed", reason=why, level=level)

    def log(
        self,
        act: log.ProcessAct,
        *,
        pid: int = 0,
        status: str = "",
        reason: str = "",
        after_s: float = 0.0,
        level: str = "info",
    ) -> None:
        """One line about it (log.process); pid: when it is not there any more."""
        slot = self.slot
        log.process(
            act=act,
            role=slot.role,
            slot=slot.number,
            name=slot.name,
            pid=pid or slot.pid,
            status=status,
            reason=reason,
            after_s=after_s,
            level=level,
        )

    def ended(self, wait_status: int, now: float, *, served: bool) -> str:
        """What was here is dead: why, as far as that is known; kept for whoever asks."""
        why = (
            self.failed.text
            if self.failed
            else ""
            if served
            else f"before it was ready{_meaning(wait_status)}"
        )
        status = describe(wait_status)
        self.slot.last_end = f"{status}: {why}" if why else status
        self.slot.last_end_at = now
        return why

    def start_failure(self, wait_status: int) -> StartError:
        """Why the service does not start: this place's process ended before all were ready."""
        failed = self.failed or Failed(f"it ended with {describe(wait_status)} before it was ready")
        text = f"{self.shown} did not start: {failed.text}"
        if self.role.starter == "zygote":
            return StartError(Exit.PLUGIN, text, failed.detail)
        exited = os.WIFEXITED(wait_status) and os.WEXITSTATUS(wait_status)
        known = exited in {int(each) for each in Exit} and exited != Exit.OK
        return StartError(Exit(exited) if known else Exit.BUG, text, failed.detail)


def _meaning(wait_status: int) -> str:
    """What that status says (exits.py), where it says more than that something went wrong."""
    status = os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else Exit.OK
    told = status in set(EXITS) - {Exit.OK, Exit.FAILED}
    return f"; {EXITS[Exit(status)].meaning}" if told else ""


def describe(wait_status: int) -> str:
    """A wait status in words: `exit 1`, `SIGKILL`, `SIGSEGV (core dumped)`."""
    if os.WIFEXITED(wait_status):
        return f"exit {os.WEXITSTATUS(wait_status)}"
    number = os.WTERMSIG(wait_status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"{name} (core dumped)" if os.WCOREDUMP(wait_status) else name
