"""How does a test talk to ClientConnection? As a driver does, with a server that is a function or an engine.

    talk = Talk(client(), Scripted({"RCPT": [b"550 5.1.1 no\\r\\n"]}), mail())
    talk.run()                 -> talk.events, talk.sent, talk.outcomes

The server's octets can be cut anywhere; what comes of them must be the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from forkd.smtp import replies, sasl
from forkd.smtp.client import ClientConnection
from forkd.smtp.client_events import (
    Authenticated,
    BodyWanted,
    ClientEvent,
    Closed,
    Denied,
    Finished,
    Greeted,
    Outcome,
    Ready,
    TlsReady,
)
from forkd.smtp.client_mail import OutgoingMail, OutgoingRecipient
from forkd.smtp.client_phases import ClientOptions, Phase
from forkd.smtp.client_sasl import Credentials
from forkd.smtp.events import Auth, AuthData, DataChunk, Event
from forkd.smtp.server import ServerConnection
from tests.support.feed import Policy, accept

MESSAGE = b"Subject: a\r\n\r\nline\r\n.dot\r\n..\r\n.\r\nend\r\n"


def client(*, secure: bool = False, **options: Any) -> ClientConnection:
    return ClientConnection(ClientOptions(**{"hostname": "client.example.org", **options}), secure=secure)


def mail(*recipients: str, sender: str = "sender@example.org", **more: Any) -> OutgoingMail:
    addresses = recipients or ("user@test.local",)
    return OutgoingMail(sender, tuple(OutgoingRecipient(one) for one in addresses), **more)


class Scripted:
    """A server that answers each verb from a list, the last answer for ever; `.` is the end of the message.

    A BDAT that is not the last one is asked as `BDAT`, the last as `.`.
    """

    def __init__(self, answers: dict[str, list[bytes]] | None = None, *, ehlo: bytes = b"250 mx\r\n") -> None:
        self.answers: dict[str, list[bytes]] = {
            "GREETING": [b"220 mx\r\n"],
            "EHLO": [ehlo],
            "LHLO": [ehlo],
            "DATA": [b"354 go on\r\n"],
            **{verb: list(said) for verb, said in (answers or {}).items()},
        }
        self.heard: list[bytes] = []
        self.messages: list[bytes] = []
        self._buffer = b""
        self._body: bytes | None = None
        self._chunks = b""

    def answer(self, verb: str) -> bytes:
        said = self.answers.get(verb, [b"250 ok\r\n"])
        return said.pop(0) if len(said) > 1 else said[0]

    def greeting(self) -> bytes:
        return self.answer("GREETING")

    def receive(self, octets: bytes) -> bytes:
        self._buffer += octets
        said = b""
        while True:
            if self._body is not None:
                # The line end of DATA is the first one of CRLF.CRLF.
                end = (b"\r\n" + self._buffer).find(b"\r\n.\r\n")
                if end < 0:
                    return said
                self.messages.append(self._buffer[:end])
                self._buffer = self._buffer[end + 3 :]
                self._body = None
                said += self.answer(".")
                continue
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                return said
            verb = line.split(b" ")[0].decode().upper()
            if verb == "BDAT":
                octets_due = int(line.split(b" ")[1])
                if len(rest) < octets_due:
                    return said
                self._chunks += rest[:octets_due]
                rest = rest[octets_due:]
                if line.endswith(b"LAST"):
                    self.messages.append(self._chunks)
                    self._chunks = b""
                    verb = "."
            self.heard.append(line)
            self._buffer = rest
            answer = self.answer(verb)
            if verb == "DATA" and answer.startswith(b"354"):
                self._body = b""
            said += answer


class Engine:
    """forkd's own server engine, with a policy; it knows one user, `user` with `password`."""

    def __init__(self, connection: ServerConnection, policy: Policy = accept) -> None:
        self.connection = connection
        self.policy = policy
        self.events: list[Event] = []
        self.messages: list[bytes] = []
        self._message = b""

    def greeting(self) -> bytes:
        return self.connection.greeting()

    def receive(self, octets: bytes) -> bytes:
        self.connection.receive_data(octets)
        said = b""
        while (event := self.connection.next_event()) is not None:
            if isinstance(event, DataChunk):
                self._message += event.data
                continue
            self.events.append(event)
            if type(event).__name__ == "DataEnd":
                self.messages.append(self._message)
                self._message = b""
            said += self.connection.send(self.policy(self.connection, event))
        return said


Server = Scripted | Engine


@dataclasses.dataclass
class Talk:
    """A whole dialogue, as a transport leads it."""

    connection: ClientConnection
    server: Server
    mails: list[OutgoingMail] = dataclasses.field(default_factory=lambda: [mail()])
    message: bytes = MESSAGE
    piece: int = 7
    cut: Callable[[bytes], Iterable[bytes]] = lambda octets: [octets]
    tls: bool = False
    credentials: Credentials | None = None
    nonce: str | None = None

    def __post_init__(self) -> None:
        self.events: list[ClientEvent] = []
        self.sent: list[bytes] = []
        self.largest = 0
        self._rest: bytes | None = None

    def run(self) -> Talk:
        todo = list(self.mails)
        waiting = self.server.greeting()
        while not self.connection.closed:
            pieces = list(self.cut(waiting)) if waiting else []
            waiting = b""
            for piece in pieces:
                self.connection.receive_data(piece)
                waiting += self._drain(todo)
            if not pieces and not waiting:
                # Nobody has anything to say: a server that should have does not.
                self.connection.receive_data(b"")
                self._drain(todo)
                assert self.connection.closed
        return self

    def _drain(self, todo: list[OutgoingMail]) -> bytes:
        said = self._write()
        while True:
            if (event := self.connection.next_event()) is not None:
                self.events.append(event)
                self._act(event, todo)
            elif self._rest is not None and self.connection.wants_body:
                self._body()
            elif octets := self._write():
                said += octets
            else:
                return said
            said += self._write()

    def _write(self) -> bytes:
        octets = self.connection.data_to_send()
        if not octets:
            return b""
        self.largest = max(self.largest, len(octets))
        self.sent.append(octets)
        return self.server.receive(octets)

    def _act(self, event: ClientEvent, todo: list[OutgoingMail]) -> None:
        connection = self.connection
        self._rest = self.message if isinstance(event, BodyWanted) else None
        if connection.closed:
            return
        if isinstance(event, Greeted):
            connection.hello()
        elif isinstance(event, TlsReady):
            connection.secured()
            if isinstance(self.server, Engine):
                self.server.connection.secured()
            connection.hello()
        elif isinstance(event, Denied) and event.phase in (Phase.GREETING, Phase.HELLO):
            connection.quit()
        elif (
            isinstance(event, Ready)
            and self.tls
            and not connection.secure
            and connection.offered is not None
            and connection.offered.starttls
        ):
            connection.starttls()
        elif isinstance(event, Ready) and self.credentials is not None:
            if connection.authenticate(self.credentials, nonce=self.nonce) is None:
                connection.quit()
        elif isinstance(event, Ready | Finished | Authenticated | Denied):
            if todo and not connection.unmet(todo[0]):
                connection.send(todo.pop(0))
            else:
                connection.quit()

    def _body(self) -> None:
        assert self._rest is not None
        if self._rest:
            self.connection.body(self._rest[: self.piece])
            self._rest = self._rest[self.piece :]
        else:
            self._rest = None
            self.connection.end_body()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Of all transactions, one after the other."""
        return tuple(one for event in self.events if isinstance(event, Finished) for one in event.outcomes)

    @property
    def end(self) -> Closed:
        """The last event, which is Closed and comes once."""
        assert [event for event in self.events if isinstance(event, Closed)] == self.events[-1:]
        last = self.events[-1]
        assert isinstance(last, Closed)
        return last

    @property
    def statuses(self) -> list[str]:
        return [one.status for one in self.outcomes]

    @property
    def octets(self) -> bytes:
        return b"".join(self.sent)


def single(octets: bytes) -> Iterator[bytes]:
    return (octets[i : i + 1] for i in range(len(octets)))


def authenticating(verifier: sasl.ScramVerifier, password: str = "password") -> Policy:
    """The policy of a server that knows one user's password."""
    state: dict[str, Any] = {}

    def step(step: sasl.Step) -> Any:
        if isinstance(step, sasl.NeedVerifier):
            step = state["exchange"].verifier(verifier)
        if isinstance(step, sasl.Challenge):
            return replies.challenge(step.data)
        if isinstance(step, sasl.Proven):
            state["proven"] = True
            return replies.challenge(step.final)
        if isinstance(step, sasl.Password) and step.password == password:
            return replies.AUTH_OK
        return replies.AUTH_FAILED

    def policy(connection: ServerConnection, event: Event) -> Any:
        if isinstance(event, Auth):
            state.clear()
            state["exchange"] = sasl.start(event.mechanism)
            if event.initial is None:
                return replies.challenge(state["exchange"].first())
            return step(state["exchange"].step(event.initial))
        if isinstance(event, AuthData) and event.data is not None:
            if state.get("proven"):
                return replies.AUTH_OK
            return step(state["exchange"].step(event.data))
        return accept(connection, event)

    return policy
