"""What is announced, and the options it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.smtp.extensions import greeting_reply, hello_reply
from forkd.smtp.options import ServerOptions
from forkd.smtp.terms import Terms, terms


def options(**more: Any) -> ServerOptions:
    """Good options, but for what a test changes."""
    return ServerOptions(**{"hostname": "mx.example.org", "message_size": 1000, **more})


def plain(**more: Any) -> Terms:
    """The terms of a connection that has nothing behind it."""
    return terms(options(**more), False, False, False)


def keywords(offer: Terms) -> list[str]:
    """The lines of the reply to EHLO that are not always there."""
    always = {"PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES", "DSN", "HELP"}
    lines = hello_reply(offer, True).lines[1:]
    return [line for line in lines if line not in always and not line.startswith(("SIZE", "LIMITS"))]


ALL = {"tls": True, "auth": ("SCRAM-SHA-256", "PLAIN")}


@pytest.mark.parametrize(
    ("more", "holds", "announced"),
    [
        ({}, {}, []),
        (ALL, {}, ["STARTTLS"]),
        (ALL, {"secure": True}, ["AUTH SCRAM-SHA-256 PLAIN"]),
        (ALL, {"secure": True, "authenticated": True}, []),
        ({**ALL, "auth_needs_tls": False}, {}, ["STARTTLS", "AUTH SCRAM-SHA-256 PLAIN"]),
        ({**ALL, "tls_required": True, "auth_needs_tls": False}, {}, ["STARTTLS"]),
        ({}, {"xclient": True}, ["XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"]),
    ],
)
def test_what_is_announced_is_what_can_be_had_now(
    more: dict[str, Any], holds: dict[str, bool], announced: list[str]
) -> None:
    """STARTTLS until TLS holds (RFC 3207 4.2), AUTH where it is allowed and still wanted (RFC 4954 3)."""
    held = {"secure": False, "authenticated": False, "xclient": False, **holds}
    assert keywords(terms(options(**more), *held.values())) == announced


def test_ehlo_announces_what_is_there() -> None:
    """Host name first, then a line for each extension, no enhanced codes (RFC 5321 4.1.1.1, RFC 2034 4)."""
    assert hello_reply(plain(), True).encode() == (
        b"250-mx.example.org\r\n"
        b"250-PIPELINING\r\n"
        b"250-SIZE 1000\r\n"
        b"250-8BITMIME\r\n"
        b"250-SMTPUTF8\r\n"
        b"250-CHUNKING\r\n"
        b"250-LIMITS RCPTMAX=1000\r\n"
        b"250-ENHANCEDSTATUSCODES\r\n"
        b"250-DSN\r\n"
        b"250 HELP\r\n"
    )


def test_dsn_is_not_announced_where_nobody_can_promise_it() -> None:
    """RFC 3461 5: who announces it reports on whatever it has taken; a proxy takes nothing."""
    assert "DSN" in hello_reply(plain(), True).lines
    assert "DSN" not in hello_reply(plain(dsn=False), True).lines


def test_helo_announces_nothing() -> None:
    """One line (RFC 5321 4.1.1.1)."""
    assert hello_reply(plain(), False).encode() == b"250 mx.example.org\r\n"


def test_each_listener_has_its_own() -> None:
    """Replies are kept per options value, never shared between two."""
    assert hello_reply(plain(message_size=7), True).lines[2] == "SIZE 7"
    assert hello_reply(plain(message_size=8), True).lines[2] == "SIZE 8"
    assert greeting_reply(options(greeting="ready")).encode() == b"220 mx.example.org ready\r\n"


def test_a_greeting_of_several_lines() -> None:
    """The host name stands in the first (RFC 5321 4.2); none is empty behind it."""
    assert greeting_reply(options(greeting="\nno spam\n.")).encode() == (
        b"220-mx.example.org\r\n220-no spam\r\n220 .\r\n"
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"hostname": ""},
        {"hostname": "a\r\nb"},
        {"hostname": "é"},
        {"message_size": 0},
        {"recipients": 0},
        {"errors": 0},
        {"command_line": 511},
        {"wire": "off"},
        {"auth": ("plain",)},
        {"auth_required": True},
        {"early_talker": "maybe"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(bad: dict[str, Any]) -> None:
    """At start-up, not in the first session."""
    with pytest.raises(ValueError, match=r"must be|is not|, not"):
        options(**bad)
