"""How is Dovecot asked about a password? Its auth protocol 1.2, the client's side (doc.dovecot.org,
"Authentication Protocol"; lines of tab-separated fields on a unix socket).

    server  VERSION 1 2 · MECH name properties… · SPID pid · CUID n · COOKIE hex · DONE
    client  VERSION 1 1 · CPID pid
    client  AUTH id mechanism service=smtp … resp=base64        resp is the last field
    server  CONT id base64 | OK id user=… | FAIL id user=… temp? …
    client  CONT id base64 | CANCEL id

Dialogue is sans-I/O; Client puts one on the socket, and on another one after that was lost.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

MAJOR: Final = "1"
MAX_LINE: Final = 8192
"""AUTH_CLIENT_MAX_LINE_LENGTH: Dovecot hangs up beyond. Its own lines are held to it too, times four."""
CONNECT_S: Final = 2.0
RETRY_S: Final = 0.5
"""After a failed connection: who asks before that is answered at once that nobody is there."""

_ESCAPED = {"\x01": "\x011", "\0": "\x010", "\t": "\x01t", "\r": "\x01r", "\n": "\x01n"}
_ESCAPES = str.maketrans(_ESCAPED)
_UNESCAPED = {"1": "\x01", "0": "\0", "t": "\t", "r": "\r", "n": "\n"}


class Unreachable(Exception):  # noqa: N818
    """Dovecot is not there, went away, or spoke another language: 454 4.7.0."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """The greeting is over; `mechanisms` in upper case."""

    mechanisms: frozenset[str]


@dataclasses.dataclass(frozen=True, slots=True)
class Continue:
    """The server wants more: CONT."""

    n: int
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Right:
    """OK; `user` as Dovecot calls him (its own rules about case and default domain applied)."""

    n: int
    user: str


@dataclasses.dataclass(frozen=True, slots=True)
class Wrong:
    """FAIL; `temporary`: no answer about the password, Dovecot's own trouble."""

    n: int
    temporary: bool
    reason: str


Event = Ready | Continue | Right | Wrong


class Dialogue:
    """The lines of one connection. receive() raises Unreachable for what is not the protocol."""

    def __init__(self) -> None:
        self._rest = b""
        self._mechanisms: set[str] = set()
        self._ready = False

    def greeting(self, pid: int) -> bytes:
        """What the client says first; it need not wait for the server."""
        return f"VERSION\t{MAJOR}\t1\nCPID\t{pid}\n".encode("ascii")

    def receive(self, octets: bytes) -> list[Event]:
        """Events of the lines that are whole now."""
        self._rest += octets
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > 4 * MAX_LINE:
            raise Unreachable("a line of its does not end")
        events = [self._event(line.decode("utf-8", "replace").split("\t")) for line in lines]
        return [event for event in events if event is not None]

    def _event(self, fields: list[str]) -> Event | None:
        match fields:
            case ["VERSION", major, *_] if major != MAJOR:
                raise Unreachable(f"it speaks version {major[:20]} of its protocol, we {MAJOR}")
            case ["MECH", name, *_]:
                self._mechanisms.add(name.upper())
            case ["DONE", *_] if not self._ready:
                self._ready = True
                return Ready(frozenset(self._mechanisms))
            case ["CONT", n, *data]:
                return Continue(_number(n), _decoded(data[0] if data else ""))
            case ["OK", n, *parameters]:
                return Right(_number(n), _parameters(parameters).get("user", ""))
            case ["FAIL", n, *parameters]:
                given = _parameters(parameters)
                temporary = "temp" in given or given.get("code") == "temp_fail"
                reason = given.get("reason") or given.get("code") or ("temp" if temporary else "")
                return Wrong(_number(n), temporary, reason)
        return None  # SPID, CUID, COOKIE, and what later versions add


def auth_line(n: int, mechanism: str, facts: Iterable[str], response: bytes | None) -> bytes:
    """AUTH. facts: `secured`, `rip=192.0.2.1` …; `response` comes last, as the protocol demands.

    Raises ValueError for a line that Dovecot would not read.
    """
    fields = ["AUTH", str(n), mechanism, "service=smtp", *(fact.translate(_ESCAPES) for fact in facts)]
    if response is not None:
        fields.append(f"resp={base64.b64encode(response).decode('ascii')}")
    return _line(fields)


def cont_line(n: int, response: bytes) -> bytes:
    """CONT. Raises ValueError as auth_line()."""
    return _line(["CONT", str(n), base64.b64encode(response).decode("ascii")])


def cancel_line(n: int) -> bytes:
    """CANCEL: this exchange will not go on."""
    return _line(["CANCEL", str(n)])


def _line(fields: list[str]) -> bytes:
    octets = "\t".join(fields).encode("utf-8", "surrogatepass") + b"\n"
    if len(octets) > MAX_LINE:
        raise ValueError(f"longer than {MAX_LINE} octets")
    return octets


def _number(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 10:
        raise Unreachable("an answer of its has no number")
    return int(text)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Unreachable("a challenge of its is not base64") from error


def _parameters(fields: list[str]) -> dict[str, str]:
    return {name: _unescaped(value) for name, _, value in (field.partition("=") for field in fields)}


def _unescaped(text: str) -> str:
    head, *rest = text.split("\x01")
    return head + "".join(_UNESCAPED.get(part[:1], "") + part[1:] for part in rest)


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
        on_state: Callable[[str, str], None] = lambda _act, _reason: None,
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
