"""What does a person read in a report? What happened, to whom, why, and what can be done."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from forkd.message import trace
from forkd.message.report_facts import Facts, Piece, lines_of, sentence
from forkd.message.report_original import Returned, quoted_printable
from forkd.message.report_rules import Action
from forkd.message.report_status import status_of
from forkd.sdk.headers import Headers

WIDTH = 72
_MAX_SUBJECT = 200
_MAX_REPLY_LINES = 10
MOST_NAMED = 100
"""Recipients that people read of; programs read of all."""

_HEADLINES: dict[Action, str] = {
    "failed": "Could not be delivered, and is not tried any more:",
    "delayed": "Not delivered yet, and still being tried:",
    "relayed": "Passed on to a mail system that does not confirm deliveries:",
    "expanded": "Passed on to the addresses that this one stands for:",
    "delivered": "Delivered:",
}
"""In the order in which they are told."""

_OPENINGS: dict[Action, str] = {
    "failed": "Your message could not be delivered to everybody you sent it to. Who did not get it, and why, "
    "stands below. Recipients who are not named here are not concerned.",
    "delayed": "Your message could not be delivered yet. You need not send it again: it is kept here and "
    "tried from time to time. If it cannot be delivered in the end, another report will tell you.",
    "relayed": "You asked to be told when your message arrives. It was passed on without trouble, but from "
    "there on no confirmation will come.",
    "expanded": "You asked to be told when your message arrives. It was passed on to several people, and no "
    "confirmation will come from each of them.",
    "delivered": "You asked to be told when your message arrives. It was delivered.",
}
"""By the weightiest action."""

_COPY = "A message could not be delivered. You get this as the postmaster, with the message's header."

_WHO_SAID: dict[Action, str] = {
    "failed": "{mta} refused it and said:",
    "delayed": "{mta} cannot take it at the moment and said:",
}

ADVICE: dict[str, str] = {
    "1.1": "There is no such address. Look for a slip in it, or ask the recipient for the right one.",
    "1.2": "There is no such domain for mail (the part behind the @). Look for a slip in it.",
    "1.3": "The address is not written as an address must be. Look for a slip in it.",
    "1.6": "The recipient has moved and left no new address.",
    "1.8": "Your own address, or its domain, was not accepted as a sender. Ask whoever runs your mail.",
    "1.10": "The domain behind the @ takes no mail at all. Ask the recipient for another address.",
    "2.1": "The mailbox is closed at present. Reach the recipient in another way.",
    "2.2": "The mailbox is full. The recipient must make room; send your message again later.",
    "2.3": "Your message is too large for this mailbox. Send it without attachments, or in parts.",
    "3.4": "Your message is too large. Send it without attachments, or in parts.",
    "4.1": "The recipient's mail server did not answer. It may be out of order, or the address has a slip.",
    "4.3": "The recipient's mail server could not be looked up by its name. It may be out of order.",
    "4.4": "No way to the recipient's mail server was found. Look for a slip behind the @.",
    "4.6": "The message went round in a circle. Whoever runs the recipient's mail must mend that.",
    "4.7": "Delivery was tried again and again and did not succeed. Send your message again later, or reach "
    "the recipient in another way.",
    "6.7": "The recipient's mail server does not know addresses with letters like these. Ask the recipient "
    "for another address.",
    "7.1": "The recipient's mail server does not want this message from you. The recipient, or whoever runs "
    "that server, can change it.",
    "7": "A rule of the recipient's mail server refused it. The recipient, or whoever runs that server, can "
    "tell more.",
}
"""Subject and detail of the status (RFC 3463), or the subject alone, to what helps. The longer one counts."""
_NO_ADVICE = "If you cannot make sense of this, show this report to whoever runs your mail."


def part(facts: Facts, returned: Returned) -> bytes:
    """The whole part with its own header. Any letters go by quoted-printable, in reports in ASCII too."""
    text = "\r\n".join(_lines(facts, returned)) + "\r\n"
    octets = text.encode("utf-8")
    charset, encoding = "us-ascii", "7bit"
    if not octets.isascii():
        charset, encoding, octets = "utf-8", "quoted-printable", quoted_printable(octets)
    header = (
        "Content-Description: Notification\r\n"
        f"Content-Type: text/plain; charset={charset}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return header.encode("ascii") + octets


def _lines(facts: Facts, returned: Returned) -> Iterator[str]:
    actions = [action for action in _HEADLINES if any(piece.action == action for piece in facts.pieces)]
    yield f"This is the mail system at {sentence(facts.host)}."
    yield ""
    yield from _wrapped(_COPY if facts.copy else _OPENINGS[actions[0]])
    yield ""
    yield from _about(facts, returned)
    left = MOST_NAMED
    for action in actions:
        pieces = [piece for piece in facts.pieces if piece.action == action]
        yield ""
        yield ""
        yield _HEADLINES[action]
        for piece in pieces[:left]:
            yield ""
            yield from _piece(piece)
        if more := len(pieces[left:]):
            yield ""
            yield f"  {more:,} more; all of them stand in the delivery report, attached."
        left = max(0, left - len(pieces))
    yield ""
    yield ""
    yield from _end(facts, returned)


def _about(facts: Facts, returned: Returned) -> Iterator[str]:
    subject = Headers(returned.header).decoded("subject") or ""
    if subject:
        yield from _wrapped(f"Subject: {_spoken(subject, _MAX_SUBJECT)}", indent=4)
    if facts.copy:
        yield from _wrapped(
            f"From: {_spoken(facts.sender) if facts.sender else 'nobody (the null sender)'}", indent=4
        )
        if facts.client_name:
            yield from _wrapped(f"Came from: {_spoken(facts.client_name)}", indent=4)
    yield f"    Received here: {trace.date(facts.received_at)}"
    yield f"    Known here as: {sentence(facts.queue_id)}"


def _piece(piece: Piece) -> Iterator[str]:
    address = _spoken(piece.address)
    if piece.final and piece.final != piece.address:
        address += f" (passed on to {_spoken(piece.final)})"
    yield from _wrapped(address, indent=2)
    said = lines_of(piece.reply, most=_MAX_REPLY_LINES)
    if piece.action in ("failed", "delayed"):
        if piece.action == "failed":
            yield from _wrapped(_advice(status_of(piece)), indent=4)
        mta = f"The mail server {_spoken(piece.mta)}" if piece.mta else "The mail system"
        if said:
            yield from _wrapped(_WHO_SAID[piece.action].format(mta=mta), indent=4)
            for line in said:
                yield from _wrapped(_spoken(line, 500), indent=8)
        elif piece.reason:
            about = f" ({_spoken(piece.mta)})" if piece.mta else ""
            yield from _wrapped(f"Found here: {_spoken(piece.reason)}{about}", indent=4)
    elif piece.mta:
        yield from _wrapped(f"Taken by {_spoken(piece.mta)}", indent=4)
    if piece.action == "delayed" and piece.retry_until:
        yield f"    It is tried until {trace.date(piece.retry_until)}."


def _end(facts: Facts, returned: Returned) -> Iterator[str]:
    if returned.whole:
        yield from _wrapped("Your message is attached.")
    elif returned.shortened and not facts.copy:
        yield from _wrapped(
            "The header of your message is attached, without its text: it is too long to be sent back, or "
            "in a form that cannot be."
        )
    else:
        yield from _wrapped("The header of the message is attached.")
    yield from _wrapped(
        "A machine wrote this report. For help, write to "
        f"{sentence(facts.contact or f'postmaster@{facts.host}')} and send all of it along."
    )


def _advice(status: str) -> str:
    detail = status.partition(".")[2]
    subject = detail.partition(".")[0]
    return ADVICE.get(detail) or ADVICE.get(subject, _NO_ADVICE)


def _spoken(text: str, most: int = 320) -> str:
    """Others' words for people: one line, no letter that turns its direction or takes no room."""
    cut = sentence(text, utf8=True, most=most)
    return cut if len(cut) == len(text) else f"{cut} ..."


def _wrapped(text: str, *, indent: int = 0) -> list[str]:
    space = " " * indent
    # A word longer than a line, an address say, stays in one piece: it is copied by hand.
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [space.rstrip()]
