"""Program plugins for tests: a script or a C program as a filter, asked through a real zygote and Host."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forkd.hooks.facts import SessionFacts
from forkd.hooks.frames import Frames, Seen
from forkd.rpc.calls import Answer, ReplaceMessage
from forkd.sandbox.host import HostFilter
from forkd.sandbox.policy import compile_policy
from forkd.smtp.address import Mailbox
from tests.support import programs
from tests.support.sandboxes import Stage

NAME = "filter"
FACTS = SessionFacts(
    id="s1",
    client_ip="192.0.2.1",
    client_port=4711,
    client_name="client.example",
    local_ip="192.0.2.25",
    local_port=25,
    hostname="mx.example",
)


@dataclasses.dataclass(frozen=True)
class Said:
    """What came of one message.

    message  what it put in the place of it; None: it left it as it was.
    """

    answer: Answer
    message: bytes | None


def start(st: Stage, *argv: str | Path, execute: Sequence[str] = (), processes: int = 0, **spec: Any) -> None:
    """Start the zygote of a program plugin, as master does."""
    given: dict[str, Any] = {"memory": 256 << 20, "cpu_s": 5.0, "sandboxes": 40} | spec
    st.launch(
        name=NAME,
        kind="program",
        argv=tuple(str(word) for word in argv),
        execute=tuple(map(Path, execute)),
        processes=processes,
        policy=compile_policy(profile="exec, processes" if processes else "exec"),
        **given,
    )


async def ask(
    st: Stage,
    message: bytes = b"Subject: hello\n\nbody\n",
    *,
    facts: SessionFacts = FACTS,
    sender: Mailbox | None = Mailbox("alice", "example.org"),  # noqa: B008 - a value
    recipients: Sequence[Mailbox] = (Mailbox("bob", "test.local"),),
    edits: Sequence[bytes] = (),
    timeout_s: float = 20.0,
    sandbox: Any = None,
) -> Said:
    """Show it one message, whole as in a memory file. Raises CallFailed, Overloaded.

    sandbox  that was taken already.
    """
    frames = Frames(facts)
    frames.begin(sender)
    for to in recipients:
        frames.add_recipient(to)
    args = b'{"size":%d,"header_size":0}' % len(message)
    pages, frame = frames.build(Seen(), "message", args, envelope=True, edits=edits)
    sandbox = sandbox or await st.host.take(NAME, facts.id, network="192.0.2.0/24")
    fd = os.memfd_create("message", os.MFD_CLOEXEC)
    n = 0
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(message)
            file.flush()
            for n, page in enumerate(pages, start=1):
                assert await sandbox.call(page, n, timeout_s=timeout_s) == Answer(n)
            answer = await sandbox.call(frame, n + 1, timeout_s=timeout_s, message_fd=fd)
        match answer.edits:
            case (ReplaceMessage(size),):
                made = b""
                while len(made) < size:
                    body = b'{"n":2,"hook":"body","args":{"offset":%d}}' % len(made)
                    piece = (await sandbox.call(body, 2, timeout_s=timeout_s)).piece
                    assert piece
                    made += piece
                return Said(answer, made)
        assert not answer.edits
        return Said(answer, None)
    finally:
        sandbox.release()


def host(
    st: Stage,
    scenario: Callable[[Stage], Any],
    *,
    environment: Mapping[str, str] | None = None,
    **how: Any,
) -> None:
    """Run a scenario with a Host that knows the filter."""
    plugin = HostFilter(name=NAME, socket_path=st.path, environment=environment or {}, **how)
    st.run(scenario, spare=0, filters=(plugin,))


def once(
    st: Stage,
    message: bytes = b"Subject: hello\n\nbody\n",
    *,
    asked: Mapping[str, Any] | None = None,
    **how: Any,
) -> Said:
    """Ask it once in a Host of its own; how: of the HostFilter."""
    found: list[Said] = []

    async def scenario(st: Stage) -> None:
        found.append(await ask(st, message, **(asked or {})))

    host(st, scenario, **how)
    return found[0]


def script(st: Stage, text: str, **how: Any) -> Path:
    """As programs.script()."""
    return programs.script(st, text, **how)


async def gather(*asked: Any) -> list[Any]:
    """All of them at once; failures as values."""
    return await asyncio.gather(*asked, return_exceptions=True)
