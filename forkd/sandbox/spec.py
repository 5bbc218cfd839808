"""What is a zygote told? Its plugin, group or program, its limits, and what it may read and run."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from forkd.sandbox import executables, processes
from forkd.sandbox.configured import PluginLike
from forkd.sandbox.confine import LAYERS
from forkd.sandbox.namespaces import WANTED
from forkd.sandbox.policy import Policy

_PACKAGE = Path(__file__).resolve().parent.parent
_ZYGOTE_FILES = 256
"""Descriptors of a zygote: its workers' connections, and three for each fork of one request."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What this machine puts around a zygote (namespaces.py, mounts.py, interpreter.py).

    counted      its processes are counted by themselves: by a uid of its own, or a user namespace.
    interpreter  what the interpreter itself reads.
    """

    namespaces: tuple[str, ...] = ()
    mount_root: bool = False
    counted: bool = False
    interpreter: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A plugin's module: one of a group, or the only one. `hooks` empty: whatever the code has."""

    name: str
    folder: Path
    module: str
    hooks: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What the sandboxes of a zygote of kind indimail load, in this order, and how.

    data_hook   at which data_func is called: data, or message.
    timeout_s   for loading all of them once, before the zygote is ready.
    tell        each answer's log says what every one of them returned (try-so).
    """

    files: tuple[Path, ...]
    symbol: str
    data_hook: str
    environment: Mapping[str, str]
    timeout_s: float
    tell: bool = False

    @classmethod
    def of(cls, plugin: PluginLike) -> Compiled:
        """That of a configured plugin."""
        return cls(
            files=tuple(plugin.code),
            symbol=plugin.symbol,
            data_hook="data" if "data" in plugin.hooks else "message",
            environment=plugin.environment,
            timeout_s=float(plugin.limits.timeout),
        )

    def encoded(self) -> dict[str, Any]:
        """As the zygote takes it."""
        return {
            "files": [str(file) for file in self.files],
            "symbol": self.symbol,
            "data_hook": self.data_hook,
            "environment": dict(self.environment),
            "timeout_s": self.timeout_s,
            **({"tell": True} if self.tell else {}),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteSpec:
    """One zygote: what it loads, what it may use, who it runs as.

    members     what a zygote of kind python loads, in the order in which they are asked.
    argv        what one of kind program starts; policy must be of the profile exec then.
    compiled    what the sandboxes of one of kind indimail load; policy must be of the profile indimail then.
    execute     what a program may start beside itself; None: whatever can be started of argv and files.
    write       folders that it may write; then the profile ends with "writing".
    file_size   octets that a file there may have.
    processes   that it may start, in each run; then the profile is "exec, processes". Like threads they are
                counted together, over all runs.
    memory      bytes of address space above the loaded zygote's, for each sandbox; a program's in all.
    cpu_s       processor seconds of a sandbox, then SIGKILL; with reuse > 1 twice that (Sandbox.release).
    sandboxes   alive at once; 0: 64 per CPU. Bounds the uid's processes where it has one of its own.
    reuse       sessions a sandbox may serve.
    uid, gid    None: as we are.
    python      the interpreter; it needs no forkd.
    broker      what the plugin may ask forkd's broker for (PROTOCOL.md, part 2); None: its sandboxes have no
                channel to it. Who asks for sandboxes must know (HostPlugin.broker).
    libraries   folders of packages that its plugins may import from, behind all else.
    namespaces, cgroup   of its own, as far as this machine and this user allow.
    threads     beside the first, in each sandbox; policy must be one with threads then.
    layers      the walls; less than all of them only in tests of the tests.
    """

    name: str
    policy: Policy
    members: tuple[Member, ...] = ()
    argv: tuple[str, ...] = ()
    execute: tuple[Path, ...] | None = None
    write: tuple[Path, ...] = ()
    file_size: int = 0
    compiled: Compiled | None = None
    processes: int = 0
    reads: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    broker: Mapping[str, Any] | None = None
    libraries: tuple[Path, ...] = ()
    memory: int = 256 << 20
    cpu_s: float = 2.0
    open_files: int = 32
    sandboxes: int = 0
    reuse: int = 1
    uid: int | None = None
    gid: int | None = None
    python: str = dataclasses.field(default_factory=lambda: _real(None))
    kind: Literal["python", "probe", "program", "indimail"] = "python"
    namespaces: bool = True
    cgroup: bool = True
    threads: int = 0
    layers: tuple[str, ...] = LAYERS
    learn: bool = False
    """Refused calls wait for a listener that names them (learn.py); never for mail."""

    @classmethod
    def of(cls, plugin: PluginLike, *, policy: Policy, uid: int | None, gid: int | None) -> ZygoteSpec:
        """The specification of a configured plugin or group."""
        compiled = Compiled.of(plugin) if plugin.kind == "indimail" else None
        return cls(
            name=plugin.name,
            kind=plugin.kind,
            policy=policy,
            compiled=compiled,
            argv=tuple(plugin.argv),
            execute=tuple(plugin.capabilities.exec),
            processes=plugin.capabilities.processes,
            members=()
            if plugin.code
            else tuple(
                Member(
                    name=member.name,
                    folder=member.folder,
                    module=member.module,
                    hooks=tuple(member.hooks),
                    settings=member.settings,
                )
                for member in plugin.members
            ),
            reads=tuple(plugin.reads),
            files=tuple(plugin.files),
            broker=_broker(plugin),
            libraries=tuple(plugin.libraries),
            python=_real(plugin.python),
            memory=int(plugin.limits.memory),
            cpu_s=float(plugin.limits.cpu),
            open_files=plugin.limits.open_files,
            sandboxes=plugin.limits.sandboxes,
            reuse=plugin.limits.reuse,
            threads=plugin.capabilities.threads,
            uid=uid,
            gid=gid,
        )

    def paths(self) -> tuple[Path, ...]:
        """What the zygote must be able to read: plugins' folders, libraries, our packages, granted files."""
        folders = dict.fromkeys(member.folder for member in self.members)
        code = self.compiled.files if self.compiled else ()
        return (
            *folders,
            *code,
            *self.libraries,
            _PACKAGE / "sdk",
            _PACKAGE / "sandbox",
            *self.files,
            *self.write,
        )

    @property
    def at_once(self) -> int:
        """Sandboxes that may be alive at once."""
        return self.sandboxes or 64 * (os.cpu_count() or 1)

    @property
    def most_processes(self) -> int:
        """Of the whole zygote, threads too; each sandbox twice: the dead count until they are reaped."""
        return self.at_once * (2 + self.threads + self.processes) + 8

    def views(self) -> tuple[list[str], list[str], list[str]]:
        """Files and folders that it may read, execute, write. Raises executables.ExecutableError."""
        read = [*self.paths()]
        execute: tuple[Path, ...] = ()
        write: tuple[Path, ...] = ()
        if self.kind == "indimail":
            read += executables.SYSTEM_PATHS  # libraries that a plugin needs
        if self.kind == "program":
            read += executables.SYSTEM_PATHS
            execute, write = self.started(), (*executables.WRITABLE, *self.write)
            if self.execute is not None:
                # Who names a file in a command line wants it read.
                read += [
                    path for word in self.argv[1:] if (path := Path(word)).is_absolute() and path.is_file()
                ]
        return [str(path) for path in read], [str(path) for path in execute], [str(path) for path in write]

    def started(self) -> tuple[Path, ...]:
        """Of a program: every file that must be executable. Raises executables.ExecutableError."""
        if self.execute is None:
            return executables.needed(self.argv, self.files)
        return executables.needed(self.argv[:1], self.execute)

    def _limits(self, around: Around) -> dict[str, int]:
        counted = self.uid is not None or around.counted
        tasks = 0
        if more := self.threads + self.processes:
            # Less than the zygote has: it can fork while one of its sandboxes has taken all the others.
            tasks = self.at_once * (1 + more) + 8 if counted else _tasks_now() + self.most_processes
            hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
            tasks = tasks if hard == resource.RLIM_INFINITY else min(tasks, hard)
        return {
            "memory": self.memory,
            "open_files": self.open_files,
            "zygote_files": _ZYGOTE_FILES,
            "file_size": self.file_size if self.write else 0,
            "processes": self.most_processes if counted else -1,
            "sandbox_processes": tasks,
        }

    def _around(self, around: Around) -> dict[str, str]:
        """Of confine.AROUND, as confine() says it of the others."""
        state = {
            "namespaces": "on" if set(WANTED) <= set(around.namespaces) else "absent",
            "mount_root": "on" if around.mount_root else "absent",
        }
        return {name: word if name in self.layers else "off" for name, word in state.items()}

    def encode(self, around: Around = Around()) -> bytes:
        """As the zygote takes it from SPEC_FD: JSON (PROTOCOL.md, part 2)."""
        # Whoever sees no processes but its own may set their priority: as good as a uid of its own.
        alone = self.uid is not None or "pid" in around.namespaces
        load = self.policy.load_own_uid if alone else self.policy.load
        read, execute, write = self.views()
        return json.dumps(
            {
                "name": self.name,
                "kind": self.kind,
                "members": [
                    {
                        "name": member.name,
                        "folder": str(member.folder),
                        "module": member.module,
                        "hooks": member.hooks,
                        "settings": dict(member.settings),
                    }
                    for member in self.members
                ],
                "argv": self.argv,
                "reads": self.reads,
                "libraries": [str(folder) for folder in self.libraries],
                "read_paths": [*read, *around.interpreter],
                "execute_paths": execute,
                "write_paths": write,
                "parent": os.getpid(),
                "cpu_s": self.cpu_s if self.reuse == 1 else 2 * self.cpu_s,
                "limits": self._limits(around),
                "load": base64.b64encode(load).decode(),
                "child": base64.b64encode(self.policy.child).decode(),
                "layers": self.layers,
                "around": self._around(around),
                **({"indimail": self.compiled.encoded()} if self.compiled else {}),
                **({"learn": True} if self.learn else {}),
                **({"broker": dict(self.broker)} if self.broker else {}),
            },
            default=str,
        ).encode()


def _broker(plugin: PluginLike) -> dict[str, Any] | None:
    """What its sandboxes are told of their grants; the broker goes by the configuration, not by this."""
    granted = plugin.capabilities
    if not granted.brokered:
        return None
    return {
        "dns": bool(granted.dns),
        "state": granted.state,
        "connect": [*granted.connect],
        # For an answer: what is left of the call's time is for the hook to say something else then.
        "wait_s": 0.8 * float(plugin.limits.timeout),
    }


def _tasks_now() -> int:
    """Processes and threads of our uid, where those of a plugin are counted among them."""
    mine = os.geteuid()
    owners = (processes.owner(seen.pid) for seen in processes.look())
    return sum(threads for uid, threads in owners if uid == mine)


def _real(python: Path | None) -> str:
    """The interpreter itself, not the link to it in a virtual environment: `libraries` says what is there."""
    return str(Path(python or sys.executable).resolve())
