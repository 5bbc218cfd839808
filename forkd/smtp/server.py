"""What did the client do, and may it? The server's side of one SMTP connection, without the connection."""

from __future__ import annotations

from typing import Final

from forkd.smtp import extensions, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.commands import COMMANDS, MAX_EXTRA_OCTETS, UNSUPPORTED
from forkd.smtp.data import DataReader
from forkd.smtp.events import Data, DataChunk, DataEnd, Event, Hello, Mail, Quit, Rcpt, Refused, Rset
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply
from forkd.smtp.states import END_OF_DATA, TRANSITIONS, ProtocolError, State, out_of_order

__all__ = ["ProtocolError", "ServerConnection", "ServerOptions", "State"]

MAX_SKIPPED_OCTETS: Final = 65_536
"""How much of a refused line we read over while waiting for its CRLF, before 421."""
_CR: Final = 0x0D


class ServerConnection:
    """One client's dialogue: octets in, events out, replies in, octets out.

    Call greeting() once. Then for whatever arrives: receive_data(), and next_event() until it gives
    None. Every event but DataChunk waits for exactly one send(), and until then next_event() gives
    None: commands are answered in order, however they were pipelined (RFC 2920 3.2).

    The peer can cause no exception. ProtocolError is the caller's mistake.
    """

    __slots__ = (
        "_buffer",
        "_eof",
        "_errors",
        "_esmtp",
        "_helo",
        "_late",
        "_line_limit",
        "_moves",
        "_options",
        "_pending",
        "_reader",
        "_recipients",
        "_sender",
        "_skipped",
        "_start",
        "_state",
        "_target",
    )

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._line_limit = options.command_line + MAX_EXTRA_OCTETS
        self._state = State.GREETING
        self._moves = TRANSITIONS[State.GREETING]
        self._pending: Event | None = None
        self._target = State.GREETING
        """The state after the pending event, if it is accepted."""
        # Unread octets are _buffer[_start:] and then _late. Pipelined commands are cut from one bytes
        # object without moving it; what arrives meanwhile is joined only when it is looked at, so that
        # many small pieces cost no more than one large one.
        self._buffer = b""
        self._start = 0
        self._late: list[bytes] = []
        self._eof = False
        self._skipped = -1
        """Octets read over of a refused line whose CRLF has not come; -1: not in such a line."""
        self._errors = 0
        self._helo: str | None = None
        self._esmtp = False
        self._sender: Mailbox | None = None
        self._recipients: list[Mailbox] = []
        self._reader: DataReader | None = None

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
        return self._start < len(self._buffer) or bool(self._late)

    @property
    def closed(self) -> bool:
        """Nothing more will be read: after QUIT, a reply that closes, or the peer's end."""
        return self._state is State.CLOSED

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
    def recipients(self) -> tuple[Mailbox, ...]:
        """Accepted so far in the transaction."""
        return tuple(self._recipients)

    @property
    def in_transaction(self) -> bool:
        """From an accepted MAIL until the reply to the end of data, RSET, HELO, EHLO or a refused DATA."""
        return self._state in (State.MAIL, State.RCPT, State.DATA)

    @property
    def errors(self) -> int:
        """Commands answered 5xx since the last accepted message."""
        return self._errors

    # --- octets in ------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take what the peer sent; b"" says that it sends no more.

        Nothing is parsed here and nothing is thrown away: stop reading the socket while an event
        waits for its reply and enough is buffered.
        """
        if self._state is State.CLOSED:
            return
        if not data:
            self._eof = True
        elif self._start == len(self._buffer) and not self._late:
            self._buffer = data
            self._start = 0
        else:
            self._late.append(data)

    def next_event(self) -> Event | None:
        """What the client did next, or None: octets are missing, or the last event has no reply yet."""
        if self._pending is not None or self._state is State.GREETING:
            return None
        if self._late:
            self._buffer = self._buffer[self._start :] + b"".join(self._late)
            self._start = 0
            self._late.clear()
        if self._reader is not None:
            return self._next_of_message(self._reader)
        if self._skipped >= 0 and (event := self._skip()) is not None:
            return event
        buffer, start = self._buffer, self._start
        if start == len(buffer) and not self._eof:
            return None
        # The first LF ends the line one way or the other, so a line looks the same however it is cut.
        end = buffer.find(b"\n", start, start + self._line_limit)
        if end <= start or buffer[end - 1] != _CR:
            return self._no_line(end)
        self._start = end + 1
        return self._command(buffer[start : end - 1])

    def _command(self, line: bytes) -> Event:
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
            return self._refuse(replies.LINE_TOO_LONG, command.verb)
        if command.last and self._start < len(self._buffer) and options.early_talker == "refuse":
            return self._refuse(replies.EARLY_TALKER, command.verb)
        target = self._moves.get(command.verb)
        if target is None:
            return self._refuse(out_of_order(self._state, command.verb), command.verb)
        event = command.parse(argument, self._esmtp)
        if isinstance(event, Reply):
            return self._refuse(event, command.verb)
        if isinstance(event, Mail):
            if event.size is not None and event.size > options.message_size:
                return self._refuse(replies.MESSAGE_TOO_BIG, "MAIL")
        elif isinstance(event, Rcpt) and len(self._recipients) >= options.recipients:
            return self._refuse(replies.TOO_MANY_RECIPIENTS, "RCPT")
        self._pending = event
        self._target = target
        return event

    def _refuse(self, reply: Reply, verb: str = "") -> Refused:
        event = Refused(reply, verb)
        self._pending = event
        self._target = self._state
        return event

    def _unknown(self, verb: bytes, line: bytes) -> Reply:
        if self._state is State.REFUSED:
            return replies.REFUSED_BEFORE
        if len(line) + 2 > self._options.command_line:
            return replies.LINE_TOO_LONG
        return UNSUPPORTED.get(verb, replies.UNKNOWN_COMMAND)

    def _no_line(self, end: int) -> Event | None:
        """No complete line: wait, or refuse one that is too long or has a bare LF at `end`.

        Such a line still goes on to its CRLF (RFC 5321 2.3.8): what stands in it is never a command.
        It is refused at once all the same, so that somebody who types into nc sees why.
        """
        if end < 0:
            if len(self._buffer) - self._start < self._line_limit:
                if self._eof:
                    self._close()
                return None
            reply = replies.LINE_TOO_LONG
        else:
            self._start = end + 1
            reply = replies.LINE_END
        self._skipped = 0
        if self._errors >= self._options.errors:
            reply = replies.TOO_MANY_ERRORS
        return self._refuse(reply)

    def _skip(self) -> Event | None:
        """Read over the rest of a refused line; an event only if that has no end."""
        buffer, start = self._buffer, self._start
        end = buffer.find(b"\r\n", start)
        if end >= 0:
            skipped = self._skipped + end - start
            self._start = end + 2
            self._skipped = -1
        else:
            # A CR at the end may be half of what we look for.
            self._start = len(buffer) - buffer.endswith(b"\r", start)
            skipped = self._skipped = self._skipped + self._start - start
        return self._refuse(replies.ENDLESS_LINE) if skipped > MAX_SKIPPED_OCTETS else None

    def _next_of_message(self, reader: DataReader) -> Event | None:
        if not reader.finished:
            block = self._buffer[self._start :]
            if block:
                chunk = reader.feed(block)
                self._buffer = reader.rest
                self._start = 0
                if chunk:
                    return DataChunk(chunk)
            if not reader.finished:
                if self._eof:
                    self._close()
                return None
        event = DataEnd(reader.size, reader.fault)
        self._pending = event
        self._target = self._moves[END_OF_DATA]
        return event

    # --- replies out ----------------------------------------------------------------------------------

    def greeting(self, reply: Reply | None = None) -> bytes:
        """The first octets to the client: 220, or the refusal given (RFC 5321 3.1).

        After a refusal only QUIT is served, all else has 503; one that closes, or 421, ends it at
        once. A client that has spoken before us is an early talker: 554 5.5.1 and closed.
        """
        if self._state is not State.GREETING:
            raise ProtocolError("the greeting is sent once")
        if reply is None:
            if self.has_input and self._options.early_talker == "refuse":
                reply = replies.EARLY_TALKER
            else:
                reply = extensions.greeting_reply(self._options)
        if reply.close or reply.code == 421:
            self._close()
        else:
            self._enter(State.FRESH if reply.ok else State.REFUSED)
        return reply.encode()

    def hello_reply(self, event: Hello) -> Reply:
        """The 250 that accepts HELO or EHLO: our name, and after EHLO what we offer."""
        return extensions.hello_reply(self._options, event.extended)

    def send(self, reply: Reply) -> bytes:
        """Answer the pending event; the octets for the client. What the event asked for stands from now on.

        2xx accepts (354 for Data, and for nothing else), 4xx and 5xx refuse. 5xx counts as the
        client's error, but not at the end of data; 4xx says that it is not the client's fault. 421,
        or a reply with `close`, ends the dialogue, and may also come unasked (RFC 5321 3.8).

        Raises ProtocolError for a reply nobody waits for, one that cannot answer this event, and an
        attempt to accept what the engine refused or a message with a fault. Nothing has changed then.
        """
        event = self._pending
        code = reply.code
        closing = reply.close or code == 421
        if event is None:
            if not closing or self._state is State.CLOSED:
                raise ProtocolError(f"nothing waits for a reply {code}")
        elif code < 400:
            self._accept(event, code)
        else:
            self._reject(event, reply)
        self._pending = None
        if closing:
            self._close()
        return reply.encode()

    def _accept(self, event: Event, code: int) -> None:
        if (code >= 300) is not isinstance(event, Data) or (code >= 300 and code != 354):
            raise ProtocolError(f"{code} is no answer to {type(event).__name__}")
        if isinstance(event, Mail):
            self._sender = event.sender
        elif isinstance(event, Rcpt):
            self._recipients.append(event.recipient)
        elif isinstance(event, Data):
            options = self._options
            self._reader = DataReader(options.message_size, normalize=options.wire == "normalize")
        elif isinstance(event, DataEnd):
            if event.fault is not None:
                raise ProtocolError(f"{code} would accept a message that earned {event.fault.code}")
            self._forget()
            self._errors = 0
        elif isinstance(event, Hello):
            self._forget()
            self._helo = event.name
            self._esmtp = event.extended
        elif isinstance(event, Rset):
            self._forget()
        elif isinstance(event, Quit):
            self._close()
            return
        elif isinstance(event, Refused):
            raise ProtocolError(f"{code} would accept what was refused with {event.reply.code}")
        self._enter(self._target)

    def _reject(self, event: Event, reply: Reply) -> None:
        if isinstance(event, DataEnd):
            self._forget()
            self._enter(self._target)
            return
        if isinstance(event, Quit):
            # 221 is the only answer (RFC 5321 4.1.1.10); the client has gone in any case.
            self._close()
            return
        if reply.code >= 500:
            self._errors += 1
        if isinstance(event, Data):
            self._forget()
            self._enter(State.READY)

    def _forget(self) -> None:
        """The transaction is over."""
        self._sender = None
        if self._recipients:
            self._recipients = []
        self._reader = None

    def _enter(self, state: State) -> None:
        self._state = state
        self._moves = TRANSITIONS[state]

    def _close(self) -> None:
        self._enter(State.CLOSED)
        self._pending = None
        self._forget()
        self._buffer = b""
        self._start = 0
        self._late.clear()
        self._skipped = -1
