"""What do programs read of a report? message/delivery-status (RFC 3464), its UTF-8 form (RFC 6533)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forkd.message import trace
from forkd.message.report_facts import MAX_TOKEN, Facts, Piece, lines_of, plain, sentence
from forkd.smtp import xtext

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_CLASS = {"failed": "5", "delayed": "4"}
"""The first digit that an action has; for others, 2 (RFC 3464 2.3.4)."""
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_NOT_QCHAR = re.compile(r"[^\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]")
"""RFC 6533 3: what stands for itself in utf-8-addr-xtext."""
_CODE = re.compile(r"[2-5][0-9]{2}(?![0-9])")
_WIDTH = 76
_MAX_DIAGNOSTIC = 2_000
"""Letters; a reply of many lines is cut. The text for people has its beginning too."""
_ALL_DIAGNOSTICS = 200_000
"""Letters of all recipients' together: of a message to thousands, each has less."""
_LEAST_DIAGNOSTIC = 200


def part(facts: Facts, *, smtputf8: bool) -> bytes:
    """The whole part with its own header: one group of fields on the message, one per recipient."""
    kind = "global-delivery-status" if smtputf8 else "delivery-status"
    header = ["Content-Description: Delivery report", f"Content-Type: message/{kind}"]
    if smtputf8:
        header.append("Content-Transfer-Encoding: 8bit")
    groups = [
        header,
        list(_message(facts)),
        *(list(_recipient(facts, piece, smtputf8)) for piece in facts.pieces),
    ]
    return "\r\n\r\n".join("\r\n".join(group) for group in groups).encode("utf-8") + b"\r\n"


def _message(facts: Facts) -> Iterator[str]:
    if facts.envid:
        yield f"Original-Envelope-Id: {_undone(facts.envid)}"
    yield f"Reporting-MTA: dns; {plain(facts.host)}"
    if facts.client_name:
        yield f"Received-From-MTA: dns; {plain(facts.client_name)}"
    yield f"Arrival-Date: {trace.date(facts.received_at)}"


def _recipient(facts: Facts, piece: Piece, smtputf8: bool) -> Iterator[str]:
    original = _orcpt(piece.orcpt, smtputf8)
    if original:
        yield f"Original-Recipient: {original}"
    yield f"Final-Recipient: {typed(piece.final or piece.address, smtputf8=smtputf8)}"
    yield f"Action: {piece.action}"
    yield f"Status: {status_of(piece)}"
    if piece.mta:
        yield f"Remote-MTA: dns; {plain(piece.mta)}"
    most = min(_MAX_DIAGNOSTIC, max(_LEAST_DIAGNOSTIC, _ALL_DIAGNOSTICS // len(facts.pieces)))
    diagnostic = _diagnostic(piece, smtputf8, most)
    if diagnostic:
        yield diagnostic
    if piece.last_try_at:
        yield f"Last-Attempt-Date: {trace.date(piece.last_try_at)}"
    yield f"Final-Log-ID: {plain(facts.queue_id)}"
    if piece.action == "delayed" and piece.retry_until:
        yield f"Will-Retry-Until: {trace.date(piece.retry_until)}"


def status_of(piece: Piece) -> str:
    """The status in the class that the action has: 4.4.1 at last given up is 5.4.1."""
    digit = _CLASS.get(piece.action, "2")
    if not _STATUS.fullmatch(piece.status):
        return f"{digit}.0.0"
    return digit + piece.status[1:]


def typed(address: str, *, smtputf8: bool = False) -> str:
    """An address with its type; beyond ASCII, in a report within it, in the seven bits of RFC 6533 3."""
    if address.isascii():
        return f"rfc822; {sentence(address)}"
    if smtputf8:
        return f"utf-8; {sentence(address, utf8=True)}"
    return f"utf-8; {_embedded(address)}"


def _embedded(address: str) -> str:
    text = ""
    for sign in address:
        more = _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):02X}}}", sign)
        if len(text) + len(more) > MAX_TOKEN:
            break  # longer than any address may be: cut between two signs
        text += more
    return text


def _orcpt(orcpt: str, smtputf8: bool) -> str:
    """ORCPT as Original-Recipient: its xtext undone (RFC 3461 6.3); empty where it is none."""
    kind, semicolon, value = orcpt.partition(";")
    if not semicolon or not value or not re.fullmatch(r"[A-Za-z0-9-]{1,40}", kind):
        return ""
    if kind.lower() == "utf-8":
        address = _EMBEDDED.sub(_sign, value)
        return f"{kind}; {plain(address, utf8=True) if smtputf8 else _embedded(address)}"
    return f"{kind}; {_undone(value)}"


def _undone(value: str) -> str:
    """What stood in xtext. What is beyond printed ASCII is not ours to interpret, and stays in xtext."""
    decoded = xtext.decode(value)
    return sentence(decoded if decoded is not None and decoded.isascii() else value)


def _sign(match: re.Match[str]) -> str:
    point = int(match[1], 16)
    # A control or half of a pair in this dress is still one; it stays as it was written.
    sign = chr(point) if point < 0x110000 else ""
    return sign if sign.isprintable() and sign != " " else match[0]


def _diagnostic(piece: Piece, smtputf8: bool, most: int) -> str:
    """Diagnostic-Code: what the next hop said as `smtp`, what we found ourselves as `x-forkd`. Folded.

    How mail was delivered here (to a catch-all, to nowhere) is nobody's business; that it was, `Action` says.
    """
    said = lines_of(piece.reply)
    kind = "smtp" if said and _CODE.match(said[0]) else "x-forkd"
    ours = piece.reason if piece.action in _CLASS else ""
    text = " ".join(said) if said else " ".join(ours.split())
    if not text:
        return ""
    text = sentence(text, utf8=smtputf8, most=most)
    return "\r\n\t".join(_folded(f"Diagnostic-Code: {kind}; {text}"))


def _folded(line: str) -> Iterator[str]:
    """Cut at blanks, a word too long for a line within. The blank at a cut becomes the fold's own."""
    words, held = line.split(), ""
    for word in words:
        if held and len(held) + 1 + len(word) > _WIDTH:
            yield held
            held = ""
        held = f"{held} {word}" if held else word
        while len(held) > MAX_TOKEN // 4:
            yield held[: MAX_TOKEN // 4]
            held = held[MAX_TOKEN // 4 :]
    if held:
        yield held
