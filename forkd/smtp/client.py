"""What does the server say to what we ask? The client's side of one SMTP or LMTP connection, without it."""

from __future__ import annotations

import base64
from typing import Final

from forkd.smtp import client_mail, client_sasl
from forkd.smtp.client_body import DotWriter
from forkd.smtp.client_dialogue import ClientDialogue
from forkd.smtp.client_events import ClientEvent
from forkd.smtp.client_mail import OutgoingMail, Unmet
from forkd.smtp.client_offered import HELO_ONLY
from forkd.smtp.client_phases import ClientOptions, Phase
from forkd.smtp.client_replies import KEPT_CHARACTERS, MAX_REPLY_OCTETS, Violation
from forkd.smtp.client_sasl import Credentials
from forkd.smtp.client_transaction import Transaction
from forkd.smtp.states import ProtocolError

__all__ = ["ClientConnection", "ClientOptions", "ProtocolError"]

_LONG: Final = (Phase.HELLO, Phase.AUTH)
"""Whose replies are read to their end, because we need what they say."""


class ClientConnection(ClientDialogue):
    """One dialogue with a server: what is asked in, octets out; octets in, events out.

    Begin with next_event(), for the greeting. Then hello(), perhaps starttls() or authenticate(), and send()
    for each mail; each is asked when nothing else is under way (`phase` is IDLE), and answered by one event.
    After each call and each next_event(), also one that gives None, write data_to_send(); whatever arrives
    goes to receive_data(). Where `closed` holds, ask nothing more, only for the events that are left.

        connection.send(mail)                     -> BodyWanted, or Finished where nobody was accepted
        while piece := read():                    # only while connection.wants_body
            connection.body(piece)
        connection.end_body()                     -> Finished, with an outcome for each recipient

    secure  TLS holds from the first octet on (RFC 8314).

    The server can cause no exception; whatever it does, an open transaction has its Finished, and the
    last event is Closed. ProtocolError is the caller's mistake. `phase` names the timeout of each wait
    (client_phases.TIMEOUT_S); when it has passed, call lost().
    """

    # --- octets ---------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take what the server sent; b"" says that it sends no more. Then ask for events until None."""
        if self._closed:
            return
        if not data:
            self._eof = True
        elif self._tls_waiting:
            self._violated("octets in the clear behind the reply to STARTTLS")
        else:
            self._replies.receive(data)

    def data_to_send(self) -> bytes:
        """What is to be written now; b"" where there is nothing. No more than was asked for since."""
        if self._closed:
            return b""
        octets = b"".join(self._out)
        self._out.clear()
        return octets

    def next_event(self) -> ClientEvent | None:
        """What the server answered, or None: octets are missing."""
        while not self._events and not self._closed:
            keep = MAX_REPLY_OCTETS if self._pipeline.awaited in _LONG else KEPT_CHARACTERS
            reply = self._replies.next_reply(keep=keep)
            if isinstance(reply, Violation):
                self._violated(f"{reply.why}: {reply.said}")
            elif reply is not None:
                self._answered(reply)
            elif self._eof:
                self.lost("the server closed the connection")
            else:
                break
        return self._events.popleft() if self._events else None

    # --- what is asked --------------------------------------------------------------------------------

    def hello(self) -> None:
        """Say who we are: Ready or Denied. HELO, if EHLO is refused for good."""
        self._must_be_idle(self._greeted)
        self._offered = None
        self._helo = False
        self._ask(Phase.HELLO, f"{'LHLO' if self._options.lmtp else 'EHLO'} {self._options.hostname}")

    def starttls(self) -> None:
        """Ask for TLS: TlsReady or Denied (RFC 3207)."""
        self._must_be_idle(self._offered is not None and self._offered.starttls and not self._secure)
        if self._replies:
            # Said by whom? In the clear anybody may have put it there, as the answer to what we ask now.
            self._violated("octets in the clear before STARTTLS")
        else:
            self._ask(Phase.STARTTLS, "STARTTLS")

    def secured(self) -> None:
        """TLS holds now: forget all that was said in the clear, and call hello() again (RFC 3207 4.2)."""
        if self._closed:
            return
        if not self._tls_waiting:
            raise ProtocolError("nobody waits for TLS")
        self._tls_waiting = False
        self._secure = True
        self._authenticated = False
        self._offered = None
        self._dirty = False

    def authenticate(self, credentials: Credentials, *, nonce: str | None = None) -> str | None:
        """Say who we are with a password: Authenticated or Denied. The mechanism used; None: there is none
        that both have and these circumstances allow, and nothing was asked.

        Raises ValueError for a name or password that the mechanism cannot have.
        """
        offered = self._offered
        self._must_be_idle(offered is not None and not self._authenticated)
        clear = self._secure or not self._options.auth_needs_tls
        mechanism = client_sasl.choose(offered.auth if offered else (), self._options.auth, clear=clear)
        if mechanism is None:
            return None
        self._exchange = client_sasl.start(mechanism, credentials, nonce=nonce)
        first = self._exchange.first()
        initial = "" if first is None else " " + (base64.b64encode(first).decode("ascii") or "=")
        self._ask(Phase.AUTH, f"AUTH {mechanism}{initial}")
        return mechanism

    def unmet(self, mail: OutgoingMail) -> tuple[Unmet, ...]:
        """What the server cannot do for this mail; send() only what has none. See Unmet."""
        return client_mail.unmet(mail, self._offered or HELO_ONLY, sent=self._sent)

    def send(self, mail: OutgoingMail) -> None:
        """Begin a transaction: BodyWanted, and Finished at its end.

        Raises ProtocolError where unmet() has something to say of this mail.
        """
        offered = self._offered
        self._must_be_idle(offered is not None)
        assert offered is not None
        if missing := self.unmet(mail):
            raise ProtocolError("this server cannot do: " + ", ".join(one.need for one in missing))
        chunked = self._options.chunking and offered.chunking
        self._transaction = Transaction(mail, chunked=chunked)
        self._sent += 1
        add = self._pipeline.add
        if self._dirty:
            add(Phase.RSET, b"RSET\r\n")
        add(Phase.MAIL, client_mail.mail_line(mail, offered))
        smtputf8 = mail.smtputf8
        for index, recipient in enumerate(mail.recipients):
            add(Phase.RCPT, client_mail.rcpt_line(recipient, offered, smtputf8=smtputf8), index)
        if self._pipelining and not chunked and not mail.together:
            add(Phase.DATA, b"DATA\r\n")
        self._dirty = True
        self._go()

    def body(self, piece: bytes) -> None:
        """A piece of the message, of any size; line ends should be CRLF, and are made so."""
        if not self.wants_body:
            raise ProtocolError("no piece of a message can go now")
        if isinstance(self._writer, DotWriter):
            self._out.append(self._writer.feed(piece))
        elif self._writer is not None:
            for chunk in self._writer.feed(piece):
                self._pipeline.add(Phase.CHUNK, chunk)
            self._go()

    def end_body(self) -> None:
        """The message is complete: the reply to this decides."""
        writer, transaction = self._writer, self._transaction
        if writer is None or transaction is None:
            raise ProtocolError("no message is open")
        self._writer = None
        transaction.ended = True
        # In LMTP a reply comes for each recipient that was accepted, in SMTP one for all (RFC 2033 4.2).
        first, *others = transaction.accepted if self._options.lmtp else [-1]
        if isinstance(writer, DotWriter):
            self._out.append(writer.end())
            self._pipeline.expect(Phase.END, first)
        else:
            *chunks, last = writer.end()
            for chunk in chunks:
                self._pipeline.add(Phase.CHUNK, chunk)
            self._pipeline.add(Phase.END, last, first)
        for index in others:
            self._pipeline.expect(Phase.END, index)
        self._go()

    def rset(self) -> None:
        """Ask whether the server is still there, before it is trusted with one more mail: WasReset."""
        self._must_be_idle(self._offered is not None)
        self._ask(Phase.RSET, "RSET")

    def quit(self) -> None:
        """Say goodbye: Closed. Who does not care for the answer writes it and closes."""
        self._must_be_idle(True)
        self._ask(Phase.QUIT, "QUIT")

    def _must_be_idle(self, allowed: bool) -> None:
        if self.phase is not Phase.IDLE or self._events or not allowed:
            raise ProtocolError(f"not in order now ({self.phase.value})")
