"""A dialogue with every extension, cut at every octet: the same events and replies, whatever the cuts."""

from __future__ import annotations

import itertools

import pytest

from forkd.smtp import events, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.events import Auth, AuthData, DataChunk, DataEnd, Event
from forkd.smtp.reply import Reply
from forkd.smtp.server import ServerConnection
from tests.support.feed import Heard, Start, accept, codes, drain

OPTIONS = {"tls": True, "auth": ("SCRAM-SHA-256", "LOGIN", "PLAIN"), "auth_required": True, "xclient": True}

PARTS = [
    # Each is sent when the replies to the one before it are there.
    b"EHLO proxy.example.org\r\n",
    b"XCLIENT NAME=c.example.org ADDR=192.0.2.1 PORT=1025\r\n",
    b"EHLO c.example.org\r\n",
    b"STARTTLS\r\n",
    b"EHLO c.example.org\r\n",
    b"AUTH LOGIN\r\n",
    b"dXNlcg==\r\n",
    b"c2VjcmV0\r\n",
    b"VRFY j\xc3\xb6rg SMTPUTF8\r\n",
    (
        b"MAIL FROM:<j\xc3\xb6rg@b\xc3\xbccher.example>"
        b" SMTPUTF8 SIZE=40 BODY=8BITMIME RET=HDRS ENVID=e+2B1 AUTH=<>\r\n"
        b"RCPT TO:<user@test.local> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;user@test.local\r\n"
        b"RCPT TO:<\xe7\x94\xa8\xe6\x88\xb7@test.local> NOTIFY=NEVER\r\nDATA\r\n"
    ),
    (
        b"one\r\n..\r\n\nhalf\r\n.\r\n"
        b"MAIL FROM:<> RET=FULL\r\nRCPT TO:<postmaster>\r\nBDAT 6\r\ntwo\r\nfBDAT 0\r\nNOOP\r\n"
    ),
    b"BDAT 4 LAST\r\nour.MAIL FROM:<a@b>\r\nBDAT 5\r\nQUIT\nRSET\r\nQUIT\r\n",
]


def policy(connection: ServerConnection, event: Event) -> Reply:
    """Two challenges of LOGIN, all else accepted."""
    if isinstance(event, Auth):
        return replies.challenge(b"Username:")
    if isinstance(event, AuthData) and event.data == b"user":
        return replies.challenge(b"Password:")
    return accept(connection, event)


def converse(parts: list[list[bytes]]) -> Heard:
    """Every part in its pieces; TLS is there at once where it was asked for."""
    connection = Start((), OPTIONS).connection()
    heard = Heard([], b"")
    for part in parts:
        for piece in part:
            connection.receive_data(piece)
            now = drain(connection, policy)
            heard.events += now.events
            heard.sent += now.sent
        if connection.tls_waiting:
            connection.secured()
    return Heard(_joined(heard.events), heard.sent)


def _joined(heard: list[Event]) -> list[Event]:
    joined: list[Event] = []
    for event in heard:
        if isinstance(event, DataChunk) and joined and isinstance(joined[-1], DataChunk):
            joined[-1] = DataChunk(joined[-1].data + event.data)
        else:
            joined.append(event)
    return joined


WHOLE = converse([[part] for part in PARTS])


def test_what_is_said_in_it() -> None:
    """Every extension is there, and does what it should."""
    assert codes(WHOLE.sent) == [
        *(250, 220, 250, 220, 250, 334, 334, 235, 252),
        *(250, 250, 250, 354, 250),
        *(250, 250, 250, 250, 250, 250, 250, 554, 250, 221),
    ]
    messages = [event.data for event in WHOLE.events if isinstance(event, DataChunk)]
    assert b"".join(messages) == b"one\r\n.\r\n\r\nhalf\r\n" + b"two\r\nfour.\r\n"
    assert [event.size for event in WHOLE.events if isinstance(event, DataEnd)] == [16, 12]
    mail, rcpt = (next(e for e in WHOLE.events if isinstance(e, kind)) for kind in (events.Mail, events.Rcpt))
    assert mail.sender == Mailbox("jörg", "bücher.example")
    assert (mail.smtputf8, mail.ret, mail.envid, mail.auth) == (True, "HDRS", "e+2B1", "<>")
    assert (rcpt.notify, rcpt.orcpt) == (("SUCCESS", "FAILURE"), "rfc822;user@test.local")
    assert events.Vrfy("jörg", True) in WHOLE.events


@pytest.mark.parametrize("number", range(len(PARTS)))
def test_a_cut_at_any_octet_changes_nothing(number: int) -> None:
    """One cut at a time, in each part, at each octet of it; neighbouring chunks of a message count as one."""
    part = PARTS[number]
    for at in range(1, len(part)):
        pieces = [[other] for other in PARTS]
        pieces[number] = [part[:at], part[at:]]
        assert converse(pieces) == WHOLE, part[:at]


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_nor_do_many_cuts(length: int) -> None:
    """In pieces of a few octets each."""
    pieces = [[bytes(piece) for piece in _pieces(part, length)] for part in PARTS]
    assert converse(pieces) == WHOLE


def _pieces(part: bytes, length: int) -> list[bytes]:
    octets = iter(part)
    return list(iter(lambda: bytes(itertools.islice(octets, length)), b""))
