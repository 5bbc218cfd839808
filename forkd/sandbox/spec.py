"""What is a zygote told? Its plugin, group or program, its limits, and what it may read and run."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from forkd.sandbox import executables
from forkd.sandbox.confine import LAYERS
from forkd.sandbox.policy import Policy

_PACKAGE = Path(__file__).resolve().parent.parent
_ZYGOTE_FILES = 256
"""Descriptors of a zygote: its workers' connections, and three for each fork of one request."""


class LimitsLike(Protocol):
    """What is read of a plugin's limits (forkd.config.schema.PluginLimits)."""

    @property
    def cpu(self) -> float: ...
    @property
    def memory(self) -> int: ...
    @property
    def open_files(self) -> int: ...
    @property
    def sandboxes(self) -> int: ...
    @property
    def reuse(self) -> int: ...


class MemberLike(Protocol):
    """What is read of one member of a group (forkd.config.schema.Member)."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def module(self) -> str: ...
    @property
    def hooks(self) -> Sequence[str]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...


class PluginLike(Protocol):
    """What is read of a plugin or group (forkd.config.schema.PluginConfig)."""

    @property
    def name(self) -> str: ...
    @property
    def members(self) -> Sequence[MemberLike]: ...
    @property
    def reads(self) -> Sequence[str]: ...
    @property
    def files(self) -> Sequence[Path]: ...
    @property
    def limits(self) -> LimitsLike: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A plugin's module: one of a group, or the only one. `hooks` empty: whatever the code has."""

    name: str
    folder: Path
    module: str
    hooks: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteSpec:
    """One zygote: what it loads, what it may use, who it runs as.

    members     what a zygote of kind python loads, in the order in which they are asked.
    argv        what one of kind program starts; policy must be of the profile exec then.
    processes   a program may start others (exec profile "exec, processes").
    memory      bytes of address space above the loaded zygote's, for each sandbox; a program's in all.
    cpu_s       processor seconds of a sandbox, then SIGKILL; with reuse > 1 twice that (Sandbox.release).
    sandboxes   alive at once; 0: 64 per CPU. Bounds the uid's processes where it has one of its own.
    reuse       sessions a sandbox may serve.
    uid, gid    None: as we are.
    python      the interpreter; it needs no forkd.
    layers      the walls; less than all of them only in tests of the tests.
    """

    name: str
    policy: Policy
    members: tuple[Member, ...] = ()
    argv: tuple[str, ...] = ()
    processes: bool = False
    reads: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    memory: int = 256 << 20
    cpu_s: float = 2.0
    open_files: int = 32
    sandboxes: int = 0
    reuse: int = 1
    uid: int | None = None
    gid: int | None = None
    python: str = dataclasses.field(default_factory=lambda: str(Path(sys.executable).resolve()))
    kind: Literal["python", "probe", "program"] = "python"
    layers: tuple[str, ...] = LAYERS

    @classmethod
    def of(cls, plugin: PluginLike, *, policy: Policy, uid: int | None, gid: int | None) -> ZygoteSpec:
        """The specification of a configured plugin or group."""
        return cls(
            name=plugin.name,
            policy=policy,
            members=tuple(
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
            memory=int(plugin.limits.memory),
            cpu_s=float(plugin.limits.cpu),
            open_files=plugin.limits.open_files,
            sandboxes=plugin.limits.sandboxes,
            reuse=plugin.limits.reuse,
            uid=uid,
            gid=gid,
        )

    def paths(self) -> tuple[Path, ...]:
        """What the zygote must be able to read: plugins' folders, our two packages, granted files."""
        folders = dict.fromkeys(member.folder for member in self.members)
        return (*folders, _PACKAGE / "sdk", _PACKAGE / "sandbox", *self.files)

    def encode(self) -> bytes:
        """As the zygote takes it from SPEC_FD: JSON (PROTOCOL.md, part 2)."""
        processes = -1
        if self.uid is not None:
            # Twice: the dead count until they are reaped. And the zygote itself.
            processes = 2 * (self.sandboxes or 64 * (os.cpu_count() or 1)) + 8
        load = self.policy.load if self.uid is None else self.policy.load_own_uid
        limits = {
            "memory": self.memory,
            "open_files": self.open_files,
            "zygote_files": _ZYGOTE_FILES,
            "processes": processes,
            "program_processes": self.processes,
        }
        read = [*self.paths()]
        execute: tuple[Path, ...] = ()
        write: tuple[Path, ...] = ()
        if self.kind == "program":
            read += executables.SYSTEM_PATHS
            execute, write = executables.needed(self.argv, self.files), executables.WRITABLE
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
                "read_paths": [str(path) for path in read],
                "execute_paths": [str(path) for path in execute],
                "write_paths": [str(path) for path in write],
                "parent": os.getpid(),
                "cpu_s": self.cpu_s if self.reuse == 1 else 2 * self.cpu_s,
                "limits": limits,
                "load": base64.b64encode(load).decode(),
                "child": base64.b64encode(self.policy.child).decode(),
                "layers": self.layers,
            },
            default=str,
        ).encode()
