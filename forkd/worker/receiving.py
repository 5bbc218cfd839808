"""How does a message come in? DATA, the end of data, the message hook, and the hand-over to the committer.

The order at the end of data is fixed: faults of the octets, loops, plugins, the commit. From a queue
id on, the mail is ours.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from forkd import log
from forkd.hooks.dispatcher import Decision
from forkd.message import trace
from forkd.queue.envelope import Edit
from forkd.queue.spool import SpoolError, SpoolFull
from forkd.smtp import events, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply
from forkd.worker.copies import MessageCopies
from forkd.worker.services import Commit
from forkd.worker.transaction import Transaction

if TYPE_CHECKING:
    from forkd.worker.session import Session

Result = Reply | Coroutine[Any, Any, Reply | None] | None
"""What a handler gives: the reply, a coroutine that will, or None when the committer answers."""


def shown_sender(sender: Mailbox | None) -> str:
    """The sender as the log shows it."""
    return "<>" if sender is None else str(sender)


# --- DATA -----------------------------------------------------------------------------------------------


def on_data(session: Session, event: events.Data) -> Result:  # noqa: ARG001 - one shape for all handlers
    """The message is about to come."""
    if session.services.dispatcher.wants("data"):
        return _ask_data(session)
    return _begin_data(session)


async def _ask_data(session: Session) -> Reply:
    decision = await session.plugins.ask("data")
    transaction = session.transaction
    assert transaction is not None
    if decision.reply is not None:
        return _end(session, transaction, decision.reply)
    if decision.discard:
        transaction.dropped += len(transaction.recipients)
        transaction.recipients.clear()
    return _begin_data(session)


def _begin_data(session: Session) -> Reply:
    services = session.services
    transaction = session.transaction
    assert transaction is not None
    kept = any(route.transport not in services.dropping for _, route in transaction.recipients)
    try:
        spool = services.spool if kept or services.dispatcher.reads_message else None
        transaction.begin(spool, time.monotonic())
    except SpoolError as error:
        return _end(session, transaction, _spool_reply(error))
    return replies.START_DATA


# --- the end of data ------------------------------------------------------------------------------------


def on_data_end(session: Session, event: events.DataEnd) -> Result:
    """CRLF.CRLF: faults of the bytes first, then loops, then plugins, then the commit."""
    transaction = session.transaction
    assert transaction is not None
    if event.fault is not None:
        return _end(session, transaction, event.fault)
    if transaction.error is not None:
        return _end(session, transaction, _spool_reply(transaction.error))
    if transaction.hops() > session.services.config.limits.max_hops:
        return _end(session, transaction, replies.LOOP)
    if transaction.recipients and session.services.dispatcher.wants("message"):
        return _ask_message(session, transaction)
    return _commit(session, transaction, ())


async def _ask_message(session: Session, transaction: Transaction) -> Reply | None:
    copies = MessageCopies(
        session.services.budget,
        size=transaction.size,
        header_size=transaction.header_size,
        read=transaction.read,
    )
    try:
        decision: Decision = await session.plugins.ask("message", message=copies)
    finally:
        copies.close()
    if decision.reply is not None:
        return _end(session, transaction, decision.reply)
    if decision.discard:
        transaction.dropped += len(transaction.recipients)
        transaction.recipients.clear()
    edits = tuple(Edit(op="add_header", name=edit.name, value=edit.value) for edit in decision.edits)
    return _commit(session, transaction, edits)


def _commit(session: Session, transaction: Transaction, edits: tuple[Edit, ...]) -> Reply | None:
    services = session.services
    file = transaction.file
    kept = [mailbox for mailbox, route in transaction.recipients if route.transport not in services.dropping]
    if file is None or not kept:
        services.counters.discarded += 1
        return _end(session, transaction, replies.DATA_OK, discarded=True)
    now = time.time()
    received = trace.received(
        helo=session.conn.helo or "",
        client_ip=str(session.address),
        host=services.hostname,
        protocol="ESMTP" if session.conn.esmtp else "SMTP",
        queue_id=file.id,
        at=now,
        # With more than one recipient the field would tell each about the others (RFC 5321 7.2).
        recipient=str(kept[0]) if len(transaction.recipients) == 1 else "",
    )
    envelope = transaction.envelope(
        received=received,
        edits=edits,
        received_at=now,
        session=session.id,
        client_ip=str(session.address),
        helo=session.conn.helo or "",
        protocol="ESMTP" if session.conn.esmtp else "SMTP",
    )
    session.committing = True
    services.committer.submit(file, envelope, Commit(session, transaction, len(edits)))
    return None


def end_of_transaction(session: Session, commit: Commit, result: str | SpoolError) -> Reply:
    """The commit is over: the reply to the end of data. The mail is ours where `result` is a queue id."""
    if isinstance(result, SpoolError):
        log.service(act="spool_failed", detail=str(result), level="error", session=session.id)
        return _end(session, commit.transaction, _spool_reply(result))
    return _end(
        session,
        commit.transaction,
        replies.queued(result),
        queue_id=result,
        edits=commit.edits,
    )


def _end(
    session: Session,
    transaction: Transaction,
    reply: Reply,
    *,
    queue_id: str = "",
    edits: int = 0,
    discarded: bool = False,
) -> Reply:
    """A transaction ends with this reply to DATA or to the end of data: count, log, forget."""
    counters = session.services.counters
    if reply.ok:
        counters.messages += 1
        counters.octets += transaction.size
        counters.recipients += len(transaction.recipients)
        session.messages += 1
        session.recipients += len(transaction.recipients)
    log.message(
        session=session.id,
        id=queue_id,
        client=f"{session.peer[0]}:{session.peer[1]}",
        helo=session.conn.helo or "",
        sender=shown_sender(transaction.sender),
        recipients=[str(mailbox) for mailbox, _ in transaction.recipients],
        reply=session.one_line(reply),
        seconds=time.monotonic() - transaction.started_at if transaction.started_at else 0.0,
        size=transaction.size,
        plugins=session.plugins.take_stories(),
        edits=edits,
        discarded=discarded,
    )
    if not queue_id:
        transaction.abort()
    session.transaction = None
    session.finished()
    session.plugins.reset()
    return reply


def _spool_reply(error: SpoolError) -> Reply:
    return replies.NO_SPACE if isinstance(error, SpoolFull) else replies.LOCAL_ERROR
