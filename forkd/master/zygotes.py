"""Where does a plugin's process come from, again and again? One listening socket, and what is exec'd on it.

And which zygotes are there beside the plugins': that of [auth] checkpassword.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from forkd.exits import Exit
from forkd.master import signals
from forkd.master.child import Child
from forkd.master.errors import StartError
from forkd.master.ground_paths import free_path, shut
from forkd.master.plugin_loaded import Loaded
from forkd.master.plugin_replaced import InUse
from forkd.master.runtime import Runtime
from forkd.master.zygote_child import ZygoteChild
from forkd.probe import configured
from forkd.rpc import places
from forkd.sandbox import executables, launch
from forkd.sandbox import policy as policies


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
