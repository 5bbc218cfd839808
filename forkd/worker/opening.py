"""What happens before the greeting? PROXY header, TLS from the first octet, admission, names, early talkers.

In this order: whose connection is it (a PROXY header, from networks.proxy alone); is there room (no
handshake is worked out for who is refused); TLS where the listener has it implicit; then at the same time
anvil's answer, the client's name and the greeting delay; then the connect hook; then 220.

What can be told at once is told at once: a client that is trusted, has a known name and meets no connect
hook is greeted without a task being made for it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from forkd import log
from forkd.smtp import replies
from forkd.smtp.reply import Reply, reply
from forkd.smtp.server import ServerConnection
from forkd.worker import tls
from forkd.worker.proxy import BadHeader, Endpoints, HeaderReader
from forkd.worker.room import MOST_WAIT, PATIENCE_S, TRY_S

if TYPE_CHECKING:
    from forkd.worker.listening import Listening
    from forkd.worker.session import Session

HEADER_S = 5.0
"""For a PROXY header, which is sent with the connection: 3 s and more, so that a lost packet is made up for
(proxy-protocol.txt, section 2)."""

NOT_A_PROXY = reply(421, "4.7.0", "Not for direct connections", close=True)
"""To a client that is not in networks.proxy, on a listener for proxies."""


class Early:
    """Octets that come before anybody asked for them.

    keeps  they are not SMTP as they stand (a PROXY header, a handshake): kept here, not given to the engine
    """

    __slots__ = ("_came", "_keeps", "_octets")

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._octets = b""
        self._came: asyncio.Future[None] | None = None

    def takes(self, data: bytes) -> bool:
        """Wake who waits; true when the octets are kept here."""
        if self._came is not None and not self._came.done():
            self._came.set_result(None)
        if self._keeps:
            self._octets += data
        return self._keeps

    def take(self) -> bytes:
        """What was kept; it is whose who takes it."""
        octets, self._octets = self._octets, b""
        return octets

    async def wait(self, timeout_s: float, *, whatever: bool = False) -> None:
        """Until something comes, or the time is over; `whatever` comes: until the time is over."""
        if self._octets:
            return
        came = asyncio.get_running_loop().create_future()
        if not whatever:
            self._came = came
        await asyncio.wait((came,), timeout=timeout_s)
        self._came = None


def begin(session: Session) -> None:
    """The connection stands: everything up to the greeting."""
    log.connected(session=session.id, client=session.who()["client"], listener=session.listener)
    listening = session.services.listeners[session.listener]
    if listening.proxy or listening.implicit_tls:
        session.early = Early(keeps=True)
        session.start(_unwrap(session, listening))
        return
    _speak(session, listening)
    refusal = _room(session)
    if refusal is replies.OVERLOAD_CLOSE and session.services.room.waiting < MOST_WAIT:
        session.start(_come_in(session, listening))
        return
    if refusal is not None:
        _refuse_room(session, refusal)
        session.say_and_close(refusal, session.reason)
        return
    services = session.services
    name = services.names.known(session.client.address)
    if name is None or session.client.key or services.dispatcher.wants("connect"):
        session.start(_welcome(session, _delay_s(session, listening)))
    else:
        session.client_name = name
        session.greet(None)


async def introduce(
    session: Session, *, delay_s: float | None = None, counted: bool = False, named: bool = False
) -> Reply | None:
    """All that is asked about a client with this address: a refusal, or None.

    delay_s  of the greeting, in which nobody may talk; None: it was said before (XCLIENT)
    counted  anvil knows of this client already
    named    client_name stands
    Blocks   for anvil (1 s at most), the name (names.timeout at most) and `delay_s`, all at the same time,
             and then for the connect hook. Who talks too early hears of it at once.
    """
    services = session.services
    began = time.monotonic()
    name = session.client_name if named else services.names.lookup(session.address)
    try:
        refusal = None if counted else await services.admission.ask(session.client)
        if refusal is not None:
            session.reason = "refused"
            return refusal
        if delay_s is not None:
            await _listen(session, began + delay_s)
            if (refusal := too_early(session)) is not None:
                return refusal
        session.client_name = name if isinstance(name, str) else await name
    finally:
        if isinstance(name, asyncio.Future):
            name.cancel()
    if services.dispatcher.wants("connect"):
        decision = await session.plugins.ask("connect")
        if decision.reply is not None:
            session.errors += 1
            if decision.close:
                session.reason = "plugin"
            return decision.reply
    return None


async def _listen(session: Session, until: float) -> None:
    """Until the greeting is due, or somebody has earned to hear it sooner."""
    refuses = session.services.listeners[session.listener].options.early_talker == "refuse"
    left_s = until - time.monotonic()
    if left_s > 0 and session.early is not None and not (refuses and session.conn.has_input):
        await session.early.wait(left_s, whatever=not refuses)


def too_early(session: Session) -> Reply | None:
    """What a client earns that has spoken before the greeting; None: it has not, or it may."""
    refusal = session.conn.too_early()
    if refusal is not None:
        talked(session, refusal)
    return refusal


def talked(session: Session, refusal: Reply) -> None:
    """A client is sent away for what it said unasked: the session's reason; TLS is counted."""
    if refusal is replies.NOT_TLS:
        tls.failed(session, "TLS from the first octet, on a listener that begins in the clear")
    else:
        session.reason = "early talker"


# --- a connection that speaks SMTP at once --------------------------------------------------------------


def _speak(session: Session, listening: Listening) -> None:
    client = session.client
    session.conn = ServerConnection(
        listening.options, wire=client.wire, xclient=client.xclient, secure=session.tls is not None
    )


def _room(session: Session) -> Reply | None:
    refusal = session.enter()
    if refusal is None and session.services.draining:
        return replies.SHUTTING_DOWN
    return refusal


async def _wait_for_room(session: Session) -> Reply | None:
    """A place, as soon as somebody has one to give (room.py): a refusal, or None."""
    refusal, room = _room(session), session.services.room
    if refusal is replies.OVERLOAD_CLOSE and room.waiting < MOST_WAIT:
        until = time.monotonic() + PATIENCE_S
        room.waiting += 1
        try:
            while refusal is replies.OVERLOAD_CLOSE and time.monotonic() < until:
                await asyncio.sleep(TRY_S)
                refusal = _room(session)
        finally:
            room.waiting -= 1
    if refusal is not None:
        _refuse_room(session, refusal)
    return refusal


def _refuse_room(session: Session, refusal: Reply) -> None:
    session.reason = "shutdown"
    if refusal is replies.OVERLOAD_CLOSE:
        session.reason = "overload"
        session.services.counters.overloads += 1


async def _come_in(session: Session, listening: Listening) -> None:
    refusal = await _wait_for_room(session)
    if refusal is not None:
        session.say_and_close(refusal, session.reason)
    else:
        await _welcome(session, _delay_s(session, listening))


def _delay_s(session: Session, listening: Listening) -> float:
    """Of the greeting; who goes away in it is let go at once."""
    delay_s = 0.0 if session.client.trusted else listening.greeting_delay_s
    session.early = Early(keeps=False) if delay_s else None
    return delay_s


async def _welcome(session: Session, delay_s: float) -> None:
    session.greet(await introduce(session, delay_s=delay_s))


# --- one that begins with something else ----------------------------------------------------------------


async def _unwrap(session: Session, listening: Listening) -> None:
    early = session.early
    assert early is not None
    if listening.proxy and not await _believe_proxy(session, listening, early):
        return
    refusal = await _wait_for_room(session)
    if refusal is not None and listening.implicit_tls:
        session.abort(session.reason)  # nobody would understand us
        return
    if listening.implicit_tls and await tls.start_tls(session, early.take()) is None:
        return
    _speak(session, listening)
    if refusal is not None:
        session.say_and_close(refusal, session.reason)
        return
    if octets := early.take():
        session.conn.receive_data(octets)
    await _welcome(session, _delay_s(session, listening))


async def _believe_proxy(session: Session, listening: Listening, early: Early) -> bool:
    """Read the header; false: the connection is closed."""
    if not session.client.proxy:
        _tell(session, "not in networks.proxy")
        if listening.implicit_tls:
            session.abort("proxy")
        else:
            session.say_and_close(NOT_A_PROXY, "proxy")
        return False
    reader = HeaderReader()
    until = time.monotonic() + HEADER_S
    try:
        header = reader.feed(early.take())
        while header is None:
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise BadHeader(f"no whole header within {HEADER_S:g} s")
            await early.wait(left_s)
            header = reader.feed(early.take())
    except BadHeader as error:
        # Not a word: what is there does not speak as agreed (proxy-protocol.txt, section 2).
        _tell(session, str(error))
        session.abort("proxy")
        return False
    early.takes(reader.rest)
    if header.endpoints is not None:
        _become(session, header.endpoints)
    return True


def _become(session: Session, endpoints: Endpoints) -> None:
    session.become(endpoints.source, endpoints.destination)
    session.proxied = True


def _tell(session: Session, why: str) -> None:
    log.service(
        act="proxy_refused",
        level="warning",
        detail=why,
        session=session.id,
        client=f"{session.peer[0]}:{session.peer[1]}",
        listener=session.listener,
    )
