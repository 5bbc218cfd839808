"""How is a report to a sender written? As one multipart/report (RFC 6522) of three parts.

    report_rules.py    who is to be told what, now
    report_facts.py    what a report is made from
    report_text.py     first part: for people
    report_status.py   second part: for programs, message/delivery-status (RFC 3464)
    report_original.py third part: what comes back of the message

All that is said of a message was said by others: its sender, next hops, plugins. Nothing of it gets
out of its line, no line is longer than 998 octets, and no boundary occurs in what it bounds.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable

from forkd.message import report_original, report_status, report_text, trace
from forkd.message.header import values
from forkd.message.report_facts import Facts, plain, sentence
from forkd.message.report_original import Returned
from forkd.sdk.headers import encoded

SUBJECTS: dict[str, str] = {
    "failed": "Your message could not be delivered",
    "delayed": "Your message is delayed",
    "expanded": "Your message was passed on",
    "relayed": "Your message was passed on",
    "delivered": "Your message was delivered",
}
"""By the weightiest action, which is the first here. None repeats the message's own subject: where the
sender was forged, that is somebody's advertisement."""

_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,250}@[!-;=?-~]{1,250}>")
"""RFC 5322 3.6.4, with whatever senders put between; but no blank and nothing that ends it."""
MAX_REFERENCES = 10
"""Of a long thread the newest; readers need no more to find the place."""


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """A report as the spool takes it: to one recipient, from the null sender.

    Its recipient gets NOTIFY=NEVER, and it has no RET (RFC 3461 6.1).
    """

    recipient: str
    smtputf8: bool
    body: str
    """7BIT or 8BITMIME."""
    octets: bytes
    """The message, CRLF line ends."""


def compose(facts: Facts, original: Iterable[bytes]) -> Report:
    """Write the report on a message to facts.recipient.

    original  the message in pieces, CRLF line ends; read up to the bound in `facts` (report_original.choose)

    Raises what reading it raises, and nothing else, whatever it is told.
    """
    failed = any(piece.action == "failed" for piece in facts.pieces)
    returned = report_original.choose(
        original, ret=facts.ret, failed=failed and not facts.copy, most=facts.most_returned_bytes
    )
    utf8 = _needs_utf8(facts, returned)
    third, eight_bit = returned.part(smtputf8=utf8)
    parts = (report_text.part(facts, returned), report_status.part(facts, smtputf8=utf8), third)
    boundary = _boundary(facts.report_id, parts)
    eight_bit = eight_bit or utf8
    head = _header(facts, returned.header, boundary, eight_bit=eight_bit, smtputf8=utf8)
    body = b"".join([b"--%b\r\n%b\r\n" % (boundary, part) for part in parts])
    return Report(
        recipient=facts.recipient,
        smtputf8=utf8,
        body="8BITMIME" if eight_bit else "7BIT",
        octets=b"%b%b--%b--\r\n" % (head, body, boundary),
    )


def _needs_utf8(facts: Facts, returned: Returned) -> bool:
    """The form of RFC 6533 can be read by few: only where the sender has no ASCII address, or sent in it
    what has no other form. Addresses alone have one (utf-8-addr-xtext)."""
    if not facts.recipient.isascii():
        return True
    if not facts.smtputf8 or facts.copy:
        return False
    return returned.utf8_header or any(
        not (piece.address.isascii() and piece.final.isascii()) for piece in facts.pieces
    )


def _header(facts: Facts, original: bytes, boundary: bytes, *, eight_bit: bool, smtputf8: bool) -> bytes:
    host = plain(facts.host)
    actions = {piece.action for piece in facts.pieces}
    subject = next(text for action, text in SUBJECTS.items() if action in actions)
    if facts.copy:
        subject = "Copy for the postmaster: a message could not be delivered"
    kind = "global-delivery-status" if smtputf8 else "delivery-status"
    lines = [
        f"Date: {trace.date(facts.at)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{host}>",
        f"To: <{sentence(facts.recipient, utf8=smtputf8)}>",
        f"Subject: {encoded(subject)}",
        f"Message-ID: <{plain(facts.report_id)}@{host}>",
        *_thread(original),
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f"Content-Type: multipart/report; report-type={kind};",
        f'\tboundary="{boundary.decode("ascii")}"',
        *(["Content-Transfer-Encoding: 8bit"] if eight_bit else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode("utf-8")


def _thread(original: bytes) -> list[str]:
    """In-Reply-To and References (RFC 5322 3.6.4): a mail program shows the report beside the message."""
    own = _ids(original, b"message-id")[:1]
    if not own:
        return []
    before = [
        one for one in _ids(original, b"references") or _ids(original, b"in-reply-to") if one not in own
    ]
    references = "\r\n\t".join([*before[-MAX_REFERENCES + 1 :], *own])
    return [f"In-Reply-To: {own[0]}", f"References: {references}"]


def _ids(original: bytes, name: bytes) -> list[str]:
    return [
        match[0].decode("ascii") for value in values(original, name) for match in _MESSAGE_ID.finditer(value)
    ]


def _boundary(report_id: str, parts: Iterable[bytes]) -> bytes:
    """What no line begins with. Nobody knows our queue ids before; but who sends a report on to us does."""
    stem = re.sub(r"[^0-9A-Za-z]", "", report_id)[:40].encode("ascii")
    return next(
        boundary
        for boundary in (b"=_%b.%d" % (stem, number) for number in itertools.count())
        if not any(b"--" + boundary in part for part in parts)
    )
