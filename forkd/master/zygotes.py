"""How does a zygote look to the supervisor? Like any child: the words of sandbox/launch.py, translated.

And which zygotes are there beside the plugins': that of [auth] checkpassword.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from forkd.exits import Exit
from forkd.master import signals
from forkd.master.child import Child, Failed, Said
from forkd.master.errors import StartError
from forkd.master.runtime import Runtime
from forkd.rpc.channel import BadRecord
from forkd.rpc.messages import Ready
from forkd.sandbox import launch
from forkd.sandbox import policy as policies


@dataclasses.dataclass(slots=True, eq=False)
class ZygoteChild(Child):
    """A zygote; `channel` is its control socket: closing it is the order to end, nothing else is told."""

    process: launch.ZygoteProcess | None = None
    layers: Sequence[str] = ()

    def hear(self, now: float) -> tuple[list[Said], bool]:  # noqa: ARG002
        """As Child.hear(). Ready is believed only after a look from outside."""
        said: list[Said] = []
        while self.process is not None and self.channel is not None:
            try:
                message = launch.read_control(self.process)
            except EOFError:
                return said, True
            except launch.LaunchError as error:
                raise BadRecord(str(error)) from error
            if message is None:
                return said, False
            if isinstance(message, launch.Failed) and message.phase == "settings":
                said.append(Failed(_one_line(message.error)))
            elif isinstance(message, launch.Failed):
                last = message.error.strip().rpartition("\n")[2]
                said.append(Failed(f"{message.phase} failed: {last}", message.error))
            elif problems := launch.verify(self.pid, layers=self.layers):
                said.append(Failed(f"its walls are not as they should be: {'; '.join(problems)}"))
            else:
                said.append(Ready())
        return said, True

    def stop(self, limit_s: float | None) -> None:  # noqa: ARG002
        """It ends at once; its sandboxes end with their workers' leashes, and those are gone by now."""
        if self.channel is not None:
            self.channel.close()
            self.channel = None


def _one_line(text: str) -> str:
    """A text of several lines as a log line has it."""
    return "; ".join(text.strip().splitlines()).replace(":; ", ": ")


class Zygote:
    """One plugin's place: makes its process, again and again, on one listening socket."""

    def __init__(self, spec: launch.ZygoteSpec, runtime: Runtime) -> None:
        self.spec = spec
        self.listener = runtime.listen_plugin(spec.name)

    def start(self) -> Child:
        """Exec a zygote. Raises OSError."""
        with signals.held_back():
            try:
                process = launch.launch(self.spec, listener=self.listener)
            except launch.LaunchError as error:
                raise OSError(str(error)) from error
        return ZygoteChild(process.pid, process.control, process.output, process, self.spec.layers)


def own_ids(spec: launch.ZygoteSpec, uid: int) -> launch.ZygoteSpec:
    """The specification with a uid (and a gid of the same number) of its own.

    Raises StartError where that uid could not read the interpreter or the plugin.
    """
    with_ids = dataclasses.replace(spec, uid=uid, gid=uid)
    if missing := launch.unreachable([Path(spec.python), *spec.paths()], uid=uid, gid=uid):
        raise StartError(
            Exit.UNCONFINED,
            f"plugin {spec.name!r} cannot run as a user of its own (uid {uid}): it cannot read {missing[0]}; "
            f"install forkd and the plugin where every user may read (/opt, /usr/local)",
        )
    return with_ids


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
