"""Parameters of MAIL and RCPT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.smtp import parameters, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.events import Mail, Rcpt
from forkd.smtp.reply import Reply

USER = Mailbox("user", "test.local")


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
        (b" SMTPUTF8=", replies.BAD_PARAMETER),
        (b" SMTPUTF8=x", replies.NO_VALUE_ALLOWED),
        (b" RET", replies.BAD_RET),
        (b" RET=BODY", replies.BAD_RET),
        (b" ENVID", replies.BAD_ENVID),
        (b" ENVID=a+2", replies.BAD_ENVID),
        (b" ENVID=a+2b", replies.BAD_ENVID),
        (b" ENVID=" + b"x" * 101, replies.BAD_ENVID),
        (b" AUTH", replies.BAD_AUTH),
        (b" AUTH=a+zz", replies.BAD_AUTH),
        (b" NOTIFY=NEVER", replies.UNKNOWN_PARAMETER),
    ],
)
def test_a_bad_parameter_has_its_reply(text: bytes, reply: Reply) -> None:
    """501 5.5.4 for syntax and values, 555 5.5.4 for what is not offered (RFC 5321 4.1.1.11)."""
    assert parameters.parse("MAIL", text, extended=True) is reply


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (b" SIZE=1", replies.UNKNOWN_PARAMETER),
        (b" NOTIFY", replies.BAD_NOTIFY),
        (b" NOTIFY=NEVER,DELAY", replies.BAD_NOTIFY),
        (b" NOTIFY=SUCCESS,", replies.BAD_NOTIFY),
        (b" NOTIFY=ALWAYS", replies.BAD_NOTIFY),
        (b" NOTIFY=DELAY,DELAY,DELAY,DELAY", replies.BAD_NOTIFY),
        (b" ORCPT", replies.BAD_ORCPT),
        (b" ORCPT=user@x.org", replies.BAD_ORCPT),
        (b" ORCPT=;user@x.org", replies.BAD_ORCPT),
        (b" ORCPT=rfc822;a+b", replies.BAD_ORCPT),
        (b" ORCPT=rfc822;\xc3\xa9@x.org", replies.BAD_ORCPT),
        (b" ORCPT=utf-8;\xff", replies.BAD_PARAMETER),
        (b" ORCPT=rfc822;" + b"x" * 494, replies.BAD_ORCPT),
    ],
)
def test_a_bad_parameter_of_rcpt_has_its_reply(text: bytes, reply: Reply) -> None:
    """RFC 3461 4.1, 4.2, RFC 6533 3; SIZE belongs to MAIL only."""
    assert parameters.parse("RCPT", text, extended=True) is reply


def test_what_reports_are_asked_for_comes_out_parsed() -> None:
    """RFC 3461 4: values that matter for a report, keywords without case."""
    mail = Mail(None, read("MAIL", b" RET=hdrs ENVID=QQ+2B314159 AUTH=e+3Dmc2@example.com"))
    assert (mail.ret, mail.envid, mail.auth) == ("HDRS", "QQ+2B314159", "e=mc2@example.com")
    rcpt = Rcpt(USER, read("RCPT", b" NOTIFY=success,Delay ORCPT=rfc822;Bob+40x@Example.COM"))
    assert (rcpt.notify, rcpt.orcpt) == (("SUCCESS", "DELAY"), "rfc822;Bob+40x@Example.COM")
    assert Rcpt(USER, read("RCPT", b" ORCPT=utf-8;\xc3\xa9@x.org")).orcpt == "utf-8;é@x.org"
    assert Rcpt(USER, read("RCPT", b" NOTIFY=NEVER")).notify == ("NEVER",)


def test_what_was_not_given_is_empty() -> None:
    """And an AUTH that says nothing usable says nothing (RFC 4954 5)."""
    mail, rcpt = Mail(None), Rcpt(USER)
    assert (mail.smtputf8, mail.ret, mail.envid, mail.auth) == (False, "", "", None)
    assert (rcpt.notify, rcpt.orcpt) == ((), "")
    assert Mail(None, read("MAIL", b" AUTH=<>")).auth == "<>"
    assert Mail(None, read("MAIL", b" AUTH=+FF")).auth is None
    assert Mail(None, read("MAIL", b" smtputf8")).smtputf8


def read(verb: str, text: bytes) -> parameters.Parameters:
    """Good parameters."""
    found = parameters.parse(verb, text, extended=True)
    assert isinstance(found, dict)
    return found


def test_parameters_need_ehlo() -> None:
    """After HELO no extension was offered (RFC 5321 4.1.1.11)."""
    assert parameters.parse("MAIL", b" SIZE=1", extended=False) is replies.PARAMETERS_NEED_EHLO
    assert parameters.parse("MAIL", b"", extended=False) == {}


def test_the_command_line_grows_by_what_the_rfcs_say() -> None:
    """SIZE 26 (RFC 1870 3), BODY 17 (RFC 6152 2), SMTPUTF8 10 (RFC 6531 3.1), AUTH 500 (RFC 4954 3), DSN."""
    assert parameters.line_octets("MAIL") == 26 + 17 + 10 + 500 + 9 + 107
    assert parameters.line_octets("RCPT") == 29 + 507


@given(st.binary(max_size=60))
def test_any_octets_are_parameters_or_a_reply(text: bytes) -> None:
    """Total: no octets raise."""
    for verb in ("MAIL", "RCPT"):
        assert isinstance(parameters.parse(verb, text, extended=True), dict | Reply)
