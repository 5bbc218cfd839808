"""Who has many recipients in one transaction has to wait for each further one: when, and for how long?

limits.tarpit_count, limits.tarpit_delay. A client may have sent a thousand RCPT at once, so the delays of a
session must have an end: that of a session without a finished transaction (timeouts.idle_session), which
bounds all of them together as well. Who waits here holds sandboxes only until others need them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from forkd.smtp import replies
from forkd.smtp.reply import Reply
from forkd.worker.receiving import Result

if TYPE_CHECKING:
    from forkd.worker.session import Session


def slowed(session: Session, result: Result) -> Result:
    """The answer to RCPT, at once or later."""
    most = session.services.config.limits.tarpit_count
    if not most or session.client.trusted:
        return result
    if isinstance(result, Reply) and not _sticks(session, result, most):
        return result
    return _later(session, result, most)


async def _later(session: Session, result: Result, most: int) -> Reply | None:
    reply = result if isinstance(result, Reply) or result is None else await result
    if reply is None or not _sticks(session, reply, most):
        return reply
    delay = float(session.services.config.limits.tarpit_delay)
    patience = session.patience
    granted = patience.spend(time.monotonic(), delay)
    patience.tarpitted = True
    try:
        await asyncio.sleep(granted)
    finally:
        patience.tarpitted = False
    if granted < delay:
        session.reason = "timeout"
        return replies.TIMEOUT
    return reply


def _sticks(session: Session, reply: Reply, most: int) -> bool:
    """This accepted recipient is the one of that number, or a later one."""
    transaction = session.transaction
    return (
        reply.ok
        and transaction is not None
        and len(transaction.recipients) + len(transaction.dropped) >= most
    )
