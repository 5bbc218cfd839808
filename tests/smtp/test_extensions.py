"""What is announced, and the options it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from forkd.smtp.extensions import greeting_reply, hello_reply
from forkd.smtp.options import ServerOptions


def options(**more: Any) -> ServerOptions:
    """Good options, but for what a test changes."""
    return ServerOptions(**{"hostname": "mx.example.org", "message_size": 1000, **more})


def test_ehlo_announces_what_is_there() -> None:
    """Host name first, then a line for each extension, no enhanced codes (RFC 5321 4.1.1.1, RFC 2034 4)."""
    assert hello_reply(options(), True).encode() == (
        b"250-mx.example.org\r\n"
        b"250-PIPELINING\r\n"
        b"250-SIZE 1000\r\n"
        b"250-8BITMIME\r\n"
        b"250-ENHANCEDSTATUSCODES\r\n"
        b"250 HELP\r\n"
    )


def test_helo_announces_nothing() -> None:
    """One line (RFC 5321 4.1.1.1)."""
    assert hello_reply(options(), False).encode() == b"250 mx.example.org\r\n"


def test_each_listener_has_its_own() -> None:
    """Replies are kept per options value, never shared between two."""
    assert hello_reply(options(message_size=7), True).lines[2] == "SIZE 7"
    assert hello_reply(options(message_size=8), True).lines[2] == "SIZE 8"
    assert greeting_reply(options(greeting="ready")).encode() == b"220 mx.example.org ready\r\n"


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
        {"early_talker": "maybe"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(bad: dict[str, Any]) -> None:
    """At start-up, not in the first session."""
    with pytest.raises(ValueError, match=r"must be|is not|, not"):
        options(**bad)
