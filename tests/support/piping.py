"""Transports of kind "pipe" for tests: a program, its zygote as master starts it, qmgr's handle on it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from forkd.config.schema import Config, Pipe
from forkd.deliver import pipe
from forkd.deliver.transport import Delivery, Result, Target
from forkd.master import pipes as zygotes
from forkd.qmgr.pipes import Pipes
from forkd.queue import stored
from forkd.queue.format import Damaged
from forkd.queue.stored import StoredMessage
from forkd.rpc import places
from tests.support import programs
from tests.support.sandboxes import Stage
from tests.support.spooling import a_spool, queued
from tests.support.waiting import wait_for

NAME = "way"
BOB = Target(0, "bob@test.local", "bob", "test.local")


def start(st: Stage, *argv: str | Path, **settings: Any) -> Config:
    """The configuration of such a transport; its zygote runs. Raises StartError."""
    table = Pipe(argv=tuple(map(str, argv)), **{"uid": st.uid or 0, **settings})
    config = Config(transport={NAME: table})
    (spec,) = zygotes.specs(config, {NAME: 0})
    given = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)}
    # By the stage's user, where it is one that forkd would not give out itself.
    st.launch(**given)
    return config


def script(st: Stage, text: str, **settings: Any) -> Config:
    """start() with a shell script; `argv` in settings: its arguments."""
    arguments = settings.pop("argv", ())
    return start(st, programs.script(st, text), *arguments, **settings)


def folder(st: Stage, name: str = "out") -> Path:
    """A folder that the stage's programs may write."""
    made = st.folder / name
    made.mkdir(mode=0o700)
    if st.uid is not None:
        os.chown(made, st.uid, st.uid)
    return made


def a_message(st: Stage, message: bytes = b"Subject: hello\r\n\r\nbody\r\n", **fields: Any) -> StoredMessage:
    """One in a spool of its own."""
    spool = a_spool(st.folder / f"spool{len(list(st.folder.glob('spool*')))}")
    try:
        queue_id = queued(spool, message=message, **fields)
        return stored.load(f"{spool.new}/{queue_id}", queue_id)
    finally:
        spool.close()


async def deliver(
    config: Config, st: Stage, message: StoredMessage, targets: Sequence[Target] = (BOB,)
) -> list[Result] | Damaged:
    """One delivery, by qmgr's own handle on the zygote."""
    runner = Pipes(config, {places.PIPE + NAME: st.path})
    table = config.transport[NAME]
    assert isinstance(table, Pipe)
    transport = pipe.Pipe(NAME, table, runner)
    try:
        return await transport.deliver(Delivery(message, tuple(targets)))
    finally:
        await transport.close()


def once(
    config: Config, st: Stage, message: StoredMessage | None = None, targets: Sequence[Target] = (BOB,)
) -> list[Result]:
    """deliver() on an event loop as qmgr has it; no process is left of it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer = runner.run(deliver(config, st, message or a_message(st), targets))
    assert isinstance(answer, list), answer
    assert wait_for(lambda: not st.processes(), timeout_s=5), f"processes left: {st.processes()}"
    return answer


def changed(config: Config, **settings: Any) -> Config:
    """Other settings, as far as they are qmgr's affair and not the zygote's."""
    return Config(transport={NAME: msgspec.structs.replace(config.transport[NAME], **settings)})
