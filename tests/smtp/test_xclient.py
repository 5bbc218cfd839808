"""XCLIENT: a proxy of ours says who its client is (Postfix XCLIENT_README)."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.smtp import replies
from forkd.smtp.events import Xclient
from forkd.smtp.reply import reply
from forkd.smtp.server import ProtocolError, ServerConnection, State
from tests.support.feed import (
    OPEN,
    accept,
    asked,
    codes,
    converse,
    drain,
    feed,
    in_rcpt,
    ready,
    refusals,
)


class TestXclient:
    """Postfix XCLIENT_README."""

    def test_the_attributes_come_decoded(self) -> None:
        """xtext, and None for what the proxy does not know."""
        line = (
            b"XCLIENT NAME=mail.example.org ADDR=IPV6:2001:db8::1 port=[UNAVAILABLE] HELO=a+2Bb"
            b" LOGIN=[tempunavail]"
        )
        assert feed(ready(xclient=True), line + b"\r\n") == [
            Xclient(
                {
                    "NAME": "mail.example.org",
                    "ADDR": "IPV6:2001:db8::1",
                    "PORT": None,
                    "HELO": "a+b",
                    "LOGIN": None,
                }
            )
        ]

    @pytest.mark.parametrize(
        "argument",
        [
            b"",
            b"NAME",
            b"NAME=",
            b"=x",
            b"FOO=bar",
            b"NAME=a NAME=b",
            b"NAME=+zz",
            b"NAME=a+0Ab",
            b"NAME=+C3+A9",
            b"NAME=\xff",
            b"NAME=a=b",
            b"NAME=" + b"x" * 256,
        ],
    )
    def test_bad_syntax_is_501(self, argument: bytes) -> None:
        """And nothing is taken over: no line end, no octet above 127 but in a login."""
        assert refusals(feed(ready(xclient=True), b"XCLIENT " + argument + b"\r\n")) == [replies.BAD_XCLIENT]

    def test_it_is_not_for_everybody(self) -> None:
        """550 5.7.0 to clients that are not allowed, 503 in a transaction."""
        assert refusals(feed(ready(), b"XCLIENT ADDR=192.0.2.1\r\n")) == [replies.XCLIENT_DENIED]
        assert codes(converse(in_rcpt(xclient=True), b"XCLIENT ADDR=192.0.2.1\r\n").sent) == [503]

    def waiting(self, **options: Any) -> ServerConnection:
        """XCLIENT waits for its reply."""
        return asked(ready(xclient=True, **options), b"XCLIENT ADDR=192.0.2.1\r\n", Xclient)

    def test_success_is_a_greeting_and_nothing_is_left(self) -> None:
        """220, and EHLO must be said anew."""
        made = ready(xclient=True).connection()
        made.receive_data(b"FOO\r\nXCLIENT ADDR=192.0.2.1\r\n")
        made.next_event()
        made.send(replies.UNKNOWN_COMMAND)
        assert isinstance(made.next_event(), Xclient)
        assert made.restart() == b"220 mx.example.org ESMTP\r\n"
        assert (made.state, made.helo, made.errors) == (State.FRESH, None, 0)
        made.receive_data(b"MAIL FROM:<a@b>\r\n")
        assert codes(drain(made, accept).sent) == [503]

    def test_the_new_client_may_be_refused(self) -> None:
        """As by a greeting: with or without the close."""
        made = self.waiting()
        assert made.restart(reply(554, "5.7.1", "no")) == b"554 5.7.1 no\r\n"
        assert made.state is State.REFUSED
        made = self.waiting()
        made.restart(replies.TOO_MANY_CONNECTIONS)
        assert made.closed

    def test_a_named_login_is_authenticated(self) -> None:
        """LOGIN: the proxy has done AUTH; without it nobody is."""
        made = self.waiting(auth_required=True, **OPEN)
        made.restart(authenticated=True)
        made.receive_data(b"EHLO a\r\nMAIL FROM:<a@b>\r\n")
        assert codes(drain(made, accept).sent) == [250, 250]
        made.receive_data(b"RSET\r\nXCLIENT ADDR=192.0.2.2\r\n")
        drain(made, accept)
        assert not made.authenticated

    def test_a_refused_xclient_changes_nothing(self) -> None:
        """The dialogue goes on as the proxy's own."""
        made = self.waiting()
        made.send(replies.XCLIENT_DENIED)
        assert (made.state, made.helo) == (State.READY, "client.example.org")

    def test_restart_without_xclient_is_a_mistake(self) -> None:
        """Of the caller."""
        with pytest.raises(ProtocolError):
            ready(xclient=True).connection().restart()
