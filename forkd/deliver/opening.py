"""How does a connection to a next hop begin? TCP or a unix socket, greeting, EHLO, TLS, login; or why not."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import ipaddress
from collections.abc import Callable, Mapping

from forkd.deliver.client_tls import ClientTls
from forkd.deliver.connection import Connection, reason_of
from forkd.deliver.hosts import Hop
from forkd.smtp.client import ClientConnection
from forkd.smtp.client_events import Authenticated, ClientEvent, Closed, Denied, Ready, TlsReady
from forkd.smtp.client_phases import TIMEOUT_S, ClientOptions, Phase
from forkd.smtp.client_sasl import Credentials
from forkd.smtp.reply import Reply


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HowToConnect:
    """What all connections of one transport have in common."""

    options: ClientOptions
    tls: ClientTls
    credentials: Credentials | None = None
    connect_timeout_s: float = 30.0
    sources: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """IP version -> the address that we connect from; none: the kernel chooses."""
    timeouts: Mapping[Phase, float] = dataclasses.field(default_factory=lambda: TIMEOUT_S)
    whole_s: float = 3600.0
    """See Connection."""


class NotServed(Exception):  # noqa: N818 - a state of the world
    """A next hop that takes no mail from us now: unreachable, unwilling, or not as the admin demands."""

    def __init__(self, hop: Hop, enhanced: str, text: str, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.hop = hop
        self.enhanced = enhanced
        self.text = text
        self.reply = reply


async def open_connection(hop: Hop, how: HowToConnect) -> Connection:
    """A connection on which mail may go. Raises NotServed.

    With opportunistic TLS, a server that offers STARTTLS and then fails at it is tried again in the clear.
    """
    try:
        return await _open(hop, how, tls=how.tls.mode != "off")
    except _TlsFailed as failure:
        if how.tls.mode != "opportunistic":
            raise
        try:
            return await _open(hop, how, tls=False)
        except NotServed as error:
            error.text += f" (without TLS, which failed: {failure.text})"
            raise


class NotConnected(NotServed):
    """Nobody is there, as far as can be seen.

    at_once  that was known without waiting: refused, or no way there
    """

    at_once = False


class _TlsFailed(NotServed):
    """The handshake did, or what came right behind it."""


async def _open(hop: Hop, how: HowToConnect, *, tls: bool) -> Connection:
    implicit = tls and how.tls.mode == "implicit"
    engine = ClientConnection(how.options, secure=implicit)
    connection = Connection(engine, timeouts=how.timeouts, whole_s=how.whole_s)
    try:
        await _connect(connection, hop, how)
        if implicit:
            await _shake_hands(connection, hop, how)
        opening = _Opening(connection, hop)
        await opening.ask(None)
        ready = await opening.ask(connection.engine.hello)
        if tls and not implicit and await _starts_tls(opening, how, ready):
            await _shake_hands(connection, hop, how)
            connection.engine.secured()
            await _hello_again(opening)
        if how.credentials is not None:
            await _log_in(opening, how.credentials)
    except BaseException:
        connection.abort()
        raise
    return connection


async def _connect(connection: Connection, hop: Hop, how: HowToConnect) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(how.connect_timeout_s):
            if hop.port == 0:
                await loop.create_unix_connection(lambda: connection, hop.address)
            else:
                source = how.sources.get(ipaddress.ip_address(hop.address).version)
                local = (source, 0) if source else None
                await loop.create_connection(lambda: connection, hop.address, hop.port, local_addr=local)
    except TimeoutError:
        text = f"no connection to {_where(hop)} within {how.connect_timeout_s:g} s"
        raise NotConnected(hop, "4.4.1", text) from None
    except OSError as error:
        text = f"no connection to {_where(hop)}: {reason_of(error)}"
        failure = NotConnected(hop, "4.4.1", text)
        failure.at_once = error.errno != errno.ETIMEDOUT
        raise failure from None


class _Opening:
    """Question and answer, where everything but the one wanted answer ends it."""

    def __init__(self, connection: Connection, hop: Hop) -> None:
        self.connection = connection
        self.hop = hop

    async def ask(self, question: Callable[[], None] | None, *, denied: bool = False) -> ClientEvent:
        """The answer. Raises NotServed for the end of the connection and, unless `denied`, for Denied."""
        connection = self.connection
        if connection.end is None and question is not None:
            question()
        event = await connection.next_event()  # Closed is still to come where it has ended meanwhile
        if isinstance(event, Closed):
            raise self.not_served(event.phase, event.reply, event.why)
        if isinstance(event, Denied) and not denied:
            if connection.end is None:
                connection.quit()
            raise self.not_served(event.phase, event.reply, "")
        return event

    def not_served(self, phase: Phase, reply: Reply | None, why: str) -> NotServed:
        """Of a reply, or of an end without one."""
        if reply is not None:
            enhanced = f"4{reply.enhanced[1:]}" if reply.enhanced else _ENHANCED.get(phase, "4.3.0")
            text = f"{said(reply)} ({_where(self.hop)}, {phase.value})"
            # What is said of our login is the admin's to read, not a client's or a sender's.
            return NotServed(self.hop, enhanced, text, None if phase in _OURS else reply)
        return NotServed(self.hop, "4.4.2", f"{why} ({_where(self.hop)}, {phase.value})")


_ENHANCED = {Phase.AUTH: "4.7.8", Phase.STARTTLS: "4.7.0", Phase.GREETING: "4.3.2"}
"""Where a server says no more than a code."""
_OURS = (Phase.STARTTLS, Phase.AUTH)


async def _starts_tls(opening: _Opening, how: HowToConnect, ready: ClientEvent) -> bool:
    """True: the server waits for the handshake. False: it goes on in the clear."""
    required = how.tls.mode == "required"
    assert isinstance(ready, Ready)
    if not ready.offered.starttls:
        if required:
            opening.connection.quit()
            raise NotServed(opening.hop, "4.7.4", f"TLS is required, and {_where(opening.hop)} offers none")
        return False
    answer = await opening.ask(opening.connection.engine.starttls, denied=not required)
    return isinstance(answer, TlsReady)


async def _shake_hands(connection: Connection, hop: Hop, how: HowToConnect) -> None:
    """As far as a certificate that the admin is content with. Raises _TlsFailed."""
    why = await connection.start_tls(how.tls.context(hop), name=how.tls.server_name(hop))
    if not why:
        why = how.tls.problem(connection.tls, hop) if connection.tls is not None else "there is none"
    if why:
        raise _TlsFailed(hop, "4.7.5", f"TLS with {_where(hop)}: {why}")
    assert connection.tls is not None
    connection.encryption = how.tls.said(connection.tls)


async def _hello_again(opening: _Opening) -> None:
    """Under TLS. With TLS 1.3 a server says only now, by going away, that it did not like the handshake."""
    try:
        await opening.ask(opening.connection.engine.hello)
    except NotServed as why:
        if why.reply is not None:
            raise
        raise _TlsFailed(why.hop, why.enhanced, f"behind the TLS handshake: {why.text}") from None


async def _log_in(opening: _Opening, credentials: Credentials) -> None:
    engine = opening.connection.engine
    hop = opening.hop
    if engine.closed:
        await opening.ask(None)
    try:
        mechanism = engine.authenticate(credentials)
    except ValueError as error:
        raise NotServed(hop, "4.3.5", f"login at {_where(hop)}: {error}") from None
    if mechanism is None:
        offered = " ".join(engine.offered.auth) if engine.offered is not None else ""
        text = f"no login at {_where(hop)}: it offers {offered or 'no AUTH'}"
        text += "" if engine.secure else " without TLS"
        opening.connection.quit()
        raise NotServed(hop, "4.7.0", text)
    answer = await opening.ask(None)
    assert isinstance(answer, Authenticated)


def _where(hop: Hop) -> str:
    """A hop for people: `mx.example.org[192.0.2.1]:25`."""
    if hop.port == 0:
        return hop.address
    return f"{hop.name}[{hop.address}]:{hop.port}" if hop.name != hop.address else f"{hop.name}:{hop.port}"


def said(reply: Reply, *, most: int = 400) -> str:
    """A reply in one line."""
    enhanced = f"{reply.enhanced} " if reply.enhanced else ""
    return f"{reply.code} {enhanced}{' '.join(reply.lines)}"[:most].rstrip()
