"""What is the dispatcher given? Plugins, a host of sandboxes, a message: by protocol type.

Protocols only: hooks must not know what a sandbox, a configuration file or a spool is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from forkd.rpc.calls import Answer


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


class Sandbox(Protocol):
    """The worker's end of one sandbox (forkd.sandbox.host.Sandbox)."""

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        """Raises CallFailed, and is dead then; raises Overloaded."""
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
    def body_sink(self, size: int) -> BodySink:
        """For a body of about that many octets; line ends may make it somewhat longer."""
        ...
