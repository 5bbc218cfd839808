"""How does a parser test talk to the engine? Through feed(): whole, then in octets, always the same events.

A Start says where the dialogue stands when the octets of the test arrive: `fresh()`, `ready()`,
`in_mail()`, `in_rcpt()`, `in_data()`, `in_chunks()`, each taking options and a policy. The policy gives
the reply to each event and is `accept` unless said.

Early talkers are ignored unless a test asks for them, because cutting a pipelined group makes the
violation go away: that rule is about time, see test_server.py.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from forkd.smtp import events, extensions, replies
from forkd.smtp.events import DataChunk, DataEnd, Event, Refused
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply
from forkd.smtp.server import ServerConnection

Policy = Callable[[ServerConnection, Event], Reply]

_ACCEPTED = {
    events.Mail: replies.SENDER_OK,
    events.Rcpt: replies.RECIPIENT_OK,
    events.Data: replies.START_DATA,
    events.ChunkEnd: replies.CHUNK_OK,
    events.StartTls: replies.TLS_READY,
    events.Auth: replies.AUTH_OK,
    events.AuthData: replies.AUTH_OK,
    events.Rset: replies.RSET_OK,
    events.Noop: replies.NOOP_OK,
    events.Vrfy: replies.VRFY,
    events.Expn: replies.EXPN,
    events.Help: replies.HELP,
    events.Quit: replies.BYE,
}

OPTIONS = ServerOptions(hostname="mx.example.org", message_size=10_000_000)

OPEN: dict[str, Any] = {"auth": ("SCRAM-SHA-256", "PLAIN"), "auth_needs_tls": False}
"""AUTH is offered in the clear."""

_EHLO = b"EHLO client.example.org\r\n"
_MAIL = b"MAIL FROM:<sender@example.org>\r\n"
_RCPT = b"RCPT TO:<user@test.local>\r\n"
_DATA = b"DATA\r\n"


def accept(connection: ServerConnection, event: Event) -> Reply:
    """The policy that takes whatever the engine lets through."""
    if isinstance(event, Refused):
        return event.reply
    if isinstance(event, events.Hello):
        return connection.hello_reply(event)
    if isinstance(event, DataEnd):
        return event.fault or replies.DATA_OK
    if isinstance(event, events.Xclient):
        return extensions.greeting_reply(OPTIONS)
    if isinstance(event, events.AuthData) and event.data is None:
        return replies.AUTH_CANCELLED
    return _ACCEPTED[type(event)]


def refuse(kind: type[Event], reply: Reply) -> Policy:
    """The policy that answers one kind of event with `reply`, often a refusal, and accepts all else."""
    return lambda connection, event: reply if isinstance(event, kind) else accept(connection, event)


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a dialogue stands: greeted, and then `before` was said and answered."""

    before: tuple[bytes, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of ServerOptions; `xclient` and `secure` are the connection's own."""
    policy: Policy = accept

    def connection(self) -> ServerConnection:
        """A new connection that stands there."""
        settings: dict[str, Any] = {
            "hostname": "mx.example.org",
            "message_size": 10_000_000,
            "early_talker": "ignore",
        }
        settings.update(self.options)
        own = {name: settings.pop(name) for name in ("xclient", "secure") if name in settings}
        connection = ServerConnection(ServerOptions(**settings), **own)
        connection.greeting()
        for octets in self.before:
            connection.receive_data(octets)
            drain(connection, accept)
        return connection


def fresh(policy: Policy = accept, **options: Any) -> Start:
    """Greeted, no HELO yet."""
    return Start((), options, policy)


def ready(policy: Policy = accept, **options: Any) -> Start:
    """After EHLO."""
    return Start((_EHLO,), options, policy)


def in_mail(policy: Policy = accept, **options: Any) -> Start:
    """A sender stands."""
    return Start((_EHLO, _MAIL), options, policy)


def in_rcpt(policy: Policy = accept, **options: Any) -> Start:
    """A sender and a recipient stand."""
    return Start((_EHLO, _MAIL, _RCPT), options, policy)


def in_data(policy: Policy = accept, **options: Any) -> Start:
    """354 was given: the message comes."""
    return Start((_EHLO, _MAIL, _RCPT, _DATA), options, policy)


def in_chunks(policy: Policy = accept, **options: Any) -> Start:
    """A first chunk of eight octets was read, `part 1` and CRLF: more must come."""
    return Start((_EHLO, _MAIL, _RCPT, b"BDAT 8\r\npart 1\r\n"), options, policy)


@dataclasses.dataclass
class Heard:
    """What came of some octets: the events, neighbouring chunks joined, and the octets sent back."""

    events: list[Event]
    sent: bytes


def drain(connection: ServerConnection, policy: Policy) -> Heard:
    """Every event that can be had now, each answered by the policy."""
    heard = Heard([], b"")
    while (event := connection.next_event()) is not None:
        heard.events.append(event)
        if not isinstance(event, DataChunk):
            heard.sent += connection.send(policy(connection, event))
    return heard


def play(start: Start, pieces: Iterable[bytes]) -> Heard:
    """Hand over the pieces one after the other, answering between them."""
    connection = start.connection()
    heard = Heard([], b"")
    for piece in pieces:
        connection.receive_data(piece)
        now = drain(connection, start.policy)
        heard.events += now.events
        heard.sent += now.sent
    return Heard(_joined(heard.events), heard.sent)


def pile(start: Start, pieces: Iterable[bytes]) -> Heard:
    """Hand over all the pieces before the first event is asked for."""
    connection = start.connection()
    for piece in pieces:
        connection.receive_data(piece)
    heard = drain(connection, start.policy)
    return Heard(_joined(heard.events), heard.sent)


def after(start: Start, octets: bytes) -> ServerConnection:
    """The connection when these were said and answered."""
    connection = start.connection()
    connection.receive_data(octets)
    drain(connection, start.policy)
    return connection


def asked(start: Start, octets: bytes, kind: type[Event]) -> ServerConnection:
    """The connection when these were said, and an event of this kind waits for its reply."""
    connection = start.connection()
    connection.receive_data(octets)
    assert isinstance(connection.next_event(), kind)
    return connection


def feed(start: Start, octets: bytes) -> list[Event]:
    """The events of `octets`; the same whole, byte by byte and piled up, or the test fails."""
    return converse(start, octets).events


def converse(start: Start, octets: bytes) -> Heard:
    """As feed(), with what was sent back."""
    whole = play(start, [octets])
    for other in (play(start, single(octets)), pile(start, single(octets))):
        assert_same(other, whole)
    return whole


def single(octets: bytes) -> Iterator[bytes]:
    """The octets one by one."""
    return (octets[i : i + 1] for i in range(len(octets)))


def cut(octets: bytes, at: Iterable[int]) -> list[bytes]:
    """The octets in pieces, cut at these offsets."""
    edges = [0, *sorted({i for i in at if 0 < i < len(octets)}), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(edges) if a < b]


def assert_same(one: Heard, other: Heard) -> None:
    """Equal events and replies; the chunks of a message that is not over may differ in length.

    Of a message with a fault nothing is promised but its end, so its chunks are not compared.
    """
    first, second = _comparable(one.events), _comparable(other.events)
    assert first == second
    assert one.sent == other.sent


def kinds(heard: Iterable[Event]) -> list[type[Event]]:
    """The kinds of events."""
    return [type(event) for event in heard]


def refusals(heard: Iterable[Event]) -> list[Reply]:
    """The engine's own refusals among the events."""
    return [event.reply for event in heard if isinstance(event, Refused)]


def message(heard: Iterable[Event]) -> bytes:
    """The octets of the message among the events."""
    return b"".join(event.data for event in heard if isinstance(event, DataChunk))


def codes(sent: bytes) -> list[int]:
    """The codes of the replies, one for each, however many lines they have."""
    return [int(line[:3]) for line in sent.split(b"\r\n") if line[3:4] == b" "]


def _joined(heard: list[Event]) -> list[Event]:
    joined: list[Event] = []
    for event in heard:
        if isinstance(event, DataChunk) and joined and isinstance(joined[-1], DataChunk):
            joined[-1] = DataChunk(joined[-1].data + event.data)
        else:
            joined.append(event)
    return joined


def _comparable(heard: list[Event]) -> list[Event]:
    left: list[Event] = []
    for i, event in enumerate(heard):
        if isinstance(event, DataChunk):
            following = heard[i + 1] if i + 1 < len(heard) else None
            if not isinstance(following, DataEnd) or following.fault is not None:
                continue
        left.append(event)
    return left
