"""What did the client do, and may it? The server's side of one SMTP connection, without the connection."""

from __future__ import annotations

from forkd.smtp import extensions, replies
from forkd.smtp.chunks import RefusedChunk
from forkd.smtp.commands import COMMANDS, UNSUPPORTED, Chunk
from forkd.smtp.dialogue import Dialogue
from forkd.smtp.events import (
    Auth,
    AuthData,
    ChunkEnd,
    Data,
    DataChunk,
    DataEnd,
    Event,
    Hello,
    Mail,
    Rcpt,
    Refused,
    StartTls,
    Xclient,
)
from forkd.smtp.opening import OPENING, TLS_RECORD, Commands
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply
from forkd.smtp.states import END_OF_CHUNK, END_OF_DATA, RESPONSE, ProtocolError, State, out_of_order

__all__ = ["ProtocolError", "ServerConnection", "ServerOptions", "State"]

_PLACES = {DataEnd: END_OF_DATA, ChunkEnd: END_OF_CHUNK, AuthData: RESPONSE}
"""What the end of a reader's work is called in the state table."""
_TOO_LONG = {"BDAT": replies.CHUNK_LOST, "AUTH": replies.AUTH_LINE_TOO_LONG}
_CLOSED, _TLS = State.CLOSED, State.TLS


class ServerConnection(Dialogue):
    """One client's dialogue: octets in, events out, replies in, octets out.

    Call greeting() once. Then for whatever arrives: receive_data(), and next_event() until it gives
    None. Every event but DataChunk waits for exactly one send(), and until then next_event() gives
    None: commands are answered in order, however they were pipelined (RFC 2920 3.2).

    wire     instead of the listener's, for this client: `normalize` or `reject`.
    xclient  the client may use XCLIENT.
    secure   TLS holds from the first octet on (RFC 8314).

    The peer can cause no exception. ProtocolError is the caller's mistake.
    """

    __slots__ = ()

    # --- octets in ------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take what the peer sent; b"" says that it sends no more.

        Nothing is parsed here and nothing is thrown away: stop reading the socket while an event
        waits for its reply and enough is buffered. Octets in the clear that come after 220 to STARTTLS
        close the connection, because nothing that can be said in the clear is an answer to them.
        """
        state = self._state
        if state is _TLS and data:
            self._close()
        elif state is not _CLOSED:
            self._input.receive(data)

    def next_event(self) -> Event | None:
        """What the client did next, or None: octets are missing, or the last event has no reply yet."""
        if self._pending is not None:
            return None
        source = self._input
        if self._reader is not None:
            event = self._reader.next_event(source)
            if event is not None:
                return event if type(event) is DataChunk else self._take_in(event)
        elif self._moves:
            line = source.line(self._line_limit)
            if line is not None:
                return self._odd_line(line) if isinstance(line, Reply) else self._command(line)
        else:
            return None
        if source.eof:
            self._close()
        return None

    def _take_in(self, event: Event | Commands) -> Event | None:
        """What a reader made of its octets: it now waits for its reply."""
        if isinstance(event, Commands):
            self._reader = None
            return self.next_event()
        place = _PLACES.get(type(event))
        if place is None:
            assert isinstance(event, Refused)
            return self._refuse(event.reply, event.command)
        if place is RESPONSE and self._input and self._options.early_talker == "refuse":
            return self._refuse(replies.EARLY_TALKER, "AUTH")
        self._pending = event
        self._target = self._moves[place]
        return event

    def _command(self, line: bytes) -> Event | None:
        """A command line, without its CRLF, as an event that now waits for its reply."""
        # Trailing white space is tolerated (RFC 5321 4.1.1).
        verb, _, argument = line.rstrip(b" \t").partition(b" ")
        command = COMMANDS.get(verb) or COMMANDS.get(verb.upper())
        options = self._options
        if self._errors >= options.errors and (command is None or command.verb != "QUIT"):
            return self._refuse(replies.TOO_MANY_ERRORS)
        if command is None:
            return self._refuse(self._unknown(verb.upper(), line))
        if len(line) + 2 > options.command_line + command.octets:
            return self._refuse(_TOO_LONG.get(command.verb, replies.LINE_TOO_LONG), command.verb)
        if command.last and self._input and options.early_talker == "refuse":
            return self._refuse(replies.EARLY_TALKER, command.verb)
        target = self._moves.get(command.verb)
        if target is None:
            return self._not_now(command.verb, argument)
        event = command.parse(argument, self._esmtp)
        if isinstance(event, Reply):
            return self._refuse(event, command.verb, argument)
        if command.checked:
            # What only the engine knows of: limits, the transaction, what is offered.
            if isinstance(event, Mail):
                if event.size is not None and event.size > options.message_size:
                    return self._refuse(replies.MESSAGE_TOO_BIG, "MAIL", argument)
            elif isinstance(event, Rcpt):
                if len(self._recipients) >= options.recipients:
                    return self._refuse(replies.TOO_MANY_RECIPIENTS, "RCPT", argument)
                if not self._smtputf8 and not line.isascii():
                    return self._refuse(replies.NEEDS_SMTPUTF8, "RCPT", argument)
            elif isinstance(event, Chunk):
                return self._begin_chunk(event, target)
            elif isinstance(event, Auth) and event.mechanism not in options.auth:
                return self._refuse(replies.AUTH_UNKNOWN, "AUTH")
            elif isinstance(event, StartTls) and self._input:
                # By no setting ignored: what is said in the clear stays there.
                return self._refuse(replies.EARLY_TALKER, "STARTTLS")
        assert not isinstance(event, Chunk)
        self._pending = event
        self._target = target
        return event

    def _begin_chunk(self, chunk: Chunk, target: State) -> Event | None:
        """BDAT in order: the first one of a message asks as DATA does, those after it are just read."""
        reader = self._chunks
        if not self._esmtp:
            return self._refuse_chunk(chunk, replies.CHUNK_NEEDS_EHLO)
        if chunk.octets + (0 if reader is None else reader.octets) > self._options.message_size:
            return self._refuse(replies.CHUNK_TOO_BIG, "BDAT")
        if reader is None:
            self._chunk = chunk
            self._pending = event = Data(chunked=True)
            self._target = target
            return event
        reader.begin(chunk.octets, last=chunk.last)
        self._reader = reader
        self._enter(target)
        return self.next_event()

    def _refuse_chunk(self, chunk: Chunk, reply: Reply) -> Event | None:
        if chunk.octets > self._options.message_size:
            return self._refuse(replies.CHUNK_TOO_BIG, "BDAT")
        self._reader = RefusedChunk(chunk.octets, reply)
        return self.next_event()

    def _not_now(self, verb: str, argument: bytes) -> Event | None:
        """A command that this state, or this connection, does not have."""
        refusal = None if self._state is State.REFUSED else self._terms.refusals.get(verb)
        if refusal is None:
            refusal = out_of_order(self._state, verb)
        if verb == "BDAT":
            chunk = COMMANDS[b"BDAT"].parse(argument, self._esmtp)
            if isinstance(chunk, Chunk):
                return self._refuse_chunk(chunk, refusal)
            refusal = replies.CHUNK_LOST
        return self._refuse(refusal, verb, argument)

    def _odd_line(self, refusal: Reply) -> Refused:
        if self._errors >= self._options.errors:
            refusal = replies.TOO_MANY_ERRORS
        return self._refuse(refusal)

    def _refuse(self, reply: Reply, verb: str = "", argument: bytes = b"") -> Refused:
        said = argument.decode("utf-8", "backslashreplace") if verb in ("MAIL", "RCPT") else ""
        event = Refused(reply, verb, said)
        self._pending = event
        self._target = self._state
        return event

    def _unknown(self, verb: bytes, line: bytes) -> Reply:
        if self._state is State.REFUSED:
            return replies.REFUSED_BEFORE
        if len(line) + 2 > self._options.command_line:
            return replies.LINE_TOO_LONG
        return UNSUPPORTED.get(verb, replies.UNKNOWN_COMMAND)

    # --- replies out ----------------------------------------------------------------------------------

    def greeting(self, reply: Reply | None = None) -> bytes:
        """The first octets to the client: 220, or the refusal given (RFC 5321 3.1).

        After a refusal only QUIT is served, all else has 503; one that closes, or 421, ends it at
        once. A client that has spoken before us has what too_early() says.
        """
        if self._state is not State.GREETING:
            raise ProtocolError("the greeting is sent once")
        octets = self._greet(self.too_early() if reply is None else reply)
        if not self._secure and self._state is not _CLOSED:
            self._reader = OPENING
        return octets

    def too_early(self) -> Reply | None:
        """What a client earns that has spoken before the greeting: 554 5.5.1, or 421 4.7.0 for TLS; and the
        close. None: it has not, or it may (`early_talker`)."""
        if not self._input or self._options.early_talker != "refuse":
            return None
        if not self._secure and self._input.begins_with(TLS_RECORD):
            return replies.NOT_TLS
        return replies.EARLY_TALKER

    def restart(self, reply: Reply | None = None, *, authenticated: bool = False) -> bytes:
        """Accept the pending Xclient: a greeting once more, or the refusal given; nothing else is remembered.

        authenticated  the proxy has named somebody (LOGIN), so that AUTH is done.
        """
        if type(self._pending) is not Xclient:
            raise ProtocolError("only XCLIENT starts a session anew")
        self._pending = None
        self._errors = 0  # another client's
        self._start_over(authenticated=authenticated)
        return self._greet(reply)

    def _greet(self, reply: Reply | None) -> bytes:
        if reply is None:
            reply = extensions.greeting_reply(self._options)
        if reply.close or reply.code == 421:
            self._close()
        else:
            self._enter(State.FRESH if reply.ok else State.REFUSED)
        return reply.encode()

    def secured(self) -> None:
        """TLS holds now: forget all that was said in the clear; the client says EHLO again (RFC 3207 4.2)."""
        if self._state is _CLOSED:
            return
        if self._state is not _TLS:
            raise ProtocolError("nobody waits for TLS")
        self._secure = True
        self._start_over()

    def hello_reply(self, event: Hello) -> Reply:
        """The 250 that accepts HELO or EHLO: our name, and after EHLO what we offer."""
        return extensions.hello_reply(self._terms, event.extended)

    def send(self, reply: Reply) -> bytes:
        """Answer the pending event; the octets for the client. What the event asked for stands from now on.

        2xx accepts (354 for Data, and for nothing else), 4xx and 5xx refuse. 5xx counts as the
        client's error, but not at the end of data; 4xx says that it is not the client's fault. 421,
        or a reply with `close`, ends the dialogue, and may also come unasked (RFC 5321 3.8).

        The octets are those of the reply, with two exceptions: none where it is not time for it yet (see
        Data), and 554 where the client has talked on behind STARTTLS, which ends the dialogue.

        Raises ProtocolError for a reply nobody waits for, one that cannot answer this event, and an
        attempt to accept what the engine refused or a message with a fault. Nothing has changed then.
        """
        event = self._pending
        code = reply.code
        closing = reply.close or code == 421
        if event is None:
            if not closing or self._state is _CLOSED:
                raise ProtocolError(f"nothing waits for a reply {code}")
            octets = reply.encode()
        elif code < 400:
            octets = self._accept(event, reply)
        else:
            octets = self._reject(event, reply, closing=closing)
        self._pending = None
        if closing:
            self._close()
        return octets
