"""Parameters of MAIL and RCPT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.smtp import parameters, replies
from forkd.smtp.reply import Reply


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", {}),
        (b" SIZE=0", {"SIZE": "0"}),
        (b" size=12345678901234567890", {"SIZE": "12345678901234567890"}),
        (b" BODY=8bitmime  SIZE=10", {"BODY": "8bitmime", "SIZE": "10"}),
        (b" BODY=7BIT", {"BODY": "7BIT"}),
    ],
)
def test_known_parameters_come_out_as_written(text: bytes, found: dict[str, str]) -> None:
    """Keywords in upper case, values untouched (RFC 5321 4.1.2)."""
    assert parameters.parse("MAIL", text, extended=True) == found


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (b"SIZE=1", replies.BAD_PARAMETER),
        (b" SIZE", replies.BAD_SIZE),
        (b" SIZE=", replies.BAD_PARAMETER),
        (b" SIZE=-1", replies.BAD_SIZE),
        (b" SIZE=1x", replies.BAD_SIZE),
        (b" SIZE=123456789012345678901", replies.BAD_SIZE),
        (b" SIZE=1 SIZE=1", replies.DOUBLE_PARAMETER),
        (b" BODY=BINARYMIME", replies.BAD_BODY),
        (b" BODY", replies.BAD_BODY),
        (b" =1", replies.BAD_PARAMETER),
        (b" -A=1", replies.BAD_PARAMETER),
        (b" A=B=C", replies.BAD_PARAMETER),
        (b" A=\xff", replies.BAD_PARAMETER),
        (b" A\0B", replies.BAD_PARAMETER),
        (b" FOO", replies.UNKNOWN_PARAMETER),
        (b" FOO=bar", replies.UNKNOWN_PARAMETER),
        (b" SMTPUTF8", replies.UNKNOWN_PARAMETER),
    ],
)
def test_a_bad_parameter_has_its_reply(text: bytes, reply: Reply) -> None:
    """501 5.5.4 for syntax and values, 555 5.5.4 for what is not offered (RFC 5321 4.1.1.11)."""
    assert parameters.parse("MAIL", text, extended=True) is reply


def test_rcpt_has_no_parameters_yet() -> None:
    """SIZE belongs to MAIL only."""
    assert parameters.parse("RCPT", b" SIZE=1", extended=True) is replies.UNKNOWN_PARAMETER


def test_parameters_need_ehlo() -> None:
    """After HELO no extension was offered (RFC 5321 4.1.1.11)."""
    assert parameters.parse("MAIL", b" SIZE=1", extended=False) is replies.PARAMETERS_NEED_EHLO
    assert parameters.parse("MAIL", b"", extended=False) == {}


def test_the_command_line_grows_by_what_the_rfcs_say() -> None:
    """26 octets for SIZE (RFC 1870 3), 17 for BODY (RFC 6152 2)."""
    assert parameters.line_octets("MAIL") == 43


@given(st.binary(max_size=60))
def test_any_octets_are_parameters_or_a_reply(text: bytes) -> None:
    """Total: no octets raise."""
    assert isinstance(parameters.parse("MAIL", text, extended=True), dict | Reply)
