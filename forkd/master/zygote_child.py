"""How does a zygote look to the supervisor? Like any child: the words of sandbox/launch.py, translated."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from forkd import log
from forkd.master.child import Child, Failed, Said
from forkd.master.plugin_loaded import Loaded
from forkd.master.plugin_replaced import BEATS, InUse
from forkd.rpc.channel import BadRecord
from forkd.rpc.messages import Ready
from forkd.rpc.messages_pool import Heartbeat
from forkd.sandbox import launch

ASKS = 10
"""Questions whether its loop goes round, in the time that it may stand still: as for the beats of a role."""

_WALLS = {
    "rlimits": "rlimits",
    "no_new_privs": "no_new_privs",
    "non_dumpable": "non_dumpable",
    "landlock": "files",
    "network": "network",
    "signals": "signals",
    "seccomp": "seccomp",
}
"""Row of the self-test -> what a zygote calls that wall when it is ready."""


@dataclasses.dataclass(slots=True, eq=False)
class ZygoteChild(Child):
    """A zygote; `channel` is its control socket: closing it is the order to end, nothing else is told."""

    process: launch.ZygoteProcess | None = None
    layers: Sequence[str] = ()
    files: Loaded | None = None
    python: str = ""
    """The interpreter, where it is one of the plugin's own."""
    shown: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the self-test found (walls.self_test); it is to have no less."""
    heard: bool = False
    namespaced: bool = True
    sees_all: bool = False
    """The admin granted it "/": it gets no mount root."""
    name: str = ""
    counted: bool = False
    """Its processes are sandboxes that workers hold, and are counted (census.py)."""
    patience_s: float = 10.0
    """How long its loop may stand still."""
    asked: int = 0
    """Number of the last question whether it does not."""
    unanswered: int = 0
    """How often it was due since the last answer."""
    ask_at: float = 0.0
    in_use: InUse | None = None
    """Files that its sessions need as they are."""
    look_at: float = 0.0
    """When those are looked at again."""

    def hear(self, now: float) -> tuple[list[Said], bool]:
        """As Child.hear(). Ready is believed only after a look from outside."""
        said: list[Said] = []
        if self.process is not None and self.channel is not None:
            try:
                message = launch.read_control(self.process)
            except EOFError:
                if self.python and not self.heard:
                    text = f"{self.python} said nothing to forkd: is it a Python of version 3.11 or newer?"
                    said.append(Failed(text))
                return said, True
            except launch.LaunchError as error:
                raise BadRecord(str(error)) from error
            if message is None:
                return said, False
            if isinstance(message, launch.Alive):
                if message.n != self.asked or not self.unanswered:
                    raise BadRecord("it answers what it was not asked")
                self.unanswered = 0
                return said, False
            if self.heard:
                raise BadRecord("it speaks again after it has said how its start went")
            self.heard = True
            if isinstance(message, launch.Failed) and message.phase == "settings":
                said.append(Failed(_one_line(message.error)))
            elif isinstance(message, launch.Failed):
                last = message.error.strip().rpartition("\n")[2]
                said.append(Failed(f"{message.phase} failed: {last}", message.error))
            elif problems := [*self._look(self.process), *self._lacking(self.process, message)]:
                said.append(Failed(f"its walls are not as they should be: {'; '.join(problems)}"))
            elif self.files is not None and (changed := self.files.changed()):
                said.append(Failed(changed))
            else:
                if self.files is not None:
                    self.files.told()
                    said.append(Heartbeat(info=self.files.shown()))
                said.append(Ready())
                self.ask(now)
            return said, False  # once, and when it is asked: whoever sends for ever does not hold us
        return said, True

    def ask(self, now: float) -> str:
        """Ask whether its loop goes round; why it must end, where it does not any more.

        Due at ask_at. One question is under way at a time. What counts is how often it was due, not the
        time: that can have gone by while we ourselves were held up, or everything was.
        """
        self.ask_at = now + self.patience_s / ASKS
        if self.in_use is not None and now >= self.look_at:
            self.look_at = now + self.patience_s * BEATS
            if changed := self.in_use.look():
                self._tell("changed", changed, level="warning")
        if self.unanswered >= ASKS:
            return f"its loop stands still: no answer for {self.patience_s:g} s"
        if not self.unanswered and self.process is not None:
            self.asked += 1
            launch.ask(self.process, self.asked)
        self.unanswered += 1
        return ""

    def _look(self, process: launch.ZygoteProcess) -> Sequence[str]:
        """What is wrong with its walls. What we may not look at is told once, at each start."""
        seen = launch.look(process, layers=self.layers)
        if seen.unverified:
            reason = f"cannot be seen from outside: {', '.join(seen.unverified)}"
            self._tell("unverified", reason, level="debug" if os.geteuid() else "info")
        return seen.problems

    def _tell(self, act: log.ProcessAct, reason: str, *, level: str) -> None:
        log.process(act=act, role="zygote", name=self.name, pid=self.pid, reason=reason, level=level)

    def _lacking(self, process: launch.ZygoteProcess, ready: launch.Ready) -> list[str]:
        """Which walls the self-test had here, and this zygote has not."""
        enforced = [layer for layer, result in self.shown.items() if result == "enforced"]
        lacking = [
            f"{layer} is {ready.layers.get(wall, 'unknown')}"
            for layer in enforced
            if (wall := _WALLS.get(layer)) and wall in self.layers and ready.layers.get(wall) != "on"
        ]
        if "namespaces" in enforced and self.namespaced:
            lacking += [f"it has no {name} namespace of its own" for name in process.shared]
            if not process.mount_root and not self.sees_all:
                lacking.append("it has no mount root of its own")
        return lacking

    def kill(self) -> None:
        """SIGKILL to it and to everything that it has forked, in its sandboxes or beside them."""
        if self.process is not None and not self.reaped:
            launch.end_all(self.process)
        elif self.process is not None:
            launch.end_rest(self.process)

    def stop(self, limit_s: float | None, *, gently: bool = False) -> bool:  # noqa: ARG002
        """It has nothing to finish: the workers, and with them its sandboxes' sessions, are gone by now."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        self.kill()
        return True

    def close(self) -> None:
        """Give up channel, output, and what was put around it."""
        if self.process is not None:
            self.process.close()
            self.process, self.channel, self.output = None, None, -1


def _one_line(text: str) -> str:
    """A text of several lines as a log line has it."""
    return "; ".join(text.strip().splitlines()).replace(":; ", ": ")
