"""ClientConnection against servers that mean harm, against our own, and its parts on any octets."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.smtp.client_body import ChunkWriter, DotWriter
from forkd.smtp.client_events import Authenticated, BodyWanted, Closed, Denied
from forkd.smtp.client_mail import OutgoingRecipient, original
from forkd.smtp.client_offered import read
from forkd.smtp.client_replies import MAX_REPLY_OCTETS, ReplyReader, Violation
from forkd.smtp.client_sasl import Credentials, start
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import Reply
from forkd.smtp.sasl import ScramVerifier
from forkd.smtp.server import ServerConnection
from tests.support.client_talk import MESSAGE, Engine, Scripted, Talk, authenticating, client, mail, single

SALTED = hashlib.pbkdf2_hmac("sha256", b"password", b"salt" * 4, 4096)
STORED = hashlib.sha256(hmac.digest(SALTED, b"Client Key", "sha256")).digest()
VERIFIER = ScramVerifier(b"salt" * 4, 4096, STORED, hmac.digest(SALTED, b"Server Key", "sha256"))


def replies_of(octets: bytes, *, whole: bool = True) -> list[Reply | Violation]:
    reader, found = ReplyReader(), []
    for piece in [octets] if whole else single(octets):
        reader.receive(piece)
        while not (found and isinstance(found[-1], Violation)) and (one := reader.next_reply()) is not None:
            found.append(one)
    return found


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"25\r\n",
        b"2500 x\r\n",
        b"250x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"SSH-2.0-x\r\n",
        b"25\0 x\r\n",
        b"250-a\r\n550 b\r\n",
        b"250-a\r\n\r\n",
        b"x" * (MAX_REPLY_OCTETS + 1),
        b"250-a\r\n" * 10_000,
    ],
    ids=range(12),
)
def test_what_is_no_reply_is_a_violation(octets: bytes) -> None:
    """However it is cut, and with little of it kept."""
    assert isinstance(replies_of(octets)[0], Violation)
    assert replies_of(octets) == replies_of(octets, whole=False)


def test_a_reply_is_made_safe() -> None:
    """Printable, bounded, its enhanced code apart."""
    assert replies_of(b"550-5.1.1 a\0\x1b\xff\r\n550 5.1.1 b\n") == [Reply(550, "5.1.1", ("a???", "b"))]
    assert replies_of(b"550 2.1.1 a\r\n250\r\n") == [Reply(550, None, ("2.1.1 a",)), Reply(250, None, ("",))]
    (long,) = replies_of(b"550-" + b"x" * 60_000 + b"\r\n550 y\r\n")
    assert isinstance(long, Reply)
    assert sum(map(len, long.lines)) <= 2_000


OCTETS = st.lists(
    st.sampled_from(
        [
            b"220 a\r\n",
            b"250 ok\r\n",
            b"250-a\r\n",
            b"250 PIPELINING\r\n",
            b"250 CHUNKING\r\n",
            b"354 go\r\n",
            b"421 bye\r\n",
            b"450 x\r\n",
            b"550 5.1.1 y\r\n",
            b"334 eA==\r\n",
            b"\r",
            b"\n",
            b"\0",
        ]
    )
    | st.binary(max_size=4),
    max_size=20,
).map(b"".join)


class Deaf(Scripted):
    """Says what it has to say at once, and answers nothing."""

    def __init__(self, octets: bytes) -> None:
        super().__init__({"GREETING": [octets]})

    def receive(self, octets: bytes) -> bytes:
        return b""


@given(OCTETS, st.booleans())
@settings(deadline=None, max_examples=300)
def test_any_octets_cut_anywhere(octets: bytes, lmtp: bool) -> None:
    """The same events and octets, no exception, and an end."""
    octets = b"220 a\r\n250-a\r\n250 PIPELINING\r\n" + octets
    mails = [mail("a@b.c", "d@b.c"), mail()]
    whole = Talk(client(lmtp=lmtp), Deaf(octets), list(mails)).run()
    cut = Talk(client(lmtp=lmtp), Deaf(octets), list(mails), cut=single).run()
    # Behind BodyWanted it is a matter of time: before the end of the message a reply is early, after it, due.
    wanted = BodyWanted() in whole.events
    same = whole.events.index(BodyWanted()) + 1 if wanted else max(len(whole.events), len(cut.events))
    assert whole.events[:same] == cut.events[:same]
    assert wanted or whole.octets == cut.octets
    assert isinstance(cut.end, Closed)
    assert isinstance(whole.end, Closed)


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_with_our_own_server(pipelining: bool, chunking: bool, cut: bool) -> None:
    """TLS, AUTH by SCRAM, two mails on one connection, the message whole."""
    options = ServerOptions(hostname="mx", message_size=10_000, tls=True, auth=("SCRAM-SHA-256", "PLAIN"))
    server = Engine(ServerConnection(options), authenticating(VERIFIER))
    made = client(pipelining=pipelining, chunking=chunking, chunk_octets=11)
    talk = Talk(
        made, server, [mail("a@b.c", "d@b.c"), mail()], tls=True, credentials=Credentials("user", "password")
    )
    talk.cut = single if cut else talk.cut
    talk.run()
    assert talk.statuses == ["delivered"] * 3
    assert server.messages == [MESSAGE] * 2
    assert made.secure
    assert made.authenticated
    assert talk.end.cause == "quit"


@pytest.mark.parametrize(
    ("mechanism", "password"),
    [("PLAIN", "password"), ("LOGIN", "password"), ("PLAIN", "no"), ("SCRAM-SHA-256", "no")],
)
def test_passwords(mechanism: str, password: str) -> None:
    """The right one is taken, the wrong one is Denied."""
    options = ServerOptions(hostname="mx", message_size=10_000, auth=(mechanism,))
    server = Engine(ServerConnection(options, secure=True), authenticating(VERIFIER))
    talk = Talk(client(secure=True), server, credentials=Credentials("user", password)).run()
    kind = Authenticated if password == "password" else Denied
    assert any(type(event) is kind for event in talk.events)


def test_no_password_in_the_clear() -> None:
    """PLAIN without TLS is not asked for, unless the options say so."""
    talk = Talk(
        client(), Scripted(ehlo=b"250-mx\r\n250 AUTH PLAIN\r\n"), credentials=Credentials("u", "p")
    ).run()
    assert b"AUTH" not in talk.octets


@pytest.mark.parametrize("said", [b"235 ok\r\n", b"334 \r\n", b"334 !\r\n", b"334 cj14LHM9YSxpPTE=\r\n"])
def test_a_server_that_does_not_know_the_password(said: bytes) -> None:
    """SCRAM: its success is not believed, nor is it asked to convince us for ever."""
    server = Scripted({"AUTH": [said], "*": [b"235 ok\r\n"]}, ehlo=b"250-mx\r\n250 AUTH SCRAM-SHA-256\r\n")
    talk = Talk(client(), server, credentials=Credentials("user", "password")).run()
    assert talk.end.cause == "violation"
    assert not talk.connection.authenticated


@given(st.lists(st.binary(max_size=60), max_size=3))
@settings(deadline=None)
def test_scram_never_raises(challenges: list[bytes]) -> None:
    """Nor is it convinced."""
    exchange = start("SCRAM-SHA-256", Credentials("u", "p"))
    exchange.first()
    for challenge in challenges:
        if exchange.answer(challenge) is None:
            break
    assert not exchange.convinced


def test_scram_iterations_are_bounded() -> None:
    """Neither a weak verifier nor hours of computing."""
    for count in (1, 4095, 500_001, 2**40):
        exchange = start("SCRAM-SHA-256", Credentials("u", "p"), nonce="n")
        exchange.first()
        assert exchange.answer(b"r=nx,s=c2FsdA==,i=%d" % count) is None


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"a"]), max_size=30).map(b"".join),
    st.integers(1, 5),
)
@settings(deadline=None)
def test_bodies_cut_anywhere(message: bytes, size: int) -> None:
    """The same octets; a dot line only at the end; no bare line end; chunks are counted right."""
    whole, cut = DotWriter(), DotWriter()
    sent = whole.feed(message) + whole.end()
    assert sent == b"".join(map(cut.feed, single(message))) + cut.end()
    assert (b"\r\n" + sent).find(b"\r\n.\r\n") == len(sent) - 3
    between = sent.replace(b"\r\n", b"")
    assert b"\r" not in between
    assert b"\n" not in between
    chunks = ChunkWriter(size)
    said = [one for piece in single(message) for one in chunks.feed(piece)] + chunks.end()
    data = [one.partition(b"\r\n") for one in said]
    assert [int(line.split()[1]) for line, _, _ in data] == [len(rest) for _, _, rest in data]
    assert [line.endswith(b"LAST") for line, _, _ in data] == [False] * (len(data) - 1) + [True]
    assert (b"\r\n" + b"".join(rest for _, _, rest in data)).replace(b"\r\n.", b"\r\n..")[
        2:
    ] + b".\r\n" == sent


@pytest.mark.parametrize(
    "address", ["a\r\nRCPT TO:<b@c>", "a@b>", "a b@c", "", "a\0@b", "\udc80@b"], ids=range(6)
)
def test_nothing_is_injected(address: str) -> None:
    """What can stand in no path is a ValueError."""
    with pytest.raises(ValueError, match=r"address|surrogate"):
        OutgoingRecipient(address)


def test_original() -> None:
    """RFC 3461 4, RFC 6533 3."""
    assert original("a+b=c@d") == "rfc822;a+2Bb+3Dc@d"
    assert original("\xe9@d") == r"utf-8;\x{E9}@d"


def test_needs() -> None:
    """Said before MAIL, each with what a report says."""
    made = (
        Talk(client(), Scripted(ehlo=b"250-mx\r\n250-SIZE 10\r\n250 LIMITS RCPTMAX=1 MAILMAX=1\r\n"), [])
        .run()
        .connection
    )
    found = made.unmet(mail("\xe9@b.c", "d@b.c", size=11, eight_bit=True))
    assert [one.need for one in found] == ["size", "8bitmime", "smtputf8", "recipients"]


def test_absurd_offers() -> None:
    """What cannot be understood is not offered."""
    got = read(
        ("mx", "SIZE x", "LIMITS RCPTMAX=0 RCPTMAX=9999999 X", "AUTH=LOGIN", "auth plain \x00", "", "dsn")
    )
    assert (got.sized, got.size, got.recipients, got.auth, got.dsn) == (
        True,
        None,
        None,
        ("LOGIN", "PLAIN"),
        True,
    )
