"""Any octets, cut anywhere: the same events, no exception, nothing kept. The promises of forkd/smtp."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from forkd.smtp import replies
from forkd.smtp.events import Event, Mail, Rcpt
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
    ]
)
SPEECH = st.lists(WORDS | st.binary(max_size=6), max_size=25).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=12)
WIRE = st.sampled_from(["normalize", "reject"])


def policy(connection: ServerConnection, event: Event) -> Reply:
    """Refuses a sender and a recipient now and then."""
    if isinstance(event, Rcpt) and event.recipient.local == "deny":
        return replies.UNKNOWN_RECIPIENT
    if isinstance(event, Mail) and event.size == 100:
        return replies.NO_SPACE
    return accept(connection, event)


@settings(max_examples=400, deadline=None)
@given(speech=SPEECH, cuts=CUTS, wire=WIRE)
@example(
    speech=b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\n.\r\nQUIT\r\n", cuts=[50], wire="reject"
)
def test_any_cuts_give_the_same_events_and_replies(speech: bytes, cuts: list[int], wire: str) -> None:
    """Whether answered between the pieces or piled up first."""
    start = fresh(policy, wire=wire, message_size=200, recipients=2, errors=6)
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
