"""What does each act of the client lead to? One handler per event: check, ask, take effect.

A handler returns the Reply, or a coroutine that will, or None when somebody else will answer
(the committer). The built-in checks come before the plugins, and no verdict overrides them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkd import log
from forkd.config.recipients import Accepted, NotLocal
from forkd.smtp import events, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply
from forkd.worker import receiving
from forkd.worker.receiving import Result
from forkd.worker.transaction import Transaction

if TYPE_CHECKING:
    from forkd.worker.session import Session

_PROBE_SIGNS = frozenset("%!@")
"""In a local part these ask for another host to relay to (RFC 5321 appendix C, the percent hack)."""


# --- HELO, EHLO -----------------------------------------------------------------------------------------


def on_hello(session: Session, event: events.Hello) -> Result:
    """A new dialogue. A refused one changes nothing (RFC 5321 4.1.4)."""
    if session.services.dispatcher.wants("helo"):
        return _ask_hello(session, event)
    return _welcome(session, event)


async def _ask_hello(session: Session, event: events.Hello) -> Reply:
    decision = await session.plugins.ask("helo", name=event.name, extended=event.extended)
    return decision.reply or _welcome(session, event)


def _welcome(session: Session, event: events.Hello) -> Reply:
    drop_transaction(session)
    session.plugins.hello(event.name, extended=event.extended)
    return session.conn.hello_reply(event)


# --- MAIL -----------------------------------------------------------------------------------------------


def on_mail(session: Session, event: events.Mail) -> Result:
    """The reverse path. The declared size was checked by the engine."""
    if not session.services.has_space():
        return _refused(session, event.sender, None, replies.NO_SPACE)
    if session.services.dispatcher.wants("mail"):
        return _ask_mail(session, event)
    return _sender_stands(session, event)


async def _ask_mail(session: Session, event: events.Mail) -> Reply:
    decision = await session.plugins.ask(
        "mail", sender=event.sender, parameters=event.parameters, size=event.size, body=event.body
    )
    if decision.reply is not None:
        return _refused(session, event.sender, None, decision.reply)
    return _sender_stands(session, event)


def _sender_stands(session: Session, event: events.Mail) -> Reply:
    session.transaction = Transaction(event.sender, event.body)
    session.plugins.begin(event.sender)
    return replies.SENDER_OK


# --- RCPT -----------------------------------------------------------------------------------------------


def on_rcpt(session: Session, event: events.Rcpt) -> Result:
    """A recipient: relay rules and the table that qmgr routes by, then the plugins."""
    services = session.services
    mailbox = event.recipient
    may_relay = session.address in services.relay
    sender = session.transaction.sender if session.transaction is not None else None
    if not may_relay and services.config.limits.relay_probe and not _PROBE_SIGNS.isdisjoint(mailbox.local):
        return _refused(session, sender, mailbox, replies.RELAY_DENIED)
    route = services.recipients.resolve(mailbox.local, mailbox.domain, may_relay=may_relay)
    if not isinstance(route, Accepted):
        reply = replies.RELAY_DENIED if isinstance(route, NotLocal) else replies.UNKNOWN_RECIPIENT
        return _refused(session, sender, mailbox, reply)
    if services.dispatcher.wants("rcpt"):
        return _ask_rcpt(session, event, route)
    return _recipient_stands(session, mailbox, route)


async def _ask_rcpt(session: Session, event: events.Rcpt, route: Accepted) -> Reply:
    decision = await session.plugins.ask("rcpt", recipient=event.recipient, parameters=event.parameters)
    transaction = session.transaction
    assert transaction is not None
    if decision.reply is not None:
        return _refused(session, transaction.sender, event.recipient, decision.reply)
    if decision.discard:
        transaction.dropped += 1
        return replies.RECIPIENT_OK
    return _recipient_stands(session, event.recipient, route)


def _recipient_stands(session: Session, mailbox: Mailbox, route: Accepted) -> Reply:
    assert session.transaction is not None
    session.transaction.recipients.append((mailbox, route))
    session.plugins.add_recipient(mailbox)
    return replies.RECIPIENT_OK


# --- the rest -------------------------------------------------------------------------------------------


def on_rset(session: Session, event: events.Rset) -> Result:  # noqa: ARG001
    """Forget the transaction."""
    drop_transaction(session)
    return replies.RSET_OK


def on_noop(session: Session, event: events.Noop) -> Result:  # noqa: ARG001
    """Nothing."""
    return replies.NOOP_OK


def on_vrfy(session: Session, event: events.Vrfy) -> Result:  # noqa: ARG001
    """We do not tell who exists (RFC 5321 7.3)."""
    return replies.VRFY


def on_expn(session: Session, event: events.Expn) -> Result:  # noqa: ARG001
    """Nor who reads a list."""
    return replies.EXPN


def on_help(session: Session, event: events.Help) -> Result:  # noqa: ARG001
    """A pointer to the standard."""
    return replies.HELP


def on_quit(session: Session, event: events.Quit) -> Result:  # noqa: ARG001
    """Goodbye; the engine closes after it."""
    session.reason = "quit"
    return replies.BYE


def on_refused(session: Session, event: events.Refused) -> Result:
    """The engine refused already: syntax, order, limits."""
    if event.reply.close:
        session.reason = "errors"
    return event.reply


def drop_transaction(session: Session) -> None:
    """RSET, EHLO: clear sender, recipients, data."""
    if session.transaction is not None:
        session.transaction.abort()
        session.transaction = None
    session.plugins.reset()


def _refused(session: Session, sender: Mailbox | None, recipient: Mailbox | None, reply: Reply) -> Reply:
    """MAIL or RCPT is refused: the line that answers "why was this refused?"."""
    log.refused(
        session=session.id,
        client=f"{session.peer[0]}:{session.peer[1]}",
        helo=session.conn.helo or "",
        sender=receiving.shown_sender(sender),
        recipient="" if recipient is None else str(recipient),
        reply=session.one_line(reply),
        plugins=session.plugins.take_stories(),
    )
    return reply


HANDLERS: dict[type, Callable[..., Result]] = {
    events.Hello: on_hello,
    events.Mail: on_mail,
    events.Rcpt: on_rcpt,
    events.Data: receiving.on_data,
    events.DataEnd: receiving.on_data_end,
    events.Rset: on_rset,
    events.Noop: on_noop,
    events.Vrfy: on_vrfy,
    events.Expn: on_expn,
    events.Help: on_help,
    events.Quit: on_quit,
    events.Refused: on_refused,
}
"""Every event but DataChunk, which is written down without a reply."""
