"""Which verbs are there, and how is the rest of their line read? One row per verb (RFC 5321 4.1.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from forkd.smtp import events, grammar, parameters, replies
from forkd.smtp.events import Event
from forkd.smtp.reply import Reply


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One verb.

    parse     reads the argument (trailing spaces gone; second argument: EHLO was said), into an
              event or the Reply to what is wrong with it; total: any octets give one of the two.
    last      nothing may be pipelined behind it (RFC 2920 3.1). QUIT is in that list too, but what
              stands behind it is never read, so that nobody needs to be told.
    octets    what its parameters add to the longest command line.

    In which states it is in order, and what comes after it, is in states.py.
    """

    verb: str
    parse: Callable[[bytes, bool], Event | Reply]
    last: bool = False
    octets: int = 0


# These carry nothing, so one of each is enough.
_DATA = events.Data()
_RSET = events.Rset()
_NOOP = events.Noop()
_QUIT = events.Quit()


def _ehlo(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001 - one shape for all
    name = grammar.hello_name(argument)
    return replies.BAD_HELO if name is None else events.Hello(name, True)


def _helo(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    name = grammar.hello_name(argument)
    return replies.BAD_HELO if name is None else events.Hello(name, False)


def _mail(argument: bytes, extended: bool) -> Event | Reply:
    if argument[:5].upper() != b"FROM:":
        return replies.BAD_MAIL
    read = grammar.path(argument[5:], replies.BAD_SENDER)
    if isinstance(read, Reply):
        return read
    sender, rest = read
    if sender is not None and not sender.domain:
        return replies.BAD_SENDER
    found = parameters.parse("MAIL", rest, extended=extended)
    if isinstance(found, Reply):
        return found
    if not found:
        return events.Mail(sender, found)
    size = found.get("SIZE")
    return events.Mail(
        sender, found, None if size is None else int(size), (found.get("BODY") or "7BIT").upper()
    )


def _rcpt(argument: bytes, extended: bool) -> Event | Reply:
    if argument[:3].upper() != b"TO:":
        return replies.BAD_RCPT
    read = grammar.path(argument[3:], replies.BAD_RECIPIENT)
    if isinstance(read, Reply):
        return read
    recipient, rest = read
    # Only postmaster may come without a domain, in any case (RFC 5321 4.1.1.3, 4.5.1).
    if recipient is None or not (recipient.domain or recipient.local.lower() == "postmaster"):
        return replies.BAD_RECIPIENT
    found = parameters.parse("RCPT", rest, extended=extended)
    return found if isinstance(found, Reply) else events.Rcpt(recipient, found)


def _data(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.NO_ARGUMENT_ALLOWED if argument else _DATA


def _rset(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.NO_ARGUMENT_ALLOWED if argument else _RSET


def _noop(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.BAD_CHARACTERS if grammar.printable(argument) is None else _NOOP


def _quit(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.NO_ARGUMENT_ALLOWED if argument else _QUIT


def _vrfy(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    text = grammar.printable(argument)
    if text is None:
        return replies.BAD_CHARACTERS
    return events.Vrfy(text) if text else replies.ARGUMENT_NEEDED


def _expn(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    text = grammar.printable(argument)
    if text is None:
        return replies.BAD_CHARACTERS
    return events.Expn(text) if text else replies.ARGUMENT_NEEDED


def _help(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    text = grammar.printable(argument)
    return replies.BAD_CHARACTERS if text is None else events.Help(text)


COMMANDS: Mapping[bytes, Command] = {
    row.verb.encode("ascii"): row
    for row in (
        Command("HELO", _helo, last=True),
        Command("EHLO", _ehlo, last=True),
        Command("MAIL", _mail, octets=parameters.line_octets("MAIL")),
        Command("RCPT", _rcpt, octets=parameters.line_octets("RCPT")),
        Command("DATA", _data, last=True),
        Command("RSET", _rset),
        Command("NOOP", _noop, last=True),
        Command("VRFY", _vrfy, last=True),
        Command("EXPN", _expn, last=True),
        Command("HELP", _help),
        Command("QUIT", _quit),
    )
}

UNSUPPORTED: Mapping[bytes, Reply] = {
    # Known, not offered: 502, not 500 (RFC 5321 4.2.4).
    **dict.fromkeys(
        (b"SEND", b"SOML", b"SAML", b"TURN", b"ETRN", b"ATRN", b"AUTH", b"STARTTLS", b"BDAT", b"BURL"),
        replies.NOT_IMPLEMENTED,
    ),
    # A browser made to talk to us: its body could hold commands, so not another line is read
    # (Postfix smtpd_forbidden_commands does the same).
    **dict.fromkeys((b"CONNECT", b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT"), replies.NOT_SMTP),
}
"""Verbs that are no commands here, with their own reply; every other word is 500."""

MAX_EXTRA_OCTETS = max(row.octets for row in COMMANDS.values())
"""The longest command line is so much longer than the setting."""
