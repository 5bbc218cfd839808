"""What a listener asks for before it serves mail, and what is a client's own."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.smtp import replies
from forkd.smtp.options import ServerOptions
from forkd.smtp.reply import reply
from forkd.smtp.server import ServerConnection
from tests.support.feed import (
    accept,
    codes,
    converse,
    drain,
    ready,
    refusals,
)

OPEN: dict[str, Any] = {"auth": ("SCRAM-SHA-256", "PLAIN"), "auth_needs_tls": False}


class TestGates:
    """What must come first."""

    @pytest.mark.parametrize(
        "line",
        [
            b"HELO a",
            b"MAIL FROM:<a@b>",
            b"RCPT TO:<a@b>",
            b"DATA",
            b"RSET",
            b"VRFY a",
            b"EXPN a",
            b"HELP",
            b"AUTH PLAIN AGEAYg==",
            b"BDAT 5\r\nabc",  # with the CRLF that is added
        ],
    )
    def test_tls_required_is_530_to_all_but_a_few(self, line: bytes) -> None:
        """RFC 3207 4: NOOP, EHLO, STARTTLS, QUIT; a chunk is read over."""
        start = ready(tls=True, tls_required=True, auth=("PLAIN",))
        heard = converse(start, line + b"\r\nNOOP\r\n")
        assert codes(heard.sent) == [530, 250]
        assert refusals(heard.events) == [replies.TLS_NEEDED]

    @pytest.mark.parametrize("line", [b"NOOP", b"EHLO a", b"STARTTLS", b"QUIT"])
    def test_tls_required_leaves_these(self, line: bytes) -> None:
        """Else nobody would get further."""
        assert codes(converse(ready(tls=True, tls_required=True), line + b"\r\n").sent)[0] < 300

    def test_tls_required_is_done_with_tls(self) -> None:
        """Whether it came by STARTTLS or was there."""
        assert codes(converse(ready(secure=True, tls_required=True), b"MAIL FROM:<a@b>\r\n").sent) == [250]

    @pytest.mark.parametrize(
        "line", [b"MAIL FROM:<a@b>", b"RCPT TO:<a@b>", b"DATA", b"VRFY a", b"EXPN a", b"BDAT 5\r\nabc"]
    )
    def test_auth_required_is_530_to_what_leads_to_mail(self, line: bytes) -> None:
        """RFC 4954 6, RFC 6409 4.3."""
        heard = converse(ready(auth_required=True, **OPEN), line + b"\r\nNOOP\r\n")
        assert codes(heard.sent) == [530, 250]
        assert refusals(heard.events) == [replies.AUTH_NEEDED]

    @pytest.mark.parametrize("line", [b"EHLO a", b"HELO a", b"NOOP", b"RSET", b"QUIT", b"HELP"])
    def test_auth_required_leaves_these(self, line: bytes) -> None:
        """RFC 4954 6."""
        assert codes(converse(ready(auth_required=True, **OPEN), line + b"\r\n").sent)[0] < 300

    def test_after_auth_mail_is_served(self) -> None:
        """Also after another EHLO."""
        speech = b"AUTH PLAIN AGEAYg==\r\nEHLO a\r\nMAIL FROM:<a@b>\r\n"
        assert codes(converse(ready(auth_required=True, **OPEN), speech).sent) == [235, 250, 250]

    def test_a_refused_client_hears_of_nothing_else(self) -> None:
        """After a refusing greeting 503, whatever else would be in the way (RFC 5321 3.1)."""
        options = ServerOptions(
            hostname="mx.example.org", message_size=9, tls_required=True, early_talker="ignore"
        )
        made = ServerConnection(options)
        made.greeting(reply(554, "5.7.1", "go away"))
        made.receive_data(b"MAIL FROM:<a@b>\r\nAUTH PLAIN\r\nXCLIENT ADDR=1.2.3.4\r\n")
        assert codes(drain(made, accept).sent) == [503] * 3


def test_the_wire_mode_is_the_clients() -> None:
    """Given at the beginning, or set before the message; the listener's is for all others."""
    options = ServerOptions(hostname="mx.example.org", message_size=1000, early_talker="ignore")
    speech = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\na\nb\r\n.\r\n"

    def answer(made: ServerConnection) -> int:
        made.greeting()
        made.receive_data(speech)
        return codes(drain(made, accept).sent)[-1]

    assert answer(ServerConnection(options)) == 250
    assert answer(ServerConnection(options, wire="reject")) == 550
    changed = ServerConnection(options, wire="reject")
    changed.set_wire("normalize")
    assert answer(changed) == 250
