"""How does a message come in? DATA or BDAT, the end of data, the message hook, the hand-over to be committed.

The order at the end of data is fixed: faults of the octets, loops, plugins, the commit. From a queue
id on, the mail is ours.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from forkd import log
from forkd.config.expansion import TAKEN
from forkd.hooks.decision import UNCHANGED, Decision
from forkd.message import trace
from forkd.queue.envelope import Edit, Envelope
from forkd.queue.spool import SpoolError, SpoolFile, SpoolFull
from forkd.smtp import events, replies
from forkd.smtp.reply import Reply
from forkd.worker import telling
from forkd.worker.bodies import Body
from forkd.worker.copies import MessageCopies
from forkd.worker.edits import kept
from forkd.worker.services import Commit
from forkd.worker.transaction import Transaction

if TYPE_CHECKING:
    from forkd.worker.session import Session

Result = Reply | Coroutine[Any, Any, Reply | None] | None
"""What a handler gives: the reply, a coroutine that will, or None when the committer answers."""


# --- DATA -----------------------------------------------------------------------------------------------


def on_data(session: Session, event: events.Data) -> Result:  # noqa: ARG001 - one shape for all handlers
    """The message is about to come; for BDAT the first chunk asks, and what stands here is said after it."""
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
        transaction.drop_all()
    transaction.hold = decision.quarantine
    return _begin_data(session)


def _begin_data(session: Session) -> Reply:
    services = session.services
    transaction = session.transaction
    assert transaction is not None
    kept = any(map(services.keeps, transaction.recipients))
    try:
        spool = services.spool if kept or services.dispatcher.reads_message else None
        transaction.begin(spool, time.monotonic())
    except SpoolError as error:
        return _end(session, transaction, _spool_reply(error))
    _change_limits(session)
    return replies.START_DATA


def on_chunk_end(session: Session, event: events.ChunkEnd) -> Result:  # noqa: ARG001 - one shape for all handlers
    """A BDAT chunk that is not the last was read (RFC 3030 2); a full disk is told at once."""
    transaction = session.transaction
    assert transaction is not None
    if transaction.error is not None:
        return _end(session, transaction, _spool_reply(transaction.error))
    return replies.CHUNK_OK


# --- the end of data ------------------------------------------------------------------------------------


def on_data_end(session: Session, event: events.DataEnd) -> Result:
    """CRLF.CRLF or the last chunk: faults of the bytes first, then loops, then plugins, then the commit."""
    transaction = session.transaction
    assert transaction is not None
    if event.fault is not None:
        return _end(session, transaction, event.fault)
    if transaction.error is not None:
        return _end(session, transaction, _spool_reply(transaction.error))
    if transaction.loops(session.services.config.limits.max_hops):
        return _end(session, transaction, replies.LOOP)
    if transaction.recipients and session.services.dispatcher.wants("message"):
        return _ask_message(session, transaction)
    return _accept(session, transaction, ())


async def _ask_message(session: Session, transaction: Transaction) -> Reply | None:
    services = session.services
    copies = MessageCopies(services.budget, transaction, limit=services.config.limits.edited_size)
    try:
        decision: Decision = await session.plugins.ask("message", message=copies)
    finally:
        copies.close()
    if decision.reply is not None:
        return _end(session, transaction, decision.reply)
    if transaction.error is not None:
        # A new body that did not fit on the disk: without it the message is not what was decided.
        return _end(session, transaction, _spool_reply(transaction.error))
    if decision.discard:
        transaction.drop_all()
    else:
        _edit_envelope(session, transaction, decision)
    result = _accept(session, transaction, tuple([kept(edit) for edit in decision.edits]))
    return result if result is None or isinstance(result, Reply) else await result


def _edit_envelope(session: Session, transaction: Transaction, decision: Decision) -> None:
    """What plugins decided about all but the header."""
    transaction.hold = transaction.hold or decision.quarantine
    if decision.sender is not UNCHANGED:
        transaction.rewrite_sender(decision.sender)
    transaction.replace_body(decision.body if isinstance(decision.body, Body) else None)
    if decision.delete_recipients:
        transaction.remove(decision.delete_recipients)
    for mailbox in decision.add_recipients:
        # Never with the client's right to relay: mail goes where the client sent it, or to ours.
        route = session.services.recipients.resolve(mailbox.local, mailbox.domain, may_relay=False)
        if isinstance(route, TAKEN):
            # The sender did not write to this one, so no report about it goes there (as Postfix' BCC).
            transaction.accept(mailbox, route, notify=("NEVER",))


def _accept(session: Session, transaction: Transaction, edits: tuple[Edit, ...]) -> Result:
    """Nobody has refused it: dropped, handed on, or committed."""
    services = session.services
    file = transaction.file
    kept = [*filter(services.keeps, transaction.recipients)]
    if file is None or not kept:
        services.counters.discarded += 1
        if not transaction.dropped:
            return _end(session, transaction, replies.DATA_OK, discarded=True)
        # As to mail that is kept: no sender can try out which of his a plugin drops. The log has the id.
        told = (file or services.spool.begin()).id
        return _end(session, transaction, replies.queued(told), told=told, discarded=True)
    now = time.time()
    conn, tls = session.conn, session.tls
    client_ip, helo = str(session.address), conn.helo or ""
    secured = "" if tls is None else f"{tls.version} with cipher {tls.cipher}"
    protocol = trace.protocol(
        conn.esmtp, tls=tls is not None, auth=bool(session.user), utf8=transaction.smtputf8
    )
    received = trace.received(
        helo=helo,
        client_ip=client_ip,
        client_name=session.client_name,
        host=services.hostname,
        protocol=protocol,
        tls=secured,
        queue_id=file.id,
        at=now,
        # With more than one recipient the field would tell each about the others (RFC 5321 7.2).
        recipient=str(kept[0].original or kept[0].mailbox) if len(transaction.recipients) == 1 else "",
    )
    if services.config.listener[session.listener].role == "submission":
        edits += _completed(transaction, edits, queue_id=file.id, host=services.hostname, at=now)
    if edits:
        said = [f"{edit.op} {edit.name}" for edit in edits]
        log.edited(session=session.id, id=file.id, edits=said)
    envelope = transaction.envelope(
        received=received,
        edits=edits,
        received_at=now,
        session=session.id,
        client_ip=client_ip,
        client_name=session.client_name,
        helo=helo,
        protocol=protocol,
        tls=secured,
        user=session.user,
    )
    if services.next_hop is not None and waits(session) and not transaction.hold:
        return _hand_on(session, transaction, file, envelope)
    session.committing = True
    services.committer.submit(file, envelope, Commit(session, transaction, len(edits)))
    return None


def waits(session: Session) -> bool:
    """accept = "proxy": the reply to the end of data is the next hop's, one for all recipients."""
    return session.services.config.listener[session.listener].accept == "proxy"


async def _hand_on(session: Session, transaction: Transaction, file: SpoolFile, envelope: Envelope) -> Reply:
    """The next hop's answer is the reply. A client that goes meanwhile has none, as from any server; the
    delivery ends as it ends, and the log has it."""
    next_hop = session.services.next_hop
    assert next_hop is not None
    edits = len(envelope.edits)
    session.handing_on = True
    try:
        reply = await next_hop.deliver(file, envelope)
    except SpoolError as error:
        log.service(act="spool_failed", detail=str(error), level="error", session=session.id)
        reply = _spool_reply(error)
    finally:
        session.handing_on = False
    return _end(session, transaction, reply, told=file.id, edits=edits)


def _completed(
    transaction: Transaction, edits: tuple[Edit, ...], *, queue_id: str, host: str, at: float
) -> tuple[Edit, ...]:
    """The Date and Message-ID that a submitting client left to us (RFC 6409 8.2, 8.3)."""
    added = {edit.name.lower() for edit in edits if edit.op == "add_header"}
    wanted = (("Date", trace.date(at)), ("Message-ID", f"<{queue_id}@{host}>"))
    return tuple(
        Edit(op="add_header", name=name, value=value)
        for name, value in wanted
        if name.lower() not in added and transaction.lacks(name)
    )


def end_of_transaction(session: Session, commit: Commit, result: str | SpoolError) -> Reply:
    """The commit is over: the reply to the end of data. The mail is ours where `result` is a queue id."""
    if isinstance(result, SpoolError):
        log.service(act="spool_failed", detail=str(result), level="error", session=session.id)
        return _end(session, commit.transaction, _spool_reply(result))
    if commit.transaction.hold:
        log.queue_event(act="held", id=result, detail=commit.transaction.hold)
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
    told: str = "",
    edits: int = 0,
    discarded: bool = False,
) -> Reply:
    """A transaction ends with this reply to DATA or to the end of data: count, log, forget.

    queue_id  the mail is in the queue under it; told: an id that the client was told of mail that is not
    """
    counters = session.services.counters
    if reply.ok:
        counters.messages += 1
        counters.octets += transaction.size
        counters.recipients += len(transaction.recipients)
        session.messages += 1
        session.recipients += len(transaction.recipients)
    log.message(
        session=session.id,
        id=queue_id or told,
        **session.who(),
        sender=telling.shown_sender(transaction.sender),
        recipients=[str(to.mailbox) for to in transaction.recipients],
        reply=telling.one_line(reply),
        seconds=time.monotonic() - transaction.started_at if transaction.started_at else 0.0,
        size=transaction.size,
        plugins=session.plugins.take_stories(),
        edits=edits,
        discarded=discarded,
        original_sender=telling.shown_sender(transaction.original_sender)
        if transaction.sender_changed
        else "",
        rewritten=[f"{to.original}>{to.mailbox}" for to in transaction.recipients if to.original],
        dropped=[str(mailbox) for mailbox in transaction.dropped],
    )
    if not queue_id:
        transaction.abort()
    session.transaction = None
    session.patience.finished(time.monotonic())
    _change_limits(session)
    session.plugins.reset()
    return reply


def _change_limits(session: Session) -> None:
    """Data begins or is over: from now on other ones hold."""
    session.patience.heard_at = time.monotonic()
    session.patience.renew(session.transaction)


def _spool_reply(error: SpoolError) -> Reply:
    return replies.NO_SPACE if isinstance(error, SpoolFull) else replies.LOCAL_ERROR
