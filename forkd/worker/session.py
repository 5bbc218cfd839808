"""How do bytes become replies? The pump of one session: socket -> engine -> handler -> engine -> socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, cast

from forkd import log
from forkd.queue.spool import SpoolError
from forkd.smtp import replies
from forkd.smtp.events import DataChunk
from forkd.smtp.reply import Reply
from forkd.smtp.server import ServerConnection, State
from forkd.worker import ending, handlers, opening, receiving, telling
from forkd.worker.identity import Identity
from forkd.worker.patience import Patience
from forkd.worker.plugins import SessionPlugins
from forkd.worker.services import Commit, Services
from forkd.worker.transaction import Transaction

BUFFERED_BYTES = 64 * 1024
"""Input kept while a reply is awaited; beyond it the socket is left unread."""
LINGER_S = 30.0
"""How long a closing connection may take to read what we said last."""


class Session(Identity, asyncio.Protocol):
    """One client's dialogue.

    Nothing is parsed while a reply is awaited (`waiting`), so replies keep the order of their
    commands.
    """

    __slots__ = (
        "_buffered",
        "_task",
        "choked",
        "closing",
        "committing",
        "conn",
        "early",
        "errors",
        "half_closes",
        "handing_on",
        "last_reply",
        "last_words",
        "messages",
        "patience",
        "plugins",
        "reason",
        "recipients",
        "started_at",
        "transaction",
        "transport",
        "waiting",
    )

    transport: asyncio.Transport
    plugins: SessionPlugins
    patience: Patience
    conn: ServerConnection

    def __init__(self, services: Services, listener: str) -> None:
        super().__init__(services, listener)
        self.transaction: Transaction | None = None
        self.waiting = True
        self.committing = False
        """The committer has our message; what becomes of the client changes nothing."""
        self.handing_on = False
        """The next hop has our message, or may have it (accept = "proxy")."""
        self.closing = False
        """It is over: what was said last goes out, nothing is read."""
        self.last_words: tuple[Reply, str] | None = None
        """After the answer that is awaited it ends with this reply, for this reason (ending.py)."""
        self.reason = ""
        self.last_reply: Reply | None = None
        self.messages = self.recipients = self.errors = 0
        self.early: opening.Early | None = None
        """Who is to know that octets came before the greeting, and takes them where they are not SMTP."""
        self.half_closes = True
        """Can the client end its side and still read ours? Not from the first octet of TLS on."""
        self._task: asyncio.Task[None] | None = None
        self._buffered = 0
        self.choked = False

    # --- the connection's life ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there: what comes before the greeting is opening.py's."""
        self.transport = cast(asyncio.Transport, transport)
        peername = transport.get_extra_info("peername") or self.unnamed_peer
        if not peername:
            self.transport.abort()  # gone before we could look: nobody to talk to, nothing to count
            return
        services = self.services
        self.started_at = time.monotonic()
        self.patience = Patience(services.config.timeouts, self.started_at)
        self.id = services.ids.new()
        services.counters.connections += 1
        services.sessions.add(self)
        self.become(peername[:2])
        self.plugins = SessionPlugins(services, self)
        opening.begin(self)

    def greet(self, refusal: Reply | None) -> None:
        """Say the first words: 220, or the refusal; then serve what has come meanwhile."""
        if self.closing or self.transport.is_closing():
            return
        self.early = None
        if refusal is None:
            refusal = opening.too_early(self)
        self._begin(refusal, self.conn.greeting(refusal))

    def abort(self, reason: str) -> None:
        """Cut the connection where nothing can be said (before TLS, to a proxy)."""
        self.reason = self.reason or reason
        self.closing = True
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio.Protocol
        """The connection is gone, by whomever: free everything, log the session."""
        services = self.services
        if self not in services.sessions:
            return
        services.sessions.discard(self)
        self.cut_short()
        # A commit under way goes on: the message may be ours already, and is delivered then.
        if self.transaction is not None and not self.committing:
            self.transaction.abort()
            self.transaction = None
        self.leave()
        telling.session_ended(self)

    def cut_short(self, *, only_waits: bool = False) -> None:
        """Give up what is under way, and the plugins: nobody waits for either any more.

        only_waits  what is under way is no call of a plugin: they may say goodbye
        """
        asked, self._task = self._task, None
        if asked is not None:
            asked.cancel()
        self.plugins.release(cut_off=asked is not None and not only_waits)

    def close(self, reason: str) -> None:
        """End the session: what was written still goes out, nothing more is read."""
        if self.closing:
            return
        self.closing = True
        self.waiting = True
        self.reason = reason
        self.patience.by = time.monotonic() + LINGER_S
        self.transport.close()

    # --- bytes in, replies out ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; kept, not parsed, while a reply is awaited or the client reads none."""
        if self.waiting or self.choked:
            if self.early is None or not self.early.takes(data):
                self.conn.receive_data(data)
            self._buffered += len(data)
            if self._buffered > BUFFERED_BYTES and not self.closing:
                self.transport.pause_reading()
            return
        self.conn.receive_data(data)
        self.pump()

    def eof_received(self) -> bool:
        """The client closed its side: what it has said is answered first, then the dialogue is over."""
        if (
            not self.half_closes
            or not (self.waiting or self.choked)
            or self.closing
            or (self.early is not None and not self._buffered)
        ):
            return False
        if hasattr(self, "conn"):
            self.conn.receive_data(b"")
        return True

    def pause_writing(self) -> None:
        """The client does not read: stop producing replies."""
        self.choked = True

    def resume_writing(self) -> None:
        """It reads again."""
        self.choked = False
        if not self.waiting:
            self._go_on()

    def pump(self) -> None:
        """Handle what is buffered until bytes are missing or a reply must be waited for."""
        conn = self.conn
        out: list[bytes] = []
        try:
            while not self.choked:
                event = conn.next_event()
                if event is None:
                    break
                kind = type(event)
                if kind is DataChunk:
                    assert self.transaction is not None
                    self.transaction.write(event.data)  # type: ignore[union-attr, arg-type]
                    continue
                result = handlers.HANDLERS[kind](self, event)
                if not isinstance(result, Reply):
                    self.waiting = True
                    if result is not None:
                        self.start(result)
                    break
                out.append(self._take_effect(result))
        except Exception as error:  # the session's boundary: 421, logged, counted
            self._fail(error)
        if out:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        state = conn.state
        if state is State.CLOSED and not self.closing:
            self.close(self.reason or "lost")
        elif state is State.TLS:
            self._secure()
        elif not self.waiting:
            self.patience.heard_at = time.monotonic()
            if self.services.draining:
                ending.drain(self)

    def answer(self, reply: Reply) -> None:
        """The awaited reply is there: send it and go on. Nothing happens when the client has gone."""
        if self.closing or self.transport.is_closing():
            return
        try:
            self.transport.write(self._take_effect(reply))
        except Exception as error:  # the session's boundary: 421, logged, counted
            self._fail(error)
            return
        self._go_on()

    def _go_on(self) -> None:
        self.waiting = False
        if self.last_words is not None and self.conn.state is not State.CLOSED:
            ending.at_once(self, *self.last_words)
            return
        if self._buffered:
            self._buffered = 0
            self.transport.resume_reading()
        self.pump()

    def restart(self, refusal: Reply | None) -> None:
        """XCLIENT was obeyed: the engine begins anew and greets again, or refuses."""
        if self.closing or self.transport.is_closing():
            return
        self._begin(refusal, self.conn.restart(refusal, authenticated=bool(self.user)))

    def _begin(self, refusal: Reply | None, words: bytes) -> None:
        if refusal is not None:
            self.last_reply = refusal
            if not refusal.close:  # else it is what the session's line ends with
                telling.refused(self, refusal)
        self.services.measuring.replied(220 if refusal is None else refusal.code)
        self.transport.write(words)
        self._go_on()

    def _secure(self) -> None:
        """220 to STARTTLS is written: not an octet is read before the handshake."""
        self.waiting = True
        self.early = opening.Early(keeps=True)
        self.transport.pause_reading()
        self.start(handlers.secure(self))

    def secured(self) -> None:
        """TLS holds: the dialogue begins anew inside it (RFC 3207 4.2)."""
        early, self.early = self.early, None
        self.user = ""
        self.conn.secured()
        if early is not None and (octets := early.take()):  # came with the end of the handshake
            self.conn.receive_data(octets)
        self._go_on()

    def _take_effect(self, reply: Reply) -> bytes:
        self.last_reply = reply
        octets = self.conn.send(reply)
        if octets:
            self.services.measuring.replied(reply.code)
        if reply.code >= 400 and octets:  # a chunk is read over before it is answered, then this comes again
            self.errors += 1
            self.services.counters.refused += 1
            if reply.close and not self.reason:
                self.reason = "refused"
        return octets

    def start(self, work: Coroutine[Any, Any, Reply | None]) -> None:
        """Do this while nothing else is handled; what it gives is the answer(), None: somebody else's."""
        self._task = self.services.loop.create_task(self._run(work))

    async def _run(self, work: Coroutine[Any, Any, Reply | None]) -> None:
        try:
            reply = await work
        except Exception as error:  # the session's boundary: 421, logged, counted
            self._fail(error)
            return
        finally:
            self._task = None
        if reply is not None:
            self.answer(reply)

    def _fail(self, error: Exception) -> None:
        """Our own fault: this session ends, the others do not notice."""
        log.bug(where="session", error=error, session=self.id)
        self.services.counters.bugs += 1
        self.say_and_close(replies.LOCAL_ERROR_CLOSE, "failed")

    def say_and_close(self, reply: Reply, reason: str) -> None:
        """Send a last reply that no command asked for (421), and close."""
        if not self.closing:
            self.last_reply = reply
            self.services.measuring.replied(reply.code)
            self.transport.write(reply.encode())
            self.close(reason)

    # --- what others ask of it ------------------------------------------------------------------------

    def evict(self) -> bool:
        """Others wait for this session's sandboxes: end it (421 4.3.2) unless something is under way."""
        return ending.evict(self)

    @property
    def idle_since(self) -> float | None:
        """When the client was heard last; None: something is under way (room.py)."""
        if self.waiting or self.closing or self.transaction is not None:
            return None
        return self.patience.heard_at

    def give_way(self) -> None:
        """Others want this place (room.py): 421 4.3.2. Who reads nothing, or does not end TLS, is cut off."""
        ending.give_way(self)

    def in_mail(self) -> bool:
        """Mail is on its way: others should give way before."""
        return self.transaction is not None

    def committed(self, commit: Commit, result: str | SpoolError) -> None:
        """The committer is done with our message: from a queue id on, the mail is ours."""
        self.committing = False
        self.answer(receiving.end_of_transaction(self, commit, result))
