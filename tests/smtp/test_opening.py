"""The first octets in the clear: SMTP, or a client that is set to implicit TLS on the wrong port."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from forkd.smtp import events, replies
from forkd.smtp.events import Refused
from forkd.smtp.options import ServerOptions
from forkd.smtp.server import ServerConnection
from tests.support.feed import (
    Start,
    accept,
    converse,
    drain,
    feed,
    fresh,
    in_chunks,
    in_data,
    kinds,
    message,
    ready,
    refusals,
)


def client_hello() -> bytes:
    """What a TLS client says first, in full."""
    heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    shaking = context.wrap_bio(heard, said, server_hostname="mx.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        shaking.do_handshake()
    return said.read()


HELLO = client_hello()
STEM = b"\x16\x03\x01\x02\x00"


class TestHandshakeInTheClear:
    """RFC 8446 5.1: 0x16 and 0x03 begin a handshake, and no command."""

    @pytest.mark.parametrize(
        "octets",
        [HELLO, b"\x16\x03", STEM + b"\n" * 9, STEM + b"\r\nNOOP\r\nNOOP\r\n", STEM * 200_000],
        ids=["real", "two", "LF in it", "CRLF in it", "endless"],
    )
    def test_it_is_told_apart_at_once(self, octets: bytes) -> None:
        """421 and closed as soon as the second octet is there, whatever else comes, cut anywhere."""
        made = fresh().connection()
        made.receive_data(octets)
        heard = drain(made, accept)
        assert heard.events == [Refused(replies.NOT_TLS)]
        assert heard.sent == replies.NOT_TLS.encode()
        assert made.closed
        assert feed(fresh(), octets[:600]) == heard.events

    def test_one_octet_tells_nothing_yet(self) -> None:
        """The second one may be late, or never come."""
        made = fresh().connection()
        made.receive_data(b"\x16")
        assert made.next_event() is None
        made.receive_data(b"")
        assert made.next_event() is None
        assert made.closed

    @pytest.mark.parametrize(
        ("start", "octets"),
        [
            pytest.param(fresh(), b"\x16\x02NOOP\r\n", id="another version"),
            pytest.param(fresh(), b"\x16\r\n", id="no version"),
            pytest.param(fresh(), b"\x03\x16\r\n", id="other order"),
            pytest.param(fresh(), b"NOOP\r\n\x16\x03\x01\r\n", id="pipelined"),
            pytest.param(Start((b"NOOP\r\n",)), b"\x16\x03\x01\r\n", id="second"),
            pytest.param(Start((b"FOO\r\n",)), b"\x16\x03\x01\r\n", id="after an error"),
            pytest.param(ready(), b"\x16\x03\x01\r\n", id="after EHLO"),
            pytest.param(fresh(secure=True), b"\x16\x03\x01\r\n", id="under TLS"),
            pytest.param(
                Start((b"XCLIENT ADDR=192.0.2.1\r\n",), {"xclient": True}),
                b"\x16\x03\r\n",
                id="after XCLIENT",
            ),
        ],
    )
    def test_elsewhere_it_is_a_bad_command(self, start: Start, octets: bytes) -> None:
        """Only the very first octets of a session, and only in the clear, can be one."""
        assert refusals(feed(start, octets)) == [replies.UNKNOWN_COMMAND]

    def test_a_message_may_begin_so(self) -> None:
        """DATA and BDAT: no octet of a message is looked at in this way."""
        assert message(feed(in_data(), b"\x16\x03\x01\r\n.\r\n")) == b"\x16\x03\x01\r\n"
        heard = feed(in_chunks(), b"BDAT 5 LAST\r\n\x16\x03\x01\r\n")
        assert message(heard) == b"\x16\x03\x01\r\n"
        assert kinds(heard)[-1] is events.DataEnd

    def test_inside_tls_the_dialogue_begins_with_commands(self) -> None:
        """After STARTTLS what comes is under TLS already."""
        made = Start((b"STARTTLS\r\n",), {"tls": True}).connection()
        made.secured()
        made.receive_data(b"\x16\x03\x01\r\nNOOP\r\n")
        assert kinds(drain(made, accept).events) == [Refused, events.Noop]

    def test_who_was_refused_by_the_greeting_is_told_too(self) -> None:
        """It would wait for us as ever else."""
        made = ServerConnection(ServerOptions(hostname="mx.example.org", message_size=1000))
        made.greeting(replies.REFUSED_BEFORE)
        made.receive_data(HELLO)
        assert refusals(drain(made, accept).events) == [replies.NOT_TLS]

    @pytest.mark.parametrize(
        ("octets", "first"),
        [(HELLO, replies.NOT_TLS), (b"\x16", replies.EARLY_TALKER), (b"EHLO a\r\n", replies.EARLY_TALKER)],
    )
    def test_before_the_greeting_it_has_its_reply_as_one(self, octets: bytes, first: Any) -> None:
        """TLS clients speak at once, so this is the common case."""
        made = ServerConnection(ServerOptions(hostname="mx.example.org", message_size=1000))
        made.receive_data(octets)
        assert made.too_early() is first
        assert made.greeting() == first.encode()
        assert made.closed

    def test_where_early_talk_is_allowed_the_greeting_comes_first(self) -> None:
        """And the answer to the handshake behind it."""
        options = ServerOptions(hostname="mx.example.org", message_size=1000, early_talker="ignore")
        made = ServerConnection(options)
        made.receive_data(HELLO)
        assert made.too_early() is None
        assert made.greeting().startswith(b"220 ")
        assert refusals(drain(made, accept).events) == [replies.NOT_TLS]

    def test_a_session_under_tls_may_be_an_early_talker(self) -> None:
        """Implicit TLS: the octets inside are SMTP's."""
        options = ServerOptions(hostname="mx.example.org", message_size=1000)
        made = ServerConnection(options, secure=True)
        made.receive_data(b"\x16\x03\x01\r\n")
        assert made.greeting() == replies.EARLY_TALKER.encode()

    def test_a_command_that_begins_otherwise_is_served_as_ever(self) -> None:
        """In one piece or in many."""
        assert converse(fresh(), b"NOOP\r\nQUIT\r\n").events == [events.Noop(), events.Quit()]
