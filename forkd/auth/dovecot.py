"""How is Dovecot asked about a password? Its auth protocol (dovecot_lines.py) on a unix socket, and on
another one after that was lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Literal

from forkd.auth.dovecot_lines import (
    Continue,
    Dialogue,
    Event,
    Ready,
    Right,
    Unreachable,
    Wrong,
    auth_line,
    cancel_line,
    cont_line,
)

__all__ = ["Client", "Continue", "Exchange", "Right", "Unreachable", "Wrong"]

State = Literal["connected", "lost", "unreachable"]

CONNECT_S: Final = 2.0
RETRY_S: Final = 0.5
"""After a failed connection: who asks before that is answered at once that nobody is there."""


class _Link(asyncio.Protocol):
    """One connection; what it still says after another one has taken its place is not heard."""

    def __init__(self, client: Client) -> None:
        self.client: Client | None = client

    def data_received(self, data: bytes) -> None:
        if self.client is not None:
            self.client.heard(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio.Protocol
        if self.client is not None:
            self.client.lost("it hung up")


class Client:
    """One connection at a time, many exchanges on it; made when first asked, and anew when it was lost.

    on_ready  called with the mechanisms that Dovecot offers, at each connection
    on_state  called with (act, reason): connected, lost, unreachable; for the log, once per change
    """

    def __init__(
        self,
        path: Path,
        *,
        on_ready: Callable[[frozenset[str]], None] = lambda _mechanisms: None,
        on_state: Callable[[State, str], None] = lambda _act, _reason: None,
    ) -> None:
        self._path = path
        self._on_ready = on_ready
        self._on_state = on_state
        self._dialogue = Dialogue()
        self._link: _Link | None = None
        self._transport: asyncio.WriteTransport | None = None
        """Of the link, once Dovecot has greeted."""
        self._connecting: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._retry_at = 0.0
        self._n = 0
        self._waiting: dict[int, asyncio.Future[Event]] = {}
        self._said_unreachable = False
        self._closed = False

    async def connect(self) -> None:
        """Be connected and greeted. Waits CONNECT_S at most. Raises Unreachable."""
        if self._transport is not None:
            return
        loop = asyncio.get_running_loop()
        if self._connecting is None:
            if self._closed or loop.time() < self._retry_at:
                raise Unreachable("it was not there a moment ago")
            self._connecting = loop.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)
        # Whoever asked first may go away: the others go on to wait.
        await asyncio.shield(self._connecting)

    async def begin(self, mechanism: str, facts: Iterable[str], response: bytes | None) -> Exchange:
        """Begin an exchange; `await` its step() for the first answer. Raises Unreachable, ValueError."""
        await self.connect()
        self._n = self._n % 0xFFFF_FFFF + 1
        exchange = Exchange(self, self._n)
        self.send(exchange.n, auth_line(exchange.n, mechanism, facts, response))
        return exchange

    def close(self) -> None:
        """Hang up; whoever waits gets Unreachable."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        self.lost("we stop")

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._dialogue = Dialogue()
        self._ready = loop.create_future()
        link = self._link = _Link(self)
        transport = None
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, _ = await loop.create_unix_connection(lambda: link, str(self._path))
                transport.write(self._dialogue.greeting(os.getpid()))
                await self._ready
        except (OSError, TimeoutError, Unreachable) as error:
            link.client = None
            if transport is not None:
                transport.abort()
            self._retry_at = loop.time() + RETRY_S
            raise Unreachable(_why(error)) from error
        self._transport = transport

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._said_unreachable = False
            self._on_state("connected", "")
        elif not self._said_unreachable:
            self._said_unreachable = True
            self._on_state("unreachable", str(error))

    def heard(self, data: bytes) -> None:
        """Lines of Dovecot's."""
        try:
            events = self._dialogue.receive(data)
        except Unreachable as error:
            self.lost(str(error))
            return
        for event in events:
            if isinstance(event, Ready):
                self._on_ready(event.mechanisms)
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
                continue
            future = self._waiting.pop(event.n, None)
            if future is not None and not future.done():
                future.set_result(event)

    def lost(self, reason: str) -> None:
        """Dovecot restarts, is gone, or is not to be understood; or we stop."""
        if self._link is not None:
            self._link.client = None
            self._link = None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(Unreachable(reason))
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            if not self._closed:
                self._on_state("lost", reason)
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Unreachable(reason))

    def send(self, n: int, line: bytes) -> None:
        """A line of exchange `n`, which is to be answered. Raises Unreachable."""
        if self._transport is None:
            raise Unreachable("it hung up")
        self._waiting[n] = asyncio.get_running_loop().create_future()
        self._transport.write(line)

    def answer_of(self, n: int) -> asyncio.Future[Event] | None:
        """The answer that exchange `n` waits for."""
        return self._waiting.get(n)

    def forget(self, n: int) -> None:
        """Exchange `n` is given up."""
        future = self._waiting.pop(n, None)
        if future is not None:
            future.cancel()
        if self._transport is not None:
            with contextlib.suppress(ValueError):
                self._transport.write(cancel_line(n))


class Exchange:
    """One AUTH: answers are awaited, challenges are answered; cancel() gives it up."""

    def __init__(self, client: Client, n: int) -> None:
        self._client = client
        self.n = n
        self._open = True

    async def answer(self) -> Continue | Right | Wrong:
        """What Dovecot says next. Raises Unreachable; cancelling gives the exchange up."""
        future = self._client.answer_of(self.n)
        if future is None:
            raise Unreachable("it hung up")
        try:
            event = await future
        except asyncio.CancelledError:
            self.cancel()
            raise
        assert not isinstance(event, Ready)
        self._open = isinstance(event, Continue)
        return event

    def respond(self, data: bytes) -> None:
        """Answer a challenge; answer() has the next. Raises Unreachable, ValueError."""
        self._client.send(self.n, cont_line(self.n, data))

    def cancel(self) -> None:
        """It will not go on."""
        if self._open:
            self._open = False
            self._client.forget(self.n)


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no greeting in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
