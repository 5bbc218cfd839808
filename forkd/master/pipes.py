"""How are the zygotes that start transports' programs made? One for each [transport] of kind "pipe".

They are as those of program plugins; but qmgr asks them, not a worker, and what they start is given its
arguments by each message. Their socket is qmgr's user's alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping

from forkd.config.schema import Config, Pipe
from forkd.exits import Exit
from forkd.master.errors import StartError
from forkd.master.zygotes import CHECKPASSWORD_UID, own_ids
from forkd.rpc import places
from forkd.sandbox import launch
from forkd.sandbox import policy as policies

LEEWAY = 2
"""Runs beyond `connections`: the dead count until they are reaped."""


def configured(config: Config) -> Iterator[tuple[str, Pipe]]:
    """Name and table of each such transport, in the order of the configuration."""
    for name, table in config.transport.items():
        if isinstance(table, Pipe):
            yield name, table


def specs(config: Config, numbers: Mapping[str, int]) -> list[launch.ZygoteSpec]:
    """How their zygotes are started; by root each as a uid of its own: counted down from checkpassword's, so
    that plugins, which are counted up, do not meet them.

    numbers  of the transports, from 0: each uid is one's alone, also while two generations live
    Raises StartError where this machine has no filters to give, or a program cannot be started as it is.
    """
    found = []
    for name, table in configured(config):
        uid = None
        if os.geteuid() == 0:
            uid = table.uid or config.sandbox.uid_base + CHECKPASSWORD_UID - 1 - numbers[name]
        try:
            spec = dataclasses.replace(_spec(name, table), uid=uid, gid=uid)
            launch.check_program(spec)
        except policies.PolicyError as error:
            raise StartError(Exit.UNCONFINED, str(error)) from error
        except launch.LaunchError as error:
            raise StartError(Exit.CONFIG, f"transport.{name}: {error}") from error
        found.append(spec if uid is None else own_ids(spec, uid))
    return found


def _spec(name: str, table: Pipe) -> launch.ZygoteSpec:
    profile = "exec" + (", processes" if table.processes else "") + (", writing" if table.write else "")
    return launch.ZygoteSpec(
        name=places.PIPE + name,
        policy=policies.compile_policy(profile=profile),
        kind="program",
        argv=tuple(table.argv),
        execute=tuple(table.exec),
        processes=table.processes,
        files=tuple(table.files),
        write=tuple(table.write),
        file_size=int(table.file_size),
        memory=int(table.memory),
        cpu_s=float(table.cpu),
        open_files=table.open_files,
        sandboxes=table.connections + LEEWAY,
    )
