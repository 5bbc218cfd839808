"""What stands in a dialogue, and what do our replies change of it? (RFC 5321 4.1.1, 4.1.4)"""

from __future__ import annotations

from forkd.smtp import replies
from forkd.smtp.address import Mailbox
from forkd.smtp.chunks import ChunkReader, RefusedChunk
from forkd.smtp.commands import MAX_EXTRA_OCTETS, Chunk
from forkd.smtp.data import DataReader
from forkd.smtp.events import (
    Auth,
    AuthData,
    ChunkEnd,
    Data,
    DataEnd,
    Event,
    Expn,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Refused,
    Rset,
    StartTls,
    Vrfy,
    Xclient,
)
from forkd.smtp.lines import Input
from forkd.smtp.opening import OpeningReader
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply
from forkd.smtp.responses import ResponseReader
from forkd.smtp.states import ProtocolError, State
from forkd.smtp.terms import terms

_ACCEPTING = {
    Data: (354,),
    Auth: (235, 334),
    AuthData: (235, 334),
    StartTls: (220,),
    Xclient: (220,),
    Refused: (),
}
"""The codes that accept an event; any 2xx where it is not in here."""
_RESPONSES = ResponseReader()
_READY, _CLOSED = State.READY, State.CLOSED


class Dialogue:
    """The state of one dialogue: who the client is, its transaction, what is unread, what waits for a reply.

    Nothing is read or decided here: that is ServerConnection, which is built on this.
    """

    __slots__ = (
        "_authenticated",
        "_chunk",
        "_chunks",
        "_errors",
        "_esmtp",
        "_helo",
        "_input",
        "_line_limit",
        "_moves",
        "_normalize",
        "_options",
        "_pending",
        "_reader",
        "_recipients",
        "_secure",
        "_sender",
        "_smtputf8",
        "_state",
        "_target",
        "_terms",
        "_xclient",
    )

    _chunk: Chunk
    """The BDAT that a pending Data tells of."""

    def __init__(
        self, options: ServerOptions, *, wire: str | None = None, xclient: bool = False, secure: bool = False
    ) -> None:
        self._options = options
        self._line_limit = options.command_line + MAX_EXTRA_OCTETS
        self._input = Input(long_auth=bool(options.auth))
        self._normalize = (wire or options.wire) == "normalize"
        self._xclient = xclient
        self._secure = secure
        self._authenticated = False
        self._terms = terms(options, secure, False, xclient)
        self._enter(State.GREETING)
        self._pending: Event | None = None
        self._target = State.GREETING
        """The state after the pending event, if it is accepted."""
        self._errors = 0
        self._helo: str | None = None
        self._esmtp = False
        self._sender: Mailbox | None = None
        self._smtputf8 = False
        self._recipients: list[Mailbox] = []
        self._reader: OpeningReader | DataReader | ChunkReader | RefusedChunk | ResponseReader | None = None
        """Who reads what comes next, where that is no command."""
        self._chunks: ChunkReader | None = None
        """Of a message that comes by BDAT; between chunks too."""

    # --- what stands ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """What the client may do next; unchanged while an event waits for its reply."""
        return self._state

    @property
    def pending(self) -> bool:
        """An event waits for its reply."""
        return self._pending is not None

    @property
    def has_input(self) -> bool:
        """Octets are there that no event has told of yet: replies may be joined while it is so."""
        return bool(self._input)

    @property
    def closed(self) -> bool:
        """Nothing more will be read: after QUIT, a reply that closes, or the peer's end."""
        return self._state is State.CLOSED

    @property
    def tls_waiting(self) -> bool:
        """STARTTLS was answered 220: hand the connection to TLS, then call secured()."""
        return self._state is State.TLS

    @property
    def secure(self) -> bool:
        """TLS holds."""
        return self._secure

    @property
    def authenticated(self) -> bool:
        """AUTH was answered 235."""
        return self._authenticated

    @property
    def helo(self) -> str | None:
        """The name last accepted with HELO or EHLO."""
        return self._helo

    @property
    def esmtp(self) -> bool:
        """It was EHLO."""
        return self._esmtp

    @property
    def sender(self) -> Mailbox | None:
        """Of the transaction; None is the null sender, or no transaction: see in_transaction."""
        return self._sender

    @property
    def smtputf8(self) -> bool:
        """The transaction is one of RFC 6531."""
        return self._smtputf8

    @property
    def recipients(self) -> tuple[Mailbox, ...]:
        """Accepted so far in the transaction."""
        return tuple(self._recipients)

    @property
    def in_transaction(self) -> bool:
        """From an accepted MAIL to the answered end of data, RSET, HELO, EHLO, a refused DATA or chunk."""
        return self._state in (State.MAIL, State.RCPT, State.DATA, State.CHUNKS)

    @property
    def errors(self) -> int:
        """Commands answered 5xx since the last accepted message."""
        return self._errors

    def set_wire(self, wire: str) -> None:
        """From the next message on: `normalize` or `reject`."""
        self._normalize = wire == "normalize"

    # --- what replies change --------------------------------------------------------------------------

    def _accept(self, event: Event, reply: Reply) -> bytes:
        code = reply.code
        accepting = _ACCEPTING.get(type(event))
        if (code >= 300) if accepting is None else (code not in accepting):
            raise ProtocolError(f"{code} is no answer to {type(event).__name__}")
        target = self._target
        if isinstance(event, Mail):
            self._sender = event.sender
            self._smtputf8 = "SMTPUTF8" in event.parameters
        elif isinstance(event, Rcpt):
            self._recipients.append(event.recipient)
        elif isinstance(event, Data):
            self._enter(target)
            limit, normalize = self._options.message_size, self._normalize
            if not event.chunked:
                self._reader = DataReader(limit, normalize=normalize)
                return reply.encode()
            self._reader = self._chunks = ChunkReader(limit, normalize=normalize)
            self._reader.begin(self._chunk.octets, last=self._chunk.last)
            return b""
        elif isinstance(event, DataEnd):
            if event.fault is not None:
                raise ProtocolError(f"{code} would accept a message that earned {event.fault.code}")
            self._forget()
            self._errors = 0
        elif isinstance(event, Hello):
            self._forget()
            self._helo = event.name
            self._esmtp = event.extended
        elif isinstance(event, Quit):
            self._close()
            return reply.encode()
        elif isinstance(event, Rset):
            self._forget()
        else:
            return self._accept_seldom(event, reply)
        self._state = target  # _enter(), written out: it is done for every command
        self._moves = self._terms.moves[target]
        return reply.encode()

    def _accept_seldom(self, event: Event, reply: Reply) -> bytes:
        target = self._target
        if isinstance(event, ChunkEnd):
            self._reader = None
        elif isinstance(event, Auth | AuthData):
            if isinstance(event, AuthData) and event.data is None:
                raise ProtocolError(f"{reply.code} would go on where the client gave up")
            self._reader = None
            if reply.code == 334:
                self._reader = _RESPONSES
                target = State.AUTH
            else:
                self._authenticated = True
                self._set_terms()
        elif isinstance(event, StartTls) and self._input:
            # It may have come after the line was read: what is said in the clear is never said under TLS.
            self._close()
            return replies.EARLY_TALKER.encode()
        elif isinstance(event, Xclient):
            self._start_over()
        self._enter(target)
        return reply.encode()

    def _reject(self, event: Event, reply: Reply, *, closing: bool) -> bytes:
        octets = reply.encode(smtputf8=self._reads_utf8(event))
        if isinstance(event, DataEnd):
            self._forget()
            self._enter(self._target)
            return octets
        if isinstance(event, Quit):
            # 221 is the only answer (RFC 5321 4.1.1.10); the client has gone in any case.
            self._close()
            return octets
        if isinstance(event, Data) and event.chunked and not closing:
            smtputf8 = self._smtputf8
            self._forget()
            self._enter(_READY)
            self._reader = RefusedChunk(self._chunk.octets, reply, smtputf8=smtputf8)
            return b""
        if reply.code >= 500:
            self._errors += 1
        if isinstance(event, Data | ChunkEnd):
            self._forget()
            self._enter(_READY)
        elif self._reader is not None:  # a chunk was read over, or an exchange of AUTH is over
            self._reader = None
            if self._state is State.AUTH:
                self._enter(_READY)
        return octets

    def _reads_utf8(self, event: Event) -> bool:
        """The client has said that it reads UTF-8 in the answer to this command (RFC 6531 3.7.4)."""
        if isinstance(event, Mail | Vrfy | Expn):
            return event.smtputf8
        if isinstance(self._reader, RefusedChunk):
            return self._reader.smtputf8
        return self._smtputf8

    def _forget(self) -> None:
        """The transaction is over."""
        self._sender = None
        self._smtputf8 = False
        if self._recipients:
            self._recipients = []
        self._reader = self._chunks = None

    def _start_over(self, *, authenticated: bool = False) -> None:
        """As after the greeting."""
        self._forget()
        self._helo = None
        self._esmtp = False
        self._authenticated = authenticated
        self._set_terms()
        self._enter(State.FRESH)

    def _set_terms(self) -> None:
        self._terms = terms(self._options, self._secure, self._authenticated, self._xclient)

    def _enter(self, state: State) -> None:
        self._state = state
        self._moves = self._terms.moves[state]

    def _close(self) -> None:
        self._enter(_CLOSED)
        self._pending = None
        self._forget()
        self._input.clear()
