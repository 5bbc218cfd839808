"""A sandbox host without sandboxes: plugins run in this process, through the real Runner and real frames.

What a dispatcher does with a failing sandbox is tested by plugins given as Broken; what a real
sandbox does is tested in tests/sandbox.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from forkd.config import schema
from forkd.hooks.breaker import Change, Rule
from forkd.hooks.decision import PluginRecord
from forkd.hooks.dispatcher import Dispatcher
from forkd.hooks.shadow import Shadowed
from forkd.rpc.calls import MAX_FRAME_BYTES, Answer, CallFailed, HeaderEdit, Overloaded
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


Powers: Any = dataclasses.make_dataclass(
    "Powers",
    [(power.name, power.type, power.default) for power in msgspec.structs.fields(schema.Powers)],
    frozen=True,
)
"""As the configuration has them."""
EVERY_POWER = Powers(
    **{power.name: True if power.type is bool else ("*",) for power in msgspec.structs.fields(schema.Powers)}
    | {"export": ("SPFRESULT", "NOTE")}  # these have no wildcard
)


@dataclasses.dataclass(frozen=True)
class Limits:
    timeout: float = 5.0
    message_timeout: float = 60.0
    session_time: float = 120.0
    fresh: str = "session"


@dataclasses.dataclass(frozen=True)
class Scope:
    listeners: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class FakePlugin:
    """What the dispatcher needs of a PluginConfig."""

    name: str
    hooks: tuple[str, ...]
    powers: Any = Powers()  # noqa: RUF009 - it is frozen
    reads: tuple[str, ...] = ()
    limits: Limits = Limits()
    on_failure: str = "disconnect"
    kind: str = "python"
    refusal: str = "command"
    mode: str = "enforce"
    version: str = "1.0"
    group: str = ""
    scope: Scope = Scope()


@dataclasses.dataclass
class FakeHolder:
    """The session that holds the sandboxes."""

    network: str = "192.0.2.0/24"
    evicted: int = 0

    def in_mail(self) -> bool:
        return False

    def evict(self) -> bool:
        self.evicted += 1
        return True


@dataclasses.dataclass(frozen=True)
class Broken:
    """A plugin whose calls fail: with an exception of the host, or with the bytes of an answer.

    `{n}` in the bytes becomes the call's number.
    """

    how: Exception | bytes | Sequence[bytes]
    """Several answers are given one after the other, the last one for ever."""
    at: str = ""
    """Only at this hook; empty: always."""


Behaviour = Plugin | Sequence[Plugin] | Broken


class FakeSandbox:
    """One plugin, or the members of a group, in one session."""

    def __init__(self, behaviour: Behaviour, reads: tuple[str, ...], runner: Runner | None = None) -> None:
        self._broken = behaviour if isinstance(behaviour, Broken) else None
        plugins = Plugin() if isinstance(behaviour, Broken) else behaviour
        self.runner = Runner(plugins, reads) if runner is None else runner
        self.frames: list[dict[str, Any]] = []
        self.timeouts: list[float] = []
        self.fds: list[int] = []
        self.hidden: list[bytes] = []
        self.closed = False
        self.released = False
        self.last_output = "last words"
        how = None if self._broken is None else self._broken.how
        self.untaken = isinstance(how, CallFailed) and how.cause == "unavailable"

    async def last_report(self) -> None:
        return None

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        assert not self.closed and not self.released, "a call on a sandbox that was let go"
        assert len(frame) <= MAX_FRAME_BYTES
        call = json.loads(frame)
        assert call["n"] == n == len(self.frames) + 1
        self.frames.append(call)
        self.timeouts.append(timeout_s)
        self.fds.append(message_fd)
        if self._broken is not None and self._broken.at in ("", call["hook"]):
            if isinstance(self._broken.how, Exception):
                raise self._broken.how
            answers = (self._broken.how,) if isinstance(self._broken.how, bytes) else self._broken.how
            answer = answers[min(len(self.frames), len(answers)) - 1]
            return self._decoded(answer.replace(b"{n}", str(n).encode()))
        if self._broken is not None:
            return Answer(n)
        return self._decoded(self.runner.handle(frame, message_fd if message_fd >= 0 else None))

    def _decoded(self, answer: bytes) -> Answer:
        try:
            return _decode(answer)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise CallFailed("protocol", str(error)) from error

    def hide(self, arguments: bytes) -> None:
        self.hidden.append(arguments)

    def release(self) -> None:
        self.released = True

    def close(self) -> None:
        self.closed = True


class FakeCopies:
    """A message as the worker hands it over: sealed copies on demand, a sink for another body."""

    def __init__(self, header: bytes = b"Subject: hello\r\n\r\n", body: bytes = b"the body\r\n") -> None:
        self.header = header
        self.body = body
        self.asked: list[str] = []
        self.error: Exception | None = None
        """Raised instead of a copy or a sink."""
        self.new_body: bytes | None = None
        """What a plugin put in the body's place."""
        self.kept: list[FakeKept] = []
        self._fds: list[int] = []

    @property
    def size(self) -> int:
        return len(self.header) + len(self.body)

    @property
    def header_size(self) -> int:
        return len(self.header)

    def headers_fd(self) -> int:
        return self._copy("headers", self.header)

    def full_fd(self) -> int:
        return self._copy("full", self.header + self.body)

    def program_fd(self, edits: Sequence[HeaderEdit]) -> int:
        return self._copy("program", self.header + self.body)

    def keep(self, what: str, edits: Sequence[HeaderEdit] = ()) -> FakeKept:
        fd = self.full_fd() if what == "full" else self.headers_fd()
        self.kept.append(FakeKept(os.dup(fd)))
        return self.kept[-1]

    def body_sink(self, size: int) -> FakeSink:
        self.asked.append(f"sink {size}")
        if self.error is not None:
            raise self.error
        return FakeSink(self)

    def message_sink(self, size: int) -> FakeSink:
        return self.body_sink(size)

    def _copy(self, what: str, octets: bytes) -> int:
        self.asked.append(what)
        if self.error is not None:
            raise self.error
        fd = os.memfd_create("message")
        os.write(fd, octets)
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


class FakeKept:
    """A copy that outlives its hook."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class FakeObserver:
    """Keeps what it is told, and what is to be run in the background for the test to run()."""

    def __init__(self) -> None:
        self.work: list[Coroutine[Any, Any, None]] = []
        self.changes: list[tuple[str, str]] = []
        self.answered: list[Shadowed] = []
        self.failed: list[PluginRecord] = []
        self.dropped: list[tuple[str, str, str]] = []

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        self.work.append(work)

    def run_background(self) -> None:
        while self.work:
            run(self.work.pop(0))

    def breaker_changed(self, change: Change) -> None:
        self.changes.append((change.plugin, change.state.value))

    def shadow_answered(self, session: str, shadowed: Shadowed) -> None:
        assert session
        self.answered.append(shadowed)

    def shadow_failed(self, session: str, record: PluginRecord) -> None:
        assert session
        self.failed.append(record)

    def shadow_dropped(self, session: str, *, plugin: str, hook: str, why: str) -> None:
        assert session
        self.dropped.append((plugin, hook, why))


def dispatcher_for(plugins: Sequence[FakePlugin], host: FakeHost, **settings: Any) -> Dispatcher:
    """A dispatcher that nobody watches, unless told otherwise."""
    settings.setdefault("routable", lambda *_: True)
    settings.setdefault("observer", FakeObserver())
    settings.setdefault("breaker", Rule())
    return Dispatcher(plugins, host, **settings)


class FakeSink:
    """A body on its way; it counts when it is whole."""

    def __init__(self, copies: FakeCopies) -> None:
        self._copies = copies
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def finish(self) -> object:
        self._copies.body = self._copies.new_body = b"".join(self._pieces)
        return self._copies.body


class FakeHost:
    """Gives a FakeSandbox for each plugin and session, and keeps them all for the test to look at.

    reuse  a released sandbox serves the next session of its plugin, as limits.reuse allows.
    """

    def __init__(
        self,
        behaviours: Mapping[str, Behaviour],
        plugins: tuple[FakePlugin, ...] = (),
        *,
        reuse: bool = False,
    ) -> None:
        self._behaviours = behaviours
        self._reads = {plugin.name: plugin.reads for plugin in plugins}
        self._reuse = reuse
        self.taken: list[tuple[str, FakeSandbox]] = []
        self.networks: list[str] = []
        self.full = False

    async def take(
        self,
        plugin: str,
        session_id: str,
        *,
        network: str = "",
        evict: Callable[[], bool] | None = None,
        in_mail: Callable[[], bool] | None = None,
    ) -> FakeSandbox:
        if self.full:
            raise Overloaded("no sandbox left")
        if network:  # who has a share can be asked to give way
            assert evict is not None
            assert in_mail is not None
        self.networks.append(network)
        old = [s for s in self.sandboxes(plugin) if s.released and not s.closed] if self._reuse else []
        sandbox = FakeSandbox(
            self._behaviours[plugin], self._reads.get(plugin, ()), old[-1].runner if old else None
        )
        self.taken.append((plugin, sandbox))
        return sandbox

    def sandboxes(self, plugin: str) -> list[FakeSandbox]:
        return [sandbox for name, sandbox in self.taken if name == plugin]
