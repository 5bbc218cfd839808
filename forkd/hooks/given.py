"""What is the dispatcher given? Plugins, a host of sandboxes, a message: by protocol type.

Protocols only: hooks must not know what a sandbox, a configuration file or a spool is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from forkd.rpc.calls import Answer, HeaderEdit

if TYPE_CHECKING:
    from forkd.hooks.breaker import Change
    from forkd.hooks.decision import PluginRecord
    from forkd.hooks.shadow import Shadowed


class PowersLike(Protocol):
    """Grants of one plugin, as forkd.config.schema.Powers has them."""

    @property
    def accept(self) -> bool: ...
    @property
    def discard(self) -> bool: ...
    @property
    def quarantine(self) -> bool: ...
    @property
    def edit_headers(self) -> Sequence[str]: ...
    @property
    def edit_body(self) -> bool: ...
    @property
    def add_recipient(self) -> Sequence[str]: ...
    @property
    def delete_recipient(self) -> bool: ...
    @property
    def rewrite_recipient(self) -> bool: ...
    @property
    def change_sender(self) -> bool: ...
    @property
    def replace_message(self) -> bool: ...
    @property
    def export(self) -> Sequence[str]: ...
    @property
    def auth(self) -> bool: ...


class LimitsLike(Protocol):
    """Of forkd.config.schema.PluginLimits: wall times of one call, and of all in a session, seconds."""

    @property
    def timeout(self) -> float: ...
    @property
    def message_timeout(self) -> float: ...
    @property
    def session_time(self) -> float: ...
    @property
    def fresh(self) -> str: ...


class ScopeLike(Protocol):
    """Of forkd.config.schema.Scope: whom a plugin is asked about; what is empty matches all."""

    @property
    def listeners(self) -> Sequence[str]: ...
    @property
    def networks(self) -> Sequence[str]: ...
    @property
    def domains(self) -> Sequence[str]: ...


class PluginLike(Protocol):
    """Of forkd.config.schema.PluginConfig, a plugin or a group: what a decision depends on."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """python | indimail | program"""
        ...

    @property
    def hooks(self) -> Sequence[str]: ...
    @property
    def powers(self) -> PowersLike: ...
    @property
    def reads(self) -> Sequence[str]: ...
    @property
    def limits(self) -> LimitsLike: ...
    @property
    def on_failure(self) -> str: ...
    @property
    def refusal(self) -> str:
        """Of a plugin that refuses: command | session (the connection ends after the reply)"""
        ...

    @property
    def mode(self) -> str:
        """enforce | shadow"""
        ...

    @property
    def scope(self) -> ScopeLike: ...


class Holder(Protocol):
    """Who holds a session's sandboxes: the worker's session, seen by a host that shares them out fairly."""

    @property
    def network(self) -> str:
        """Whose share the sandboxes count against; empty: nobody's (trusted clients)."""
        ...

    def evict(self) -> bool:
        """Answer 421 4.3.2 and close, unless a call is in flight or a message being committed.

        True: the session ends, and its sandboxes will be free.
        """
        ...

    def in_mail(self) -> bool:
        """Between MAIL and the end of data: such a session is asked to give way last."""
        ...


class Ended(Protocol):
    """How a sandbox ended, as its zygote claims (forkd.sandbox.report.Report): for log lines alone.

    pid     as the kernel told it; 0: it never answered, and only claimed_pid, its zygote's number, is known.
    status  `exit 0`, `SIGSEGV` …; empty: not known.
    memory  octets, the most it had at a time.
    call    the system call it was killed for, by name; empty: none, or not known.
    cause, detail  of a CallFailed: better than the call's own, which could not wait; empty: there is none.
    """

    @property
    def pid(self) -> int: ...
    @property
    def claimed_pid(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def user_s(self) -> float: ...
    @property
    def system_s(self) -> float: ...
    @property
    def memory(self) -> int: ...
    @property
    def call(self) -> str: ...
    @property
    def cause(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Sandbox(Protocol):
    """The worker's end of one sandbox (forkd.sandbox.host.Sandbox)."""

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        """Raises CallFailed, and is dead then; raises Overloaded."""
        ...

    def hide(self, arguments: bytes) -> None:
        """Its next call tells it a password, in these arguments: no line of the log may get it from there."""
        ...

    def release(self) -> None:
        """Its session (or call, where each has its own) is over: it may serve another where the plugin's
        `reuse` allows that, and is killed otherwise. Idempotent, and nothing after close()."""
        ...

    def close(self) -> None:
        """Kill it. Idempotent."""
        ...

    @property
    def last_output(self) -> str: ...
    @property
    def untaken(self) -> bool:
        """It failed before it had taken its first call: no zygote made it."""
        ...

    async def last_report(self) -> Ended | None:
        """How it ended; after close(). Waits a moment for its zygote's word; None: there was none."""
        ...


class SandboxHost(Protocol):
    """Where sandboxes come from (forkd.sandbox.host.Host)."""

    async def take(
        self,
        plugin: str,
        session_id: str,
        *,
        network: str = "",
        evict: Callable[[], bool] | None = None,
        in_mail: Callable[[], bool] | None = None,
    ) -> Sandbox:
        """A sandbox for one session; waits a moment for one at most. Raises Overloaded, CallFailed."""
        ...


class BodySink(Protocol):
    """Takes a replaced body, piece by piece. Both raise OSError and what the spool raises."""

    def write(self, piece: bytes) -> None: ...
    def finish(self) -> object:
        """It is whole: what Decision.body names. The message's next copy has this body."""
        ...


class KeptCopy(Protocol):
    """A sealed copy that outlives its hook."""

    @property
    def fd(self) -> int: ...
    def close(self) -> None:
        """It is not needed any more. Idempotent."""
        ...


class Observer(Protocol):
    """Who is told what no client hears of (the worker). No method raises, or waits."""

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside everything else."""
        ...

    def breaker_changed(self, change: Change) -> None: ...
    def shadow_answered(self, session: str, shadowed: Shadowed) -> None: ...
    def shadow_failed(self, session: str, record: PluginRecord) -> None: ...
    def shadow_dropped(self, session: str, *, plugin: str, hook: str, why: str) -> None:
        """A call was not made: too many waited, or there was no room."""
        ...


class MessageCopies(Protocol):
    """The message's sealed copies, made on demand (forkd.worker.copies). All raise Overloaded, OSError.

    size, header_size  octets of the message as it stands, and of its header with the empty line.
    """

    @property
    def size(self) -> int: ...
    @property
    def header_size(self) -> int: ...

    def headers_fd(self) -> int: ...
    def full_fd(self) -> int: ...
    def program_fd(self, edits: Sequence[HeaderEdit]) -> int:
        """Of the whole message after these edits of its header, lines ending in LF."""
        ...

    def keep(self, what: str, edits: Sequence[HeaderEdit] = ()) -> KeptCopy:
        """The copy that headers_fd() ("headers"), full_fd() ("full") or program_fd() ("program") gives, for
        longer than this hook."""
        ...

    def body_sink(self, size: int) -> BodySink:
        """For a body of about that many octets; line ends may make it somewhat longer."""
        ...

    def message_sink(self, size: int) -> BodySink:
        """Likewise for a whole message, header and body."""
        ...
