"""How does a zygote look to the supervisor? Like any child: the words of sandbox/launch.py, translated.

And which zygotes are there beside the plugins': that of [auth] checkpassword.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from forkd import log
from forkd.exits import Exit
from forkd.master import signals
from forkd.master.child import Child, Failed, Said
from forkd.master.errors import StartError
from forkd.master.ground_paths import free_path, shut
from forkd.master.plugin_loaded import Loaded
from forkd.master.plugin_replaced import BEATS, InUse
from forkd.master.runtime import Runtime
from forkd.probe import configured
from forkd.rpc import places
from forkd.rpc.channel import BadRecord
from forkd.rpc.messages import Ready
from forkd.rpc.messages_pool import Heartbeat
from forkd.sandbox import executables, launch
from forkd.sandbox import policy as policies

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A zygote as a configuration wants it.

    files   what it may load; None: it loads no plugin
    python  its own interpreter, as the admin named it
    shown   what the self-test found: what is enforced there is required of each process
    patience_s  how long its loop may stand still (server.heartbeat)
    asked_by    whose socket it is: a key of [server]
    """

    spec: launch.ZygoteSpec
    files: Loaded | None = None
    python: str = ""
    shown: Mapping[str, str] = dataclasses.field(default_factory=dict)
    patience_s: float = 10.0
    asked_by: str = "user"


class Zygote:
    """One plugin's place: makes its process, again and again, on one listening socket."""

    def __init__(self, wanted: Wanted, runtime: Runtime) -> None:
        self.spec = wanted.spec
        self.asked_by = wanted.asked_by
        self.shown = wanted.shown
        self.patience_s = wanted.patience_s
        self.files = wanted.files
        self.python = wanted.python
        self.path = free_path(places.plugin_socket(runtime.folder, self.spec.name))
        self.listener = runtime.listen_plugin(self.path, owner=self.asked_by)
        self._used = _used(self.spec)
        self._granted = _granted(self.spec)

    def still(self, fresh: Wanted) -> bool:
        """Is this what a reload wants, so that it may stay? Not where the admin granted the plugin files: it
        may have read them at its start. A program is started anew each time, and reads them then: it stays
        as long as they are the files that its walls leave it."""
        same = (self.spec, self.python, self.patience_s, self.asked_by) == (
            *(fresh.spec, fresh.python, fresh.patience_s, fresh.asked_by),
        )
        read_once = fresh.spec.files and fresh.spec.kind != "program"
        if (
            not same
            or read_once
            or self._granted != _granted(fresh.spec)
            or dict(self.shown) != dict(fresh.shown)
        ):
            return False
        if self.files is None or fresh.files is None:
            return self.files is fresh.files and self._used == _used(fresh.spec)
        read = (self.files.digests, self.files.installed) == (fresh.files.digests, fresh.files.installed)
        return read and self._used == _used(fresh.spec)

    def close(self) -> None:
        """Give the socket up; nobody asks here any more."""
        shut(self.listener, self.path)

    def start(self) -> Child:
        """Exec a zygote. Raises OSError, also when its files are not those forkd started with."""
        if self.files is not None and (changed := self.files.changed()):
            raise OSError(changed)
        with signals.held_back():
            try:
                in_use = InUse.of(self.spec)
                process = launch.launch(self.spec, listener=self.listener)
            except (launch.LaunchError, executables.ExecutableError) as error:
                raise OSError(str(error)) from error
        return ZygoteChild(
            process.pid,
            process.control,
            process.output,
            process=process,
            layers=self.spec.layers,
            files=self.files,
            python=self.python,
            shown=self.shown,
            namespaced=self.spec.namespaces,
            sees_all=any(path.resolve() == Path("/") for path in self.spec.files),
            name=self.spec.name,
            counted=self.spec.kind != "program",
            patience_s=self.patience_s,
            in_use=in_use,
        )


def _used(spec: launch.ZygoteSpec) -> InUse | None:
    """The files that its processes will have leave for; None: that cannot be known now."""
    try:
        return InUse.of(spec)
    except executables.ExecutableError:
        return None


def _granted(spec: launch.ZygoteSpec) -> list[tuple[int, int] | None]:
    """Which files and folders the names of its grants are now; None: none."""
    found: list[tuple[int, int] | None] = []
    for path in (*spec.files, *spec.write):
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def own_ids(spec: launch.ZygoteSpec, uid: int) -> launch.ZygoteSpec:
    """The specification with a uid (and a gid of the same number) of its own.

    Raises StartError where that uid could not read the interpreter or the plugin.
    """
    with_ids = dataclasses.replace(spec, uid=uid, gid=uid)
    if missing := launch.unreachable([Path(spec.python), *spec.paths()], uid=uid, gid=uid):
        remedy = (
            "let every user read it (chmod o+rX, its folders too), or name one who may (uid = N in its entry)"
            if Path(missing[0]) in spec.files
            else "install forkd and the plugin where every user may read (/opt, /usr/local)"
        )
        raise StartError(
            Exit.UNCONFINED,
            f"{named(spec.name)} cannot run as a user of its own (uid {uid}): it cannot read {missing[0]}; "
            f"{remedy}",
        )
    return with_ids


def named(zygote: str) -> str:
    """What an admin calls that zygote."""
    if zygote.startswith(places.PIPE):
        return f"transport.{zygote.removeprefix(places.PIPE)}"
    if zygote == configured.NAME:
        return "the probe's plugin"
    return "auth.checkpassword" if zygote == CHECKPASSWORD else f"plugin {zygote!r}"


CHECKPASSWORD = "@checkpassword"
"""Name of the zygote of [auth] checkpassword; no plugin's name has an @."""
CHECKPASSWORD_UID = 65_535
"""Its uid when root starts us, counted from sandbox.uid_base: behind those of all plugins, and the same
whatever plugins there are, so that an admin can let it read a file (auth.files)."""
CHECKPASSWORD_AT_ONCE = 256
"""Bounds the processes of its uid, over all workers (each runs HostProgram.at_once)."""


class AuthLike(Protocol):
    """What is read of [auth] (forkd.config.schema.Auth)."""

    @property
    def backend(self) -> str: ...
    @property
    def checkpassword(self) -> Sequence[str]: ...
    @property
    def files(self) -> Sequence[Path]: ...


def checkpassword(auth: AuthLike, *, uid_base: int) -> launch.ZygoteSpec | None:
    """How the zygote that starts the checkpassword program is started; None: no such program is configured.

    Raises StartError where this machine has no filters to give, or the program cannot be started as it is.
    """
    if auth.backend != "checkpassword":
        return None
    try:
        spec = launch.ZygoteSpec(
            name=CHECKPASSWORD,
            policy=policies.compile_policy(profile="exec"),
            kind="program",
            argv=tuple(auth.checkpassword),
            files=tuple(auth.files),
            sandboxes=CHECKPASSWORD_AT_ONCE,
        )
        if os.geteuid() == 0:
            uid = uid_base + CHECKPASSWORD_UID
            spec = dataclasses.replace(spec, uid=uid, gid=uid)
        launch.check_program(spec)
    except policies.PolicyError as error:
        raise StartError(Exit.UNCONFINED, str(error)) from error
    except launch.LaunchError as error:
        raise StartError(Exit.CONFIG, f"auth.checkpassword: {error}") from error
    return spec if spec.uid is None else own_ids(spec, spec.uid)
