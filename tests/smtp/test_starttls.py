"""STARTTLS: what is said in the clear stays there (RFC 3207)."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.smtp import replies
from forkd.smtp.events import StartTls
from forkd.smtp.server import ProtocolError, ServerConnection, State
from tests.support.feed import (
    OPEN,
    accept,
    after,
    asked,
    codes,
    converse,
    drain,
    feed,
    in_rcpt,
    play,
    ready,
    refusals,
    refuse,
)

INJECTED = b"EHLO evil\r\nMAIL FROM:<evil@example.org>\r\n"


class TestStartTls:
    """RFC 3207."""

    def waiting(self, **options: Any) -> ServerConnection:
        """220 was sent."""
        made = asked(ready(tls=True, **options), b"STARTTLS\r\n", StartTls)
        assert made.send(replies.TLS_READY) == replies.TLS_READY.encode()
        return made

    def test_everything_said_in_the_clear_is_forgotten(self) -> None:
        """The state is that after the greeting (RFC 3207 4.2)."""
        made = self.waiting(**OPEN)
        assert made.tls_waiting
        assert made.next_event() is None
        made.secured()
        assert (made.state, made.helo, made.esmtp, made.secure) == (State.FRESH, None, False, True)
        made.receive_data(b"MAIL FROM:<a@b>\r\n")
        assert codes(drain(made, accept).sent) == [503]

    def test_authentication_does_not_survive(self) -> None:
        """It was said in the clear too (RFC 4954 4 has the counterpart)."""
        made = after(ready(tls=True, **OPEN), b"AUTH PLAIN AGEAYg==\r\n")
        assert made.authenticated
        made.receive_data(b"STARTTLS\r\n")
        drain(made, accept)
        made.secured()
        assert not made.authenticated

    def test_it_is_offered_once(self) -> None:
        """503 when TLS holds (RFC 3207 4.2), and no longer announced."""
        made = self.waiting()
        made.secured()
        made.receive_data(b"EHLO a\r\n")
        assert b"STARTTLS" not in drain(made, accept).sent
        made.receive_data(b"STARTTLS\r\n")
        assert refusals(drain(made, accept).events) == [replies.TLS_ACTIVE]

    def test_implicit_tls_needs_none(self) -> None:
        """RFC 8314: secure from the first octet."""
        assert refusals(feed(ready(secure=True, tls=True), b"STARTTLS\r\n")) == [replies.TLS_ACTIVE]

    @pytest.mark.parametrize("early", ["refuse", "ignore"])
    def test_what_is_pipelined_behind_it_ends_the_dialogue(self, early: str) -> None:
        """Never is it read as if it had come under TLS: 554 5.5.1, by no setting (CVE-2011-0411)."""
        made = ready(tls=True, early_talker=early).connection()
        made.receive_data(b"STARTTLS\r\n" + INJECTED)
        assert drain(made, accept).sent == replies.EARLY_TALKER.encode()
        assert made.closed

    def test_nor_is_it_read_where_tls_is_not_available(self) -> None:
        """The caller is not even asked: a client that does this is not to be served."""
        start = ready(refuse(StartTls, replies.TLS_UNAVAILABLE), tls=True)
        assert play(start, [b"STARTTLS\r\n" + INJECTED]).sent == replies.EARLY_TALKER.encode()

    def test_so_does_what_comes_before_the_reply(self) -> None:
        """220 is not even sent: send() gives the 554."""
        made = ready(tls=True).connection()
        made.receive_data(b"STARTTLS\r\n")
        assert made.next_event() == StartTls()
        made.receive_data(b"E")
        assert made.send(replies.TLS_READY) == replies.EARLY_TALKER.encode()
        assert made.closed
        assert not made.tls_waiting

    def test_so_does_what_comes_before_the_handshake(self) -> None:
        """Nothing can be said any more, and nothing is read."""
        made = self.waiting()
        made.receive_data(INJECTED)
        assert made.closed
        made.secured()
        assert made.closed
        assert made.next_event() is None

    def test_a_refused_starttls_changes_nothing(self) -> None:
        """454 4.7.0, and the dialogue goes on in the clear."""
        start = ready(refuse(StartTls, replies.TLS_UNAVAILABLE), tls=True)
        assert codes(play(start, [b"STARTTLS\r\n", b"MAIL FROM:<a@b>\r\n"]).sent) == [454, 250]

    def test_an_argument_is_501_and_a_transaction_503(self) -> None:
        """RFC 3207 4, 4.3."""
        assert codes(converse(ready(tls=True), b"STARTTLS now\r\n").sent) == [501]
        assert codes(converse(in_rcpt(tls=True), b"STARTTLS\r\n").sent) == [503]

    def test_where_it_is_not_offered_it_is_502(self) -> None:
        """RFC 5321 4.2.4."""
        assert refusals(feed(ready(), b"STARTTLS\r\n")) == [replies.NOT_IMPLEMENTED]

    def test_secured_without_starttls_is_a_mistake(self) -> None:
        """Of the caller."""
        with pytest.raises(ProtocolError):
            ready(tls=True).connection().secured()

    def test_the_peers_end_while_tls_is_awaited(self) -> None:
        """Seen when TLS is given up, or holds: no event comes of it."""
        made = self.waiting()
        made.receive_data(b"")
        assert made.next_event() is None
        made.secured()
        assert made.next_event() is None
        assert made.closed
