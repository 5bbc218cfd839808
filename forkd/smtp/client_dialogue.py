"""What stands in a dialogue with a server, and what do its replies change of it? (RFC 5321 4.3.2)"""

from __future__ import annotations

import base64
from collections import deque
from typing import Final

from forkd.smtp import client_offered, responses
from forkd.smtp.client_body import ChunkWriter, DotWriter
from forkd.smtp.client_events import (
    Authenticated,
    BodyWanted,
    Cause,
    ClientEvent,
    Closed,
    Denied,
    Finished,
    Greeted,
    Ready,
    TlsReady,
    WasReset,
)
from forkd.smtp.client_offered import HELO_ONLY, Offered
from forkd.smtp.client_phases import ClientOptions, Phase
from forkd.smtp.client_pipeline import Pipeline
from forkd.smtp.client_replies import ReplyReader
from forkd.smtp.client_sasl import ClientExchange
from forkd.smtp.client_transaction import Transaction
from forkd.smtp.reply import Reply

CHUNKS_IN_FLIGHT: Final = 4
"""Chunks sent ahead of their replies, where pipelining is offered."""


class ClientDialogue:
    """The state of one dialogue, and what each reply makes of it.

    Nothing is asked here: that is ClientConnection, which is built on this.
    """

    def __init__(self, options: ClientOptions, *, secure: bool = False) -> None:
        self._options = options
        self._secure = secure
        self._replies = ReplyReader()
        self._eof = False
        self._pipeline = Pipeline()
        self._pipeline.expect(Phase.GREETING)
        self._out: list[bytes] = []
        self._events: deque[ClientEvent] = deque()
        self._greeted = False
        self._tls_waiting = False
        self._closed = False
        self._authenticated = False
        self._offered: Offered | None = None
        self._helo = False
        """HELO was said, because EHLO was refused."""
        self._exchange: ClientExchange | None = None
        self._transaction: Transaction | None = None
        self._writer: DotWriter | ChunkWriter | None = None
        self._deciding: Phase | None = None
        """What the reply that is being looked at was for."""
        self._dirty = False
        """The server may hold a part of a transaction: RSET goes before the next one."""
        self._sent = 0
        self._answers = 0

    # --- what stands ----------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What is waited for."""
        if self._closed:
            return Phase.CLOSED
        if self._tls_waiting:
            return Phase.TLS
        if self._writer is not None:
            return Phase.BODY if self.wants_body else Phase.CHUNK
        return self._pipeline.awaited or Phase.IDLE

    @property
    def closed(self) -> bool:
        """Closed is among the events, or was."""
        return self._closed

    @property
    def secure(self) -> bool:
        """TLS holds."""
        return self._secure

    @property
    def authenticated(self) -> bool:
        """The server knows who we are."""
        return self._authenticated

    @property
    def offered(self) -> Offered | None:
        """What the server can do; None: it was not asked yet, under this encryption."""
        return self._offered

    @property
    def transactions(self) -> int:
        """Mails that were begun."""
        return self._sent

    @property
    def answers(self) -> int:
        """Replies that were read, whether they made an event or not: what shows that the server goes on."""
        return self._answers

    @property
    def wants_body(self) -> bool:
        """body() may be called: the message is open, and not too much of it is unanswered."""
        if self._writer is None:
            return False
        ahead = CHUNKS_IN_FLIGHT if self._pipelining else 1
        return not self._pipeline.unsent and self._pipeline.in_flight < ahead

    @property
    def _pipelining(self) -> bool:
        return self._options.pipelining and self._offered is not None and self._offered.pipelining

    # --- replies --------------------------------------------------------------------------------------

    def _answered(self, reply: Reply) -> None:
        """A reply came: to the oldest command that has none."""
        self._answers += 1
        phase = self.phase
        awaited = self._pipeline.answered()
        if awaited is not None:
            phase = awaited[0]
        self._deciding = phase
        self._weigh(phase, -1 if awaited is None else awaited[1], reply, asked=awaited is not None)
        self._deciding = None
        self._go()

    def _weigh(self, phase: Phase, index: int, reply: Reply, *, asked: bool) -> None:
        if phase is Phase.QUIT:
            self._end("quit", reply=reply)
        elif reply.code == 421:
            self._shut_down(phase, index, reply)
        elif not asked:
            self._unasked(reply)
        elif phase is Phase.RCPT:
            self._rcpt_answered(index, reply)
        elif phase is Phase.END:
            self._end_answered(index, reply)
        elif phase is Phase.AUTH:
            self._auth_answered(reply)
        elif phase is Phase.DATA:
            self._data_answered(reply)
        elif 300 <= reply.code < 400:
            self._violated(f"{reply.code} to {phase.value}")
        elif phase is Phase.MAIL:
            self._mail_answered(reply)
        elif phase is Phase.CHUNK:
            self._chunk_answered(reply)
        elif phase is Phase.RSET:
            self._rset_answered(reply)
        elif reply.ok:
            self._accepted(phase, reply)
        elif phase is Phase.HELLO and reply.code >= 500 and not (self._helo or self._options.lmtp):
            # Whatever the code: a server that knows no EHLO may say anything (RFC 5321 3.2, 4.1.4).
            self._helo = True
            self._ask(Phase.HELLO, f"HELO {self._options.hostname}")
        else:
            self._events.append(Denied(phase, reply))

    def _accepted(self, phase: Phase, reply: Reply) -> None:
        """2xx to what opens a session."""
        if phase is Phase.GREETING:
            self._greeted = True
            self._events.append(Greeted(reply))
        elif phase is Phase.HELLO:
            self._offered = HELO_ONLY if self._helo else client_offered.read(reply.lines)
            self._dirty = False  # EHLO clears as RSET does (RFC 5321 4.1.4)
            self._events.append(Ready(reply, self._offered))
        elif self._replies:
            # Said before the handshake, to be read after it: an injection (CVE-2011-0411, for a client).
            self._violated("octets in the clear behind the reply to STARTTLS")
        else:
            self._tls_waiting = True
            self._events.append(TlsReady())

    def _auth_answered(self, reply: Reply) -> None:
        exchange = self._exchange
        if reply.code == 334 and exchange is not None:
            challenge = responses.decode(reply.lines[0].encode()) if len(reply.lines) == 1 else None
            answer = None if challenge is None else exchange.answer(challenge)
            if answer is None:
                self._exchange = None
            self._ask(Phase.AUTH, "*" if answer is None else base64.b64encode(answer).decode("ascii"))
        elif not reply.ok:
            self._exchange = None
            self._events.append(Denied(Phase.AUTH, reply))
        elif reply.code < 300 and exchange is not None and exchange.convinced:
            self._exchange = None
            self._authenticated = True
            self._events.append(Authenticated(reply))
        else:
            self._violated(f"{reply.code} to an exchange of AUTH that has not come so far")

    def _rset_answered(self, reply: Reply) -> None:
        if not reply.ok:
            self._end("abandoned", reply=reply, why="RSET was refused")
            return
        if self._transaction is None:
            self._dirty = False
            self._events.append(WasReset())

    # --- replies in a transaction ---------------------------------------------------------------------

    def _mail_answered(self, reply: Reply) -> None:
        assert self._transaction is not None
        self._transaction.sender_accepted = reply.ok
        if not reply.ok:
            self._transaction.decide_all(Phase.MAIL, reply)
            self._pipeline.drop_unsent()
        self._advance()

    def _rcpt_answered(self, index: int, reply: Reply) -> None:
        assert self._transaction is not None
        if 300 <= reply.code < 400:
            self._violated(f"{reply.code} to rcpt")
            return
        if reply.ok:
            self._transaction.accepted.append(index)
        else:
            self._transaction.decide(index, Phase.RCPT, reply)
        self._advance()

    def _advance(self) -> None:
        """MAIL and all RCPT were answered: on to the message, if anybody is to have it."""
        transaction = self._transaction
        if transaction is None or not self._pipeline.idle:
            return
        if transaction.mail.together:
            transaction.refuse_together()
        if not (transaction.sender_accepted and transaction.accepted):
            self._finish(dirty=True)
        elif transaction.chunked:
            self._writer = ChunkWriter(self._options.chunk_octets)
            self._events.append(BodyWanted())
        else:
            self._pipeline.add(Phase.DATA, b"DATA\r\n")

    def _data_answered(self, reply: Reply) -> None:
        transaction = self._transaction
        assert transaction is not None
        if not reply.ok:
            transaction.decide_all(Phase.DATA, reply)
            self._finish(dirty=True)
        elif reply.code != 354:
            self._violated(f"{reply.code} to data")
        elif transaction.sender_accepted and transaction.accepted:
            self._writer = DotWriter()
            self._events.append(BodyWanted())
        elif transaction.accepted or self._options.lmtp:
            # Whoever takes recipients for a sender it refused would deliver an empty message to them.
            self._end("abandoned", reply=reply, why="354 where nobody was accepted")
        else:
            self._out.append(b".\r\n")  # RFC 2920 3.1: a message for nobody, ended at once
            self._pipeline.expect(Phase.END)

    def _chunk_answered(self, reply: Reply) -> None:
        if reply.ok:
            return
        assert self._transaction is not None
        self._transaction.decide_all(Phase.CHUNK, reply)
        self._writer = None
        if self._pipeline.idle:
            self._finish(dirty=True)
        else:
            # Chunks are on their way that it must refuse too; to guess how is not worth a connection.
            self._end("abandoned", reply=reply, why="a chunk was refused")

    def _end_answered(self, index: int, reply: Reply) -> None:
        transaction = self._transaction
        assert transaction is not None
        if 300 <= reply.code < 400:
            self._violated(f"{reply.code} to the end of the message")
            return
        if index >= 0:
            transaction.decide(index, Phase.END, reply)
        else:
            transaction.decide_all(Phase.END, reply)
        if self._pipeline.idle:
            self._finish(dirty=False)

    def _unasked(self, reply: Reply) -> None:
        """A reply that nobody waits for."""
        if self._transaction is not None and self._writer is not None and not reply.ok:
            # A server that has seen enough of the message, before its end: there is no way to stop it
            # but to close. What it says is its answer all the same.
            self._transaction.decide_all(Phase.BODY, reply)
            self._end("abandoned", reply=reply, why="refused before its end")
        else:
            self._violated(f"{reply.code}, and nothing was asked")

    # --- ends -----------------------------------------------------------------------------------------

    def _finish(self, *, dirty: bool) -> None:
        """The transaction is over, the connection is not."""
        assert self._transaction is not None
        self._events.append(Finished(self._transaction.outcomes))
        self._transaction = None
        self._dirty = dirty

    def _shut_down(self, phase: Phase, index: int, reply: Reply) -> None:
        """421, which any command may have, and none (RFC 5321 3.8)."""
        transaction = self._transaction
        if transaction is not None and index >= 0 and phase is Phase.END:
            transaction.decide(index, Phase.END, reply)  # the other recipients' replies do not come any more
            transaction.decide_all(Phase.END, reply, why="no reply of its own", uncertain=True)
        elif transaction is not None:
            transaction.decide_all(phase, reply)
        self._end("shutdown", reply=reply)

    def _violated(self, why: str) -> None:
        self._end("violation", why=why)

    def _end(self, cause: Cause, *, reply: Reply | None = None, why: str = "") -> None:
        """Nothing more is said or heard."""
        if self._closed:
            return
        phase = self._deciding or self.phase
        transaction = self._transaction
        if transaction is not None:
            uncertain = transaction.ended and not self._pipeline.unsent
            transaction.decide_all(phase, None, why=why, uncertain=uncertain)
            self._finish(dirty=True)
        self._closed = True
        self._writer = None
        self._exchange = None
        self._pipeline.clear()
        self._replies.clear()
        self._out.clear()
        self._events.append(Closed(cause, phase, reply, why))

    def lost(self, why: str) -> None:
        """Nothing more will come or go: a timeout, a failed handshake, an error of the socket, a message that
        cannot be read on. Close the socket; what was begun is not ended, so the server throws it away."""
        self._end("quit" if self.phase is Phase.QUIT else "lost", why=why)

    def _ask(self, phase: Phase, line: str) -> None:
        self._pipeline.add(phase, line.encode("ascii") + b"\r\n")
        self._go()

    def _go(self) -> None:
        """Whatever may go now, goes."""
        self._out += self._pipeline.leave(pipelining=self._pipelining)
