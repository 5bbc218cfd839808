"""What is a report made from? Facts of a message and its recipients, and how they are made harmless."""

from __future__ import annotations

import dataclasses
import re

from forkd.message.report_rules import Action

MAX_TOKEN = 800
"""Letters of an address, a name, an id in a line of its own: such a line stays below 998 octets with its
field's name. RFC 5321 allows 320 octets, RFC 3461 500 for ORCPT."""

_NOT_WORD = re.compile(r"[^\x21-\x7e]")
_NOT_LINE = re.compile(r"[^\x20-\x7e]")
_PATH = re.compile(r"(?<![\w:/.~-])/(?:[\w.@%+~-]+/)*[\w.@%+~-]+")
"""Of a file, from / on; not what stands behind the host in a URL."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What is said of one recipient."""

    address: str
    """As the sender gave it."""
    action: Action
    status: str
    """RFC 3463."""
    final: str = ""
    """Where it went in the end; empty: to `address`, or it is nobody's business (RFC 3461 5.2.7.4)."""
    orcpt: str = ""
    """ORCPT as the client wrote it."""
    mta: str = ""
    """Name of the next hop that spoke, or that could not be reached; empty: it is about ourselves."""
    reply: str = ""
    """What it said, with code; lines cut by LF. Empty: it said nothing."""
    reason: str = ""
    """What we say where no next hop spoke: `connection timed out`."""
    last_try_at: float = 0.0
    """Unix time; 0: not known."""
    retry_until: float = 0.0
    """Delayed: Unix time at which it is given up."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is said of one message."""

    recipient: str
    """Whom the report goes to: the message's sender, or the postmaster."""
    host: str
    """Our name."""
    report_id: str
    """Unique to the report; made from queue id and what is said, a report that a crash doubled has it twice
    and is seen to be the same."""
    queue_id: str
    """Of the message reported on."""
    at: float
    """Unix time, now."""
    received_at: float
    sender: str
    """Of the message."""
    pieces: tuple[Piece, ...]
    copy: bool = False
    """It goes to the postmaster, not to the sender."""
    envid: str = ""
    """ENVID as the client wrote it."""
    ret: str = ""
    """FULL, HDRS, or empty: not given."""
    smtputf8: bool = False
    """The message came with SMTPUTF8."""
    contact: str = ""
    """Who helps; empty: postmaster at `host`."""
    client_name: str = ""
    """The client's verified name, or what it called itself (RFC 3464 2.2.4)."""
    most_returned_bytes: int = 50_000
    """A longer message comes back as its header alone. Postfix' bounce_size_limit is the same."""


def plain(text: str, *, utf8: bool = False, most: int = MAX_TOKEN) -> str:
    """One word for a line of a header: no blank, no control, nothing that does not show; `most` octets.

    utf8  letters beyond ASCII may stay
    """
    if not utf8:
        return _NOT_WORD.sub("?", text[:most])
    return _cut("".join(sign if _shows(sign) and sign != " " else "?" for sign in text[:most]), most)


def sentence(text: str, *, utf8: bool = False, most: int = MAX_TOKEN) -> str:
    """As plain(), but with blanks: one line of text."""
    if not utf8:
        return _NOT_LINE.sub("?", text[:most])
    return _cut("".join(sign if _shows(sign) else "?" for sign in text[:most]), most)


def without_paths(text: str) -> str:
    """What we say ourselves, or a program of ours: log and queue have it whole, others need no names of files
    here."""
    return _PATH.sub("(path)", text)


def lines_of(reply: str, *, most: int = 20) -> list[str]:
    """The lines of a reply, without empty ones; no more than `most`."""
    return [line for line in (line.strip() for line in reply.splitlines()) if line][:most]


def _shows(sign: str) -> bool:
    # Not printable are, besides controls, what turns the direction of text and what takes no room:
    # with those an address is made to look like another.
    return sign.isprintable()


def _cut(text: str, most: int) -> str:
    return text.encode("utf-8")[:most].decode("utf-8", "ignore")
