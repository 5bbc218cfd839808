"""What does the log hear of a session? What it refuses, its replies in one line, and its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from forkd import log
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply

if TYPE_CHECKING:
    from forkd.worker.session import Session


def one_line(reply: Reply) -> str:
    """A reply as the log shows it."""
    return f"{reply.code} {reply.enhanced + ' ' if reply.enhanced else ''}{reply.lines[0]}"


def shown_sender(sender: Mailbox | None) -> str:
    """The sender as the log shows it."""
    return "<>" if sender is None else str(sender)


def refused_mail(session: Session, sender: Mailbox | None, recipient: Mailbox | None, reply: Reply) -> Reply:
    """MAIL or RCPT is refused, and we know of whom and to whom."""
    refused(
        session,
        reply,
        command="MAIL" if recipient is None else "RCPT",
        sender=shown_sender(sender),
        recipient="" if recipient is None else str(recipient),
    )
    return reply


def refused(
    session: Session,
    reply: Reply,
    *,
    command: str = "",
    said: str = "",
    sender: str = "",
    recipient: str = "",
) -> None:
    """The line that answers "why was this refused?"; `command` is empty for the greeting."""
    if not session.told:
        return
    transaction = session.transaction
    if not sender and transaction is not None:
        sender = shown_sender(transaction.sender)
    log.refused(
        session=session.id,
        reply=one_line(reply),
        command=command,
        said=said,
        sender=sender,
        recipient=recipient,
        plugins=session.plugins.take_stories(),
        **session.who(),
    )


def session_ended(session: Session) -> None:
    """The connection is gone: who it was, how long, what came of it."""
    if not session.told:
        log.debug("a probe's session ended", session=session.id, reason=session.reason or "lost")
        return
    log.session_end(
        session=session.id,
        reason=session.reason or "lost",
        seconds=time.monotonic() - session.started_at,
        listener=session.listener,
        **session.who(),
        messages=session.messages,
        recipients=session.recipients,
        errors=session.errors,
        last_reply="" if session.last_reply is None else one_line(session.last_reply),
        plugins=session.plugins.take_stories(),
    )
