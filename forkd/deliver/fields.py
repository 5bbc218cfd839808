"""What does a final delivery put on top of a message, and has it put that there before?"""

from __future__ import annotations

import re
import time

from forkd.deliver.transport import Target
from forkd.message.header import values
from forkd.queue.stored import StoredMessage

_LOOP_HINT = re.compile(rb"^delivered-to", re.IGNORECASE | re.MULTILINE)


def return_path(sender: str) -> str:
    """RFC 5321 4.4; the null sender is `<>`."""
    return f"Return-Path: <{sender}>\r\n"


def delivered_to(target: Target) -> str:
    """Delivered-To, by which passed_here() knows the message again; and where a plugin rewrote the recipient,
    X-Original-To says what the client had said, as Postfix does."""
    original = f"X-Original-To: {target.original}\r\n" if target.original else ""
    return f"{original}Delivered-To: {target.address}\r\n"


def from_line(sender: str, at: float) -> str:
    """The separator of mbox files (RFC 4155, appendix A): no field, so it stands above all of them.

    at  Unix time.
    """
    shown = re.sub(r"\s", "-", sender) or "MAILER-DAEMON"  # a blank would end the address: as qmail writes it
    return f"From {shown} {time.asctime(time.gmtime(at))}\r\n"


def passed_here(message: StoredMessage, target: Target) -> bool:
    """Was it delivered to this very address before, and forwarded back to us? (as qmail and Postfix check)

    Reads the message's beginning. Raises OSError, Damaged.
    """
    for piece in message.chunks():
        head = piece.partition(b"\r\n\r\n")[0]
        if not _LOOP_HINT.search(head):
            return False
        return target.address.lower().encode("utf-8", "replace") in (
            value.lower() for value in values(head, b"delivered-to")
        )
    return False
