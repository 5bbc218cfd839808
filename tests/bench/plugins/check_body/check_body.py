"""check_body - the benchmark's check at the end of data: refuses a message with the word EICAR in it"""

from __future__ import annotations

from typing import Any

from forkd.sdk import Envelope, Message, Plugin, Session, Verdict, deny


def message(session: Session, envelope: Envelope, message: Message) -> Verdict | None:
    """Read the message in pieces, as a milter gets it."""
    for piece in message.body_pieces():
        if b"EICAR" in piece:
            return deny("5.7.1", "no")
    return None


def plugin_init(settings: dict[str, Any]) -> Plugin:
    """Give the table of hooks."""
    return Plugin(message=message)
