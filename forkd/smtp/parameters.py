"""Which parameters may MAIL and RCPT have, and what are their values? One row each (RFC 5321 4.1.1.11)."""

from __future__ import annotations

import dataclasses
import re

from forkd.smtp import replies
from forkd.smtp.reply import Reply

_SYNTAX = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([\x21-\x3c\x3e-\x7e]+))?")
"""esmtp-param of RFC 5321 4.1.2."""

Parameters = dict[str, str | None]
"""Keyword in upper case to value as written; None where there is no `=`."""


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
        keyword = match[1].decode("ascii").upper()
        row = rows.get(keyword)
        if row is None:
            return replies.UNKNOWN_PARAMETER
        if not extended:
            return replies.PARAMETERS_NEED_EHLO
        if keyword in found:
            return replies.DOUBLE_PARAMETER
        value = None if match[2] is None else match[2].decode("ascii")
        if not row.value.fullmatch(value or ""):
            return row.wrong
        found[keyword] = value
    return found
