"""Which parameters may MAIL and RCPT have, and what are their values? One row each (RFC 5321 4.1.1.11)."""

from __future__ import annotations

import dataclasses
import re

from forkd.smtp import replies, xtext
from forkd.smtp.events import Parameters
from forkd.smtp.reply import Reply

_SYNTAX = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e\x80-\xff]+))?")
"""esmtp-param of RFC 5321 4.1.2, with the UTF-8 of RFC 6531 3.3."""
# UTF-8 as it is belongs to the address type of RFC 6533 3; it needs SMTPUTF8, as an address does.
_UTF8_ORCPT = r"[Uu][Tt][Ff]-8;[\x21-\x3c\x3e-\x7e\u00a0-\u2027\u202a-\U0010ffff]+"
_OCCASION = "(?:SUCCESS|FAILURE|DELAY)"


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of one verb."""

    verb: str
    keyword: str
    octets: int
    """What it adds to the longest command line; its RFC says how many."""
    value: re.Pattern[str]
    """The value, in full; None is matched as the empty string."""
    wrong: Reply
    """The answer to any other value."""
    source: str


PARAMETERS: tuple[Parameter, ...] = (
    Parameter("MAIL", "SIZE", 26, re.compile(r"[0-9]{1,20}"), replies.BAD_SIZE, "RFC 1870 3, 4"),
    Parameter("MAIL", "BODY", 17, re.compile(r"7BIT|8BITMIME", re.I), replies.BAD_BODY, "RFC 6152 2"),
    Parameter("MAIL", "SMTPUTF8", 10, re.compile(""), replies.NO_VALUE_ALLOWED, "RFC 6531 3.1, 3.4"),
    # Taken also where DSN is not announced: clients that send them all the same lose nothing by it.
    Parameter("MAIL", "RET", 9, re.compile(r"FULL|HDRS", re.I), replies.BAD_RET, "RFC 3461 4.3"),
    Parameter(
        "MAIL",
        "ENVID",
        107,  # the value has 100 at most
        re.compile(rf"(?=.{{1,100}}\Z){xtext.PATTERN}"),
        replies.BAD_ENVID,
        "RFC 3461 4.4",
    ),
    Parameter(
        "MAIL", "AUTH", 500, re.compile(rf"<>|(?!\Z){xtext.PATTERN}"), replies.BAD_AUTH, "RFC 4954 3, 5"
    ),
    Parameter(
        "RCPT",
        "NOTIFY",
        29,
        re.compile(rf"NEVER|{_OCCASION}(?:,{_OCCASION}){{0,2}}", re.I),
        replies.BAD_NOTIFY,
        "RFC 3461 4.1",
    ),
    Parameter(
        "RCPT",
        "ORCPT",
        507,  # the value has 500 at most
        re.compile(rf"(?=.{{1,500}}\Z)(?:[A-Za-z0-9-]+;{xtext.PATTERN}|{_UTF8_ORCPT})"),
        replies.BAD_ORCPT,
        "RFC 3461 4.2",
    ),
)

OF_VERB: dict[str, dict[str, Parameter]] = {
    verb: {row.keyword: row for row in PARAMETERS if row.verb == verb} for verb in ("MAIL", "RCPT")
}


def line_octets(verb: str) -> int:
    """How many octets the parameters of a verb add to its command line."""
    return sum(row.octets for row in PARAMETERS if row.verb == verb)


def parse(verb: str, text: bytes, *, extended: bool) -> Parameters | Reply:
    """Read what stands behind the path of MAIL or RCPT.

    The Reply of what is wrong: 501 5.5.4 for syntax, repetition and values, 555 5.5.4 for what is
    not in the table, and for any parameter after HELO (RFC 5321 4.1.1.11: none is negotiated then).
    """
    found: Parameters = {}
    if not text:
        return found
    if text[0] != 0x20:
        return replies.BAD_PARAMETER
    rows = OF_VERB[verb]
    for word in text.split():
        match = _SYNTAX.fullmatch(word)
        if match is None:
            return replies.BAD_PARAMETER
        try:
            value = None if match[2] is None else match[2].decode("utf-8")
        except UnicodeDecodeError:
            return replies.BAD_PARAMETER
        keyword = match[1].decode("ascii").upper()
        row = rows.get(keyword)
        if row is None:
            return replies.UNKNOWN_PARAMETER
        if not extended:
            return replies.PARAMETERS_NEED_EHLO
        if keyword in found:
            return replies.DOUBLE_PARAMETER
        if not row.value.fullmatch(value or ""):
            return row.wrong
        found[keyword] = value
    return found
