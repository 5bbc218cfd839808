"""Which verbs are there, and how is the rest of their line read? One row per verb (RFC 5321 4.1.1)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

from forkd.smtp import events, grammar, parameters, replies, responses, xtext
from forkd.smtp.events import Event
from forkd.smtp.lines import AUTH_LINE_OCTETS
from forkd.smtp.reply import Reply


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """BDAT: so many octets of the message follow (RFC 3030 2). The caller hears of Data and ChunkEnd."""

    octets: int
    last: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """One verb.

    parse     reads the argument (trailing spaces gone; second argument: EHLO was said), into an
              event or the Reply to what is wrong with it; total: any octets give one of the two.
    last      nothing may be pipelined behind it (RFC 2920 3.1). QUIT is in that list too, but what
              stands behind it is never read, so that nobody needs to be told.
    octets    what its parameters add to the longest command line.
    checked   the engine looks at the event, too: at what is in no line.

    In which states it is in order, and what comes after it, is in states.py.
    """

    verb: str
    parse: Callable[[bytes, bool], Event | Chunk | Reply]
    last: bool = False
    octets: int = 0
    checked: bool = False


# These carry nothing, so one of each is enough.
_DATA = events.Data()
_RSET = events.Rset()
_NOOP = events.Noop()
_QUIT = events.Quit()
_STARTTLS = events.StartTls()

XCLIENT_ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
"""In the order of Postfix' XCLIENT_README."""
_UNKNOWN_VALUES = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_ATTRIBUTE = re.compile(rb"([A-Za-z]+)=([\x21-\x3c\x3e-\x7e]{1,255})")
_CHUNK = re.compile(rb" *([0-9]{1,20})(?: +(LAST))?", re.I)


def _ehlo(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001 - one shape for all
    name = grammar.hello_name(argument.lstrip(b" "))
    return replies.BAD_HELO if name is None else events.Hello(name, True)


def _helo(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    name = grammar.hello_name(argument.lstrip(b" "))
    return replies.BAD_HELO if name is None else events.Hello(name, False)


def _mail(argument: bytes, extended: bool) -> Event | Reply:
    if argument[:5].upper() != b"FROM:":
        argument = argument.lstrip(b" ")
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
    if "SMTPUTF8" not in found and not argument.isascii():
        return replies.NEEDS_SMTPUTF8
    if not found:
        return events.Mail(sender, found)
    size = found.get("SIZE")
    return events.Mail(
        sender, found, None if size is None else int(size), (found.get("BODY") or "7BIT").upper()
    )


def _rcpt(argument: bytes, extended: bool) -> Event | Reply:
    # Whether it may be UTF-8 is known where the transaction is: the engine looks.
    if argument[:3].upper() != b"TO:":
        argument = argument.lstrip(b" ")
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


def _bdat(argument: bytes, extended: bool) -> Chunk | Reply:  # noqa: ARG001
    match = _CHUNK.fullmatch(argument)
    return replies.CHUNK_LOST if match is None else Chunk(int(match[1]), match[2] is not None)


def _starttls(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.NO_ARGUMENT_ALLOWED if argument else _STARTTLS


def _auth(argument: bytes, extended: bool) -> Event | Reply:
    if not extended:
        return replies.AUTH_NEEDS_EHLO
    mechanism, *initial = argument.split() or (b"",)
    name = grammar.printable(mechanism)
    if not name or len(initial) > 1:
        return replies.AUTH_SYNTAX
    if not initial:
        return events.Auth(name.upper(), None)
    data = b"" if initial[0] == b"=" else responses.decode(initial[0])
    return replies.AUTH_NOT_BASE64 if data is None else events.Auth(name.upper(), data)


def _xclient(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    found: dict[str, str | None] = {}
    for word in argument.split():
        match = _ATTRIBUTE.fullmatch(word)
        if match is None:
            return replies.BAD_XCLIENT
        name, value = match[1].decode("ascii").upper(), match[2].decode("ascii")
        if name not in XCLIENT_ATTRIBUTES or name in found:
            return replies.BAD_XCLIENT
        if value.upper() in _UNKNOWN_VALUES:
            found[name] = None
        elif (text := xtext.decode(value)) is None or not (text.isascii() or name == "LOGIN"):
            return replies.BAD_XCLIENT
        else:
            found[name] = text
    return events.Xclient(found) if found else replies.BAD_XCLIENT


def _data(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.NO_ARGUMENT_ALLOWED if argument else _DATA


def _rset(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.NO_ARGUMENT_ALLOWED if argument else _RSET


def _noop(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.BAD_CHARACTERS if grammar.printable(argument) is None else _NOOP


def _quit(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    return replies.NO_ARGUMENT_ALLOWED if argument else _QUIT


def _text(argument: bytes, extended: bool) -> tuple[str, bool] | Reply:
    """The argument of VRFY or EXPN, and whether it may be UTF-8."""
    text, _, last = argument.rpartition(b" ")
    if extended and text and last.upper() == b"SMTPUTF8":
        found = grammar.printable_utf8(text.rstrip(b" "))
        return replies.BAD_CHARACTERS if found is None else (found, True)
    found = grammar.printable(argument)
    if found is None:
        return replies.BAD_CHARACTERS if grammar.printable_utf8(argument) is None else replies.NEEDS_SMTPUTF8
    return (found, False) if found else replies.ARGUMENT_NEEDED


def _vrfy(argument: bytes, extended: bool) -> Event | Reply:
    read = _text(argument, extended)
    return read if isinstance(read, Reply) else events.Vrfy(*read)


def _expn(argument: bytes, extended: bool) -> Event | Reply:
    read = _text(argument, extended)
    return read if isinstance(read, Reply) else events.Expn(*read)


def _help(argument: bytes, extended: bool) -> Event | Reply:  # noqa: ARG001
    text = grammar.printable(argument)
    return replies.BAD_CHARACTERS if text is None else events.Help(text)


COMMANDS: Mapping[bytes, Command] = {
    row.verb.encode("ascii"): row
    for row in (
        Command("HELO", _helo, last=True),
        Command("EHLO", _ehlo, last=True),
        Command("MAIL", _mail, octets=parameters.line_octets("MAIL"), checked=True),
        Command("RCPT", _rcpt, octets=parameters.line_octets("RCPT"), checked=True),
        Command("DATA", _data, last=True),
        Command("BDAT", _bdat, checked=True),
        Command("RSET", _rset),
        Command("NOOP", _noop, last=True),
        Command("VRFY", _vrfy, last=True),
        Command("EXPN", _expn, last=True),
        Command("HELP", _help),
        Command("STARTTLS", _starttls, last=True, checked=True),
        Command("AUTH", _auth, last=True, octets=AUTH_LINE_OCTETS - 512, checked=True),
        Command("XCLIENT", _xclient, last=True),
        Command("QUIT", _quit),
    )
}

UNSUPPORTED: Mapping[bytes, Reply] = {
    # Known, not offered: 502, not 500 (RFC 5321 4.2.4).
    **dict.fromkeys(
        (b"SEND", b"SOML", b"SAML", b"TURN", b"ETRN", b"ATRN", b"BURL"),
        replies.NOT_IMPLEMENTED,
    ),
    # A browser made to talk to us: its body could hold commands, so not another line is read
    # (Postfix smtpd_forbidden_commands does the same).
    **dict.fromkeys((b"CONNECT", b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT"), replies.NOT_SMTP),
}
"""Verbs that are no commands here, with their own reply; every other word is 500."""

MAX_EXTRA_OCTETS = max(row.octets for row in COMMANDS.values() if row.verb != "AUTH")
"""The longest command line is so much longer than the setting; that of AUTH is known to lines.py."""
