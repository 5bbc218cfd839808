"""A sandbox host without sandboxes: plugins run in this process, through the real Runner and real frames.

What a dispatcher does with a failing sandbox is tested by plugins given as Broken; what a real
sandbox does is tested in tests/sandbox.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from forkd.rpc.calls import MAX_FRAME_BYTES, Answer, CallFailed, Overloaded
from forkd.sdk import Plugin
from forkd.sdk.runner import Runner

T = TypeVar("T")
_decode = msgspec.json.Decoder(Answer).decode


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits: nothing of a fake host does, so no loop is needed."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the coroutine waits for something")


@dataclasses.dataclass(frozen=True)
class Powers:
    accept: bool = False
    discard: bool = False
    edit_headers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Limits:
    timeout: float = 5.0
    message_timeout: float = 60.0


@dataclasses.dataclass(frozen=True)
class FakePlugin:
    """What the dispatcher needs of a PluginConfig."""

    name: str
    hooks: tuple[str, ...]
    powers: Powers = Powers()
    reads: tuple[str, ...] = ()
    limits: Limits = Limits()
    on_failure: str = "disconnect"


@dataclasses.dataclass(frozen=True)
class Broken:
    """A plugin whose calls fail: with an exception of the host, or with the bytes of an answer.

    `{n}` in the bytes becomes the call's number.
    """

    how: Exception | bytes
    at: str = ""
    """Only at this hook; empty: always."""


class FakeSandbox:
    """One plugin in one session."""

    def __init__(self, behaviour: Plugin | Broken, reads: tuple[str, ...]) -> None:
        self._broken = behaviour if isinstance(behaviour, Broken) else None
        self._runner = Runner(behaviour if isinstance(behaviour, Plugin) else Plugin(), reads)
        self.frames: list[dict[str, Any]] = []
        self.timeouts: list[float] = []
        self.fds: list[int] = []
        self.closed = False
        self.last_output = "last words"

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        assert not self.closed, "a call on a closed sandbox"
        assert len(frame) <= MAX_FRAME_BYTES
        call = json.loads(frame)
        assert call["n"] == n == len(self.frames) + 1
        self.frames.append(call)
        self.timeouts.append(timeout_s)
        self.fds.append(message_fd)
        if self._broken is not None and self._broken.at in ("", call["hook"]):
            if isinstance(self._broken.how, Exception):
                raise self._broken.how
            return self._decoded(self._broken.how.replace(b"{n}", str(n).encode()))
        if self._broken is not None:
            return Answer(n)
        return self._decoded(self._runner.handle(frame, message_fd if message_fd >= 0 else None))

    def _decoded(self, answer: bytes) -> Answer:
        try:
            return _decode(answer)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise CallFailed("protocol", str(error)) from error

    def close(self) -> None:
        self.closed = True


class FakeHost:
    """Gives a FakeSandbox for each plugin and session, and keeps them all for the test to look at."""

    def __init__(
        self, behaviours: Mapping[str, Plugin | Broken], plugins: tuple[FakePlugin, ...] = ()
    ) -> None:
        self._behaviours = behaviours
        self._reads = {plugin.name: plugin.reads for plugin in plugins}
        self.taken: list[tuple[str, FakeSandbox]] = []
        self.full = False

    def take(self, plugin: str, session_id: str) -> FakeSandbox:
        if self.full:
            raise Overloaded("no sandbox left")
        sandbox = FakeSandbox(self._behaviours[plugin], self._reads.get(plugin, ()))
        self.taken.append((plugin, sandbox))
        return sandbox

    def sandboxes(self, plugin: str) -> list[FakeSandbox]:
        return [sandbox for name, sandbox in self.taken if name == plugin]
