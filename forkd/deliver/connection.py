"""How does a dialogue with a next hop run on a socket? A ClientConnection's octets, its clock and its end."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, cast

from forkd.smtp.client import ClientConnection
from forkd.smtp.client_events import BodyWanted, ClientEvent, Closed, Finished, Outcome
from forkd.smtp.client_mail import OutgoingMail
from forkd.smtp.client_phases import TIMEOUT_S, Phase

SLOWEST: Final = 1024
"""Octets of a message that a server must read in a second, on average (Postfix smtp_min_data_rate: 500)."""
SHUTDOWN_S: Final = 5.0
"""For the end of TLS after QUIT, which says nothing that counts."""
_END: Final = object()


class Connection(asyncio.Protocol):
    """One socket to a next hop, and the engine that talks on it. Made by opening.open_connection().

    Whatever the world does to the socket becomes an event of the engine's: nothing here raises for it.
    Who awaits something here and is cancelled calls abort().

    timeouts  of each phase, seconds: for a reply, or for room to write
    whole_s   for the opening, and again for each transaction (and the time that its octets may take), but for
              the reply to the end of the message, which has its whole wait: who drips ends some time
    """

    __slots__ = (
        "_answers", "_deadline", "_end_by", "_events", "_full", "_loop", "_shaking", "_timeouts", "_timer",
        "_timer_at", "_transport", "_unwritten", "_waiter", "_whole_s", "encryption", "end", "engine",
        "used_at",
    )  # fmt: skip

    def __init__(
        self,
        engine: ClientConnection,
        *,
        timeouts: Mapping[Phase, float] = TIMEOUT_S,
        whole_s: float = math.inf,
    ) -> None:
        self.engine = engine
        self.end: Closed | None = None
        """How it ended; None: it is open."""
        self.used_at = 0.0
        """By the loop's clock; the end of the last mail (pool.py)."""
        self.encryption = ""
        """TLS in words (client_tls.ClientTls.said); empty: in the clear."""
        self._loop = asyncio.get_running_loop()
        self._timeouts = timeouts
        self._whole_s = whole_s
        self._end_by = self._loop.time() + whole_s
        self._transport: asyncio.Transport | None = None
        self._shaking = False
        """What comes from here on comes from TLS."""
        self._events: deque[ClientEvent] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._full = False
        """Enough waits to be written."""
        self._unwritten = 0
        """Octets that waited when the clock was set."""
        self._answers = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # --- what is asked --------------------------------------------------------------------------------

    async def next_event(self) -> ClientEvent:
        """Write what is to be said, and wait for the answer. Closed comes once, as the last."""
        self._pump()  # what was asked may have ended it without a word of the server's
        while not self._events:
            await self._wait()
        return self._events.popleft()

    async def transact(self, mail: OutgoingMail, pieces: Iterator[bytes], *, blocks: bool) -> Finished:
        """Send one mail; an outcome for each of its recipients.

        pieces  of the message; not asked for before somebody is to have it
        blocks  they come from a disk: each is fetched in another thread
        Raises what `pieces` raises, with the message open: then abort(), so that it is never complete.
        """
        if self.end is not None:  # since it was opened or taken: nothing was sent
            outcome = Outcome("temporary", self.end.phase, self.end.reply, self.end.why)
            return Finished((outcome,) * len(mail.recipients))
        self._end_by = self._loop.time() + self._whole_s + (mail.size or 0) / SLOWEST
        self.engine.send(mail)
        event = await self.next_event()
        if isinstance(event, BodyWanted):
            await self._send_body(pieces, blocks=blocks)
            event = await self.next_event()
        assert isinstance(event, Finished)
        self._end_by = math.inf
        return event

    async def _send_body(self, pieces: Iterator[bytes], *, blocks: bool) -> None:
        engine = self.engine
        while not self._events:
            if self._full or not engine.wants_body:
                await self._wait()
                continue
            if blocks:
                piece = await self._loop.run_in_executor(None, _next, pieces)
                if self._events or not engine.wants_body:
                    break  # it was refused meanwhile: nothing takes the piece
            else:
                piece = next(pieces, _END)
            if piece is _END:
                engine.end_body()
                break
            engine.body(cast(bytes, piece))
            self._write()

    async def start_tls(self, context: ssl.SSLContext, *, name: str) -> str:
        """Shake hands as the client; empty: TLS holds. Else why it does not, and the connection is over.

        name  the server's, for SNI and the certificate
        """
        plain = self._transport
        assert plain is not None
        if self.end is not None:
            return self.end.why
        self._shaking = True
        try:
            wrapped = await self._loop.start_tls(
                plain,
                self,
                context,
                server_hostname=name,
                ssl_handshake_timeout=self._timeouts[Phase.TLS],
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
            why = "" if wrapped is not None and not wrapped.is_closing() else "the server went away"
        except (OSError, ValueError) as error:  # ssl.SSLError and TimeoutError are OSErrors
            wrapped, why = None, reason_of(error)
        if wrapped is None or why:
            plain.abort()
            self._lost(f"TLS handshake: {why}")
            return why
        self._transport = wrapped
        return ""

    @property
    def tls(self) -> ssl.SSLObject | None:
        """Of the TLS layer; None: the connection is in the clear."""
        found = None if self._transport is None else self._transport.get_extra_info("ssl_object")
        return cast("ssl.SSLObject | None", found)

    def quit(self) -> None:
        """Say goodbye if that is in order, and close without waiting for the answer (as Postfix does)."""
        if not self.engine.closed and self.engine.phase is Phase.IDLE:
            self.engine.quit()
            self._write()
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once: what was begun is not ended, so the server throws it away."""
        self._lost("given up here")

    # --- what the socket says -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """As asyncio.Protocol."""
        if self.engine.secure and not self._shaking:
            # Implicit TLS: whoever speaks before it is not who will show the certificate.
            self._lost("octets in the clear before TLS")
            return
        self.engine.receive_data(data)
        self._pump()

    def eof_received(self) -> None:
        """As asyncio.Protocol: a server that says no more is not asked any more."""
        self.engine.receive_data(b"")
        self._pump()

    def connection_lost(self, error: Exception | None) -> None:
        """As asyncio.Protocol."""
        self._lost(reason_of(error) if error is not None else "the server closed the connection")

    def pause_writing(self) -> None:
        """As asyncio.Protocol."""
        self._full = True

    def resume_writing(self) -> None:
        """As asyncio.Protocol."""
        self._full = False
        self._wake()

    # --- within ---------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Read events, write what they caused, wake whoever waits."""
        engine = self.engine
        while (event := engine.next_event()) is not None:
            self._events.append(event)
            if isinstance(event, Closed):
                self.end = event
        self._write()
        if self.end is not None:
            self._stop_timer()
            if self._transport is not None:
                # Aborted, not closed: what we still had to say is worth nothing to whom we do not believe.
                self._transport.close() if self.end.cause == "quit" else self._transport.abort()
        if self._events or engine.wants_body:
            self._wake()
        elif engine.answers != self._answers and self._waiter is not None:
            self._set_clock()  # one of several answers has come: for the next there is a whole wait again
        self._answers = engine.answers

    def _write(self) -> None:
        octets = self.engine.data_to_send()
        if octets and self._transport is not None:
            self._transport.write(octets)

    def _lost(self, why: str) -> None:
        self.engine.lost(why)
        self._pump()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        """Until something has come, or can be written, or the time is over."""
        waiter = self._waiter = self._loop.create_future()
        self._set_clock()
        try:
            await waiter
        finally:
            self._waiter = None

    def _set_clock(self) -> None:
        """A whole wait is before us. The timer itself is set anew only where it would come too late."""
        if self.engine.closed:
            return
        at = self._loop.time() + self._timeouts[self.engine.phase]
        if self.engine.phase is not Phase.END:
            at = min(at, self._end_by)
        self._deadline = at
        self._unwritten = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if self._timer is None or self._timer_at > at:
            self._stop_timer()
            self._timer, self._timer_at = self._loop.call_at(at, self._tick), at

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done() or self._transport is None:
            return
        if self._loop.time() < self._deadline:
            self._timer, self._timer_at = self._loop.call_at(self._deadline, self._tick), self._deadline
        elif self._deadline == self._end_by:
            self._lost(f"not done in all the time that it may take ({self.engine.phase.value} at last)")
        elif self._transport.get_write_buffer_size() < self._unwritten:
            self._set_clock()  # it reads what we say, however slowly
        else:
            phase = self.engine.phase
            what = "it did not read on" if phase is Phase.BODY else f"no answer to {phase.value}"
            self._lost(f"{what} within {self._timeouts[phase]:g} s")


def _next(pieces: Iterator[bytes]) -> object:
    return next(pieces, _END)


def reason_of(error: BaseException) -> str:
    """Why a connection or a handshake failed, in few words; no octets of the server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, TimeoutError | ConnectionAbortedError) and not error.errno:
        return "took too long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return str(error) or type(error).__name__
