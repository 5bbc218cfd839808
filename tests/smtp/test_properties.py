"""Any octets, cut anywhere: the same events, no exception, nothing kept. The promises of forkd/smtp."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from forkd.smtp import replies
from forkd.smtp.events import Auth, AuthData, Data, Event, Mail, Rcpt
from forkd.smtp.reply import Reply
from forkd.smtp.server import ServerConnection
from tests.support.feed import accept, assert_same, cut, fresh, pile, play

WORDS = st.sampled_from(
    [
        b"EHLO a\r\n",
        b"HELO a\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"MAIL FROM:<> SIZE=100 BODY=8BITMIME\r\n",
        b"MAIL FROM:<a@b> SIZE=1000\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"RCPT TO:<@x:postmaster>\r\n",
        b"RCPT TO:<deny@d>\r\n",
        b"DATA\r\n",
        b"\r\n.\r\n",
        b".\r\n",
        b"\n.\n",
        b"..\r\n",
        b"RSET\r\n",
        b"NOOP\n",
        b"QUIT\r\n",
        b"VRFY a\r\n",
        b"text text\r\n",
        b"\r",
        b"\n",
        b"\0",
        b"\xff",
        b"x" * 300,
        b"BDAT 6\r\nabcdef",
        b"BDAT 3 LAST\r\na\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 150\r\n",
        b"BDAT 9999\r\n",
        b"BDAT\n",
        b"AUTH PLAIN AGEAYg==\r\n",
        b"AUTH LOGIN\r\n",
        b"dXNlcg==\r\n",
        b"*\r\n",
        b"XCLIENT ADDR=192.0.2.1\r\n",
        b"MAIL FROM:<\xc3\xa9@b> SMTPUTF8 RET=FULL\r\n",
        b"RCPT TO:<\xc3\xa9@b> NOTIFY=NEVER\r\n",
        b"VRFY \xc3\xa9 SMTPUTF8\r\n",
    ]
)
SPEECH = st.lists(WORDS | st.binary(max_size=6), max_size=25).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=12)
WIRE = st.sampled_from(["normalize", "reject"])
OFFERED = st.fixed_dictionaries(
    {
        "auth": st.sampled_from([(), ("PLAIN", "LOGIN")]),
        "auth_needs_tls": st.booleans(),
        "tls_required": st.booleans(),
        "xclient": st.booleans(),
        "secure": st.booleans(),
    }
)


def policy(connection: ServerConnection, event: Event) -> Reply:
    """Refuses a sender and a recipient now and then; AUTH LOGIN has one challenge, and some fail."""
    if isinstance(event, Auth) and event.initial is None:
        return replies.challenge(b"Username:")
    if isinstance(event, AuthData) and event.data == b"":
        return replies.AUTH_FAILED
    if isinstance(event, Data) and event.chunked and connection.errors % 2:
        return replies.RELAY_DENIED
    if isinstance(event, Rcpt) and event.recipient.local == "deny":
        return replies.UNKNOWN_RECIPIENT
    if isinstance(event, Mail) and event.size == 100:
        return replies.NO_SPACE
    return accept(connection, event)


@settings(max_examples=400, deadline=None)
@given(speech=SPEECH, cuts=CUTS, wire=WIRE, offered=OFFERED)
@example(
    speech=b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\n.\r\nQUIT\r\n",
    cuts=[50],
    wire="reject",
    offered={},
)
def test_any_cuts_give_the_same_events_and_replies(
    speech: bytes, cuts: list[int], wire: str, offered: dict[str, Any]
) -> None:
    """Whether answered between the pieces or piled up first, whatever is offered."""
    start = fresh(policy, wire=wire, message_size=200, recipients=2, errors=6, **offered)
    whole = play(start, [speech])
    pieces = cut(speech, cuts)
    assert_same(play(start, pieces), whole)
    assert_same(pile(start, pieces), whole)


@settings(max_examples=200, deadline=None)
@given(speech=SPEECH, cuts=CUTS)
def test_early_talkers_are_caught_however_the_octets_are_cut(speech: bytes, cuts: list[int]) -> None:
    """Of what is there before the reply, only the octets count."""
    start = fresh(policy, early_talker="refuse", message_size=200, errors=6)
    assert_same(pile(start, cut(speech, cuts)), pile(start, [speech]))


@settings(max_examples=200, deadline=None)
@given(speech=SPEECH, cuts=CUTS)
def test_every_reply_is_a_whole_line_and_nothing_of_the_clients(speech: bytes, cuts: list[int]) -> None:
    """Printable ASCII between code and CRLF, in replies to whatever was said."""
    sent = play(fresh(policy, message_size=200), cut(speech, cuts)).sent
    lines = sent.split(b"\r\n")
    assert lines.pop() == b""
    for line in lines:
        assert line[:3].isdigit()
        assert line[3:4] in (b" ", b"-")
        assert line.decode("ascii").isprintable()
