"""What does each act of the client lead to? One handler per event: check, ask, take effect.

A handler returns the Reply, or a coroutine that will, or None when somebody else will answer
(the committer). The built-in checks come before the plugins, and no verdict overrides them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkd import log
from forkd.config.aliases import MOST_ADDRESSES
from forkd.config.expansion import TAKEN, Expanded, Unexpandable
from forkd.config.recipients import Accepted, NotLocal, Unknown
from forkd.smtp import events, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply
from forkd.worker import authentication, opening, receiving, tarpit, telling, tls, xclient
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
    if decision.reply is not None:
        log_refusal(session, decision.reply, command="EHLO" if event.extended else "HELO")
        return decision.reply
    return _welcome(session, event)


def _welcome(session: Session, event: events.Hello) -> Reply:
    drop_transaction(session)
    session.plugins.hello(event.name, extended=event.extended)
    return session.conn.hello_reply(event)


# --- STARTTLS -------------------------------------------------------------------------------------------


def on_start_tls(session: Session, event: events.StartTls) -> Result:  # noqa: ARG001 - one shape for all
    """220; the session calls secure() when that is written."""
    return replies.TLS_READY if session.services.certificates else replies.TLS_UNAVAILABLE


async def secure(session: Session) -> None:
    """Shake hands, and begin anew inside (RFC 3207 4.2); the connection is closed where that fails."""
    facts = await tls.start_tls(session)
    if facts is None:
        return
    drop_transaction(session)
    session.facts_changed(
        tls_version=facts.version,
        tls_cipher=facts.cipher,
        client_certificate=facts.certificate,
        user="",
        helo=None,
        esmtp=False,
    )
    session.secured()


# --- MAIL -----------------------------------------------------------------------------------------------


def on_mail(session: Session, event: events.Mail) -> Result:
    """The reverse path. The declared size, TLS and AUTH were checked by the engine."""
    services = session.services
    if not services.has_space():
        return refused(session, event.sender, None, services.no_space)
    if services.listeners[session.listener].submission and not authentication.may_send(session, event.sender):
        return refused(session, event.sender, None, replies.SENDER_NOT_YOURS)
    if services.rates.counts("message") and not session.client.trusted:
        return _count_mail(session, event)
    if services.dispatcher.wants("mail"):
        return _ask_mail(session, event)
    return _sender_stands(session, event)


async def _count_mail(session: Session, event: events.Mail) -> Reply:
    services = session.services
    if not await services.rates.message(session.client):
        services.counters.limited += 1
        return refused(session, event.sender, None, replies.MESSAGE_RATE)
    if services.dispatcher.wants("mail"):
        return await _ask_mail(session, event)
    return _sender_stands(session, event)


async def _ask_mail(session: Session, event: events.Mail) -> Reply:
    decision = await session.plugins.ask(
        "mail",
        sender=event.sender,
        parameters=event.parameters,
        size=event.size,
        body=event.body,
        smtputf8=event.smtputf8,
    )
    if decision.reply is not None:
        return refused(session, event.sender, None, decision.reply)
    return _sender_stands(session, event)


def _sender_stands(session: Session, event: events.Mail) -> Reply:
    session.transaction = Transaction(event)
    session.plugins.begin(event.sender, smtputf8=event.smtputf8)
    return replies.SENDER_OK


# --- RCPT -----------------------------------------------------------------------------------------------


def on_rcpt(session: Session, event: events.Rcpt) -> Result:
    """A recipient; who has many of them in one transaction may have to wait (limits.tarpit_count)."""
    return tarpit.slowed(session, _check_rcpt(session, event))


def _check_rcpt(session: Session, event: events.Rcpt) -> Result:
    """Relay rules and the table that qmgr routes by, then the rates, then the plugins."""
    services = session.services
    mailbox = event.recipient
    may_relay = _may_relay(session)
    sender = session.transaction.sender if session.transaction is not None else None
    if not may_relay and services.config.limits.relay_probe and not _PROBE_SIGNS.isdisjoint(mailbox.local):
        return refused(session, sender, mailbox, replies.RELAY_DENIED)
    if session.transaction is not None and session.transaction.members >= MOST_ADDRESSES:
        return refused(session, sender, mailbox, replies.TOO_MANY_RECIPIENTS)
    route = services.recipients.resolve(mailbox.local, mailbox.domain, may_relay=may_relay)
    if not isinstance(route, TAKEN):
        return refused(session, sender, mailbox, _UNTAKEN[type(route)])
    if services.rates.counts("recipient") and not session.client.trusted:
        return _count_rcpt(session, event, route)
    if services.dispatcher.wants("rcpt"):
        return _ask_rcpt(session, event, route)
    return _recipient_stands(session, event, mailbox, route)


_UNTAKEN: dict[type, Reply] = {
    NotLocal: replies.RELAY_DENIED,
    Unknown: replies.UNKNOWN_RECIPIENT,
    Unexpandable: replies.LIST_TOO_LONG,
}
"""Why a recipient is none -> the reply."""


def _may_relay(session: Session) -> bool:
    """Clients of networks.relay, and who has authenticated for submission (RFC 6409 3)."""
    return session.client.relay or (
        bool(session.user) and session.services.listeners[session.listener].submission
    )


async def _count_rcpt(session: Session, event: events.Rcpt, route: Accepted | Expanded) -> Reply:
    services = session.services
    if not await services.rates.recipient(session.client):
        services.counters.limited += 1
        assert session.transaction is not None
        return refused(session, session.transaction.sender, event.recipient, replies.RECIPIENT_RATE)
    if services.dispatcher.wants("rcpt"):
        return await _ask_rcpt(session, event, route)
    return _recipient_stands(session, event, event.recipient, route)


async def _ask_rcpt(session: Session, event: events.Rcpt, route: Accepted | Expanded) -> Reply:
    decision = await session.plugins.ask("rcpt", recipient=event.recipient, parameters=event.parameters)
    transaction = session.transaction
    assert transaction is not None
    if decision.reply is not None:
        return refused(session, transaction.sender, event.recipient, decision.reply)
    if decision.discard:
        transaction.dropped.append(event.recipient)
        return replies.RECIPIENT_OK
    if decision.recipient is None:
        return _recipient_stands(session, event, event.recipient, route)
    # Never with the client's right to relay: a plugin sends mail to ours, or where the client sent it.
    rewritten = decision.recipient
    rerouted = session.services.recipients.resolve(rewritten.local, rewritten.domain, may_relay=False)
    if not isinstance(rerouted, TAKEN):
        return refused(session, transaction.sender, rewritten, replies.LOCAL_ERROR)
    return _recipient_stands(session, event, rewritten, rerouted)


def _recipient_stands(
    session: Session, event: events.Rcpt, mailbox: Mailbox, route: Accepted | Expanded
) -> Reply:
    assert session.transaction is not None
    others = session.transaction.recipients
    if others and not _fits(session, session.transaction, mailbox, route):
        return refused(session, session.transaction.sender, mailbox, replies.TOO_MANY_RECIPIENTS)
    if event.parameters or mailbox is not event.recipient:
        session.transaction.accept(
            mailbox,
            route,
            notify=event.notify,
            orcpt=event.orcpt,
            original=None if mailbox is event.recipient else event.recipient,
        )
    else:
        session.transaction.accept(mailbox, route)
    session.plugins.add_recipient(mailbox)
    return replies.RECIPIENT_OK


def _fits(session: Session, transaction: Transaction, mailbox: Mailbox, route: Accepted | Expanded) -> bool:
    """One more recipient, beside those that stand: what a client waits for goes by one transport and from one
    sender, and no message gets more members of aliases than MOST_ADDRESSES."""
    if isinstance(route, Expanded) and transaction.members + len(route.members) > MOST_ADDRESSES:
        return False
    next_hop = session.services.next_hop
    if next_hop is None or not receiving.waits(session):
        return True
    first = transaction.recipients[0]
    ways = route.transports
    if first.route.transports != ways or first.route.owners != route.owners:
        return False
    return next_hop.together(ways, first.mailbox.domain, mailbox.domain)


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


_CONSEQUENCES = frozenset({id(replies.MAIL_FIRST), id(replies.NO_RECIPIENTS)})
"""What pipelined commands are told behind a refusal that the log has."""


def on_refused(session: Session, event: events.Refused) -> Result:
    """The engine refused already: syntax, order, limits; or it has read over a chunk that was refused."""
    reply = event.reply
    if reply is replies.NOT_TLS:
        opening.talked(session, reply)
        return reply  # that has a line of its own
    if reply.close:
        session.reason = "early talker" if reply is replies.EARLY_TALKER else "errors"
    if id(reply) not in _CONSEQUENCES and not (event.command == "BDAT" and reply is session.last_reply):
        log_refusal(session, reply, command=event.command, said=event.said)
    return reply


def drop_transaction(session: Session) -> None:
    """RSET, EHLO: clear sender, recipients, data."""
    if session.transaction is not None:
        session.transaction.abort()
        session.transaction = None
    session.plugins.reset()


def refused(session: Session, sender: Mailbox | None, recipient: Mailbox | None, reply: Reply) -> Reply:
    """MAIL or RCPT is refused, and we know of whom and to whom."""
    log_refusal(
        session,
        reply,
        command="MAIL" if recipient is None else "RCPT",
        sender=receiving.shown_sender(sender),
        recipient="" if recipient is None else str(recipient),
    )
    return reply


def log_refusal(
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
        sender = receiving.shown_sender(transaction.sender)
    log.refused(
        session=session.id,
        reply=telling.one_line(reply),
        command=command,
        said=said,
        sender=sender,
        recipient=recipient,
        plugins=session.plugins.take_stories(),
        **session.who(),
    )


HANDLERS: dict[type, Callable[..., Result]] = {
    events.Hello: on_hello,
    events.Mail: on_mail,
    events.Rcpt: on_rcpt,
    events.Data: receiving.on_data,
    events.ChunkEnd: receiving.on_chunk_end,
    events.DataEnd: receiving.on_data_end,
    events.StartTls: on_start_tls,
    events.Auth: authentication.on_auth,
    events.AuthData: authentication.on_auth_data,
    events.Xclient: xclient.on_xclient,
    events.Rset: on_rset,
    events.Noop: on_noop,
    events.Vrfy: on_vrfy,
    events.Expn: on_expn,
    events.Help: on_help,
    events.Quit: on_quit,
    events.Refused: on_refused,
}
"""Every event but DataChunk, which is written down without a reply."""
