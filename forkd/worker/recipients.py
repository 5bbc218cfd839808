"""Is this one a recipient? RCPT: relay rules, the table that qmgr routes by, rates, plugins, company.

A handler as those in handlers.py. No verdict of a plugin overrides the built-in checks, nor lends it the
client's right to relay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forkd.config.aliases import MOST_ADDRESSES
from forkd.config.expansion import TAKEN, Expanded, Unexpandable
from forkd.config.recipients import Accepted, NotLocal, Unknown
from forkd.smtp import events, replies
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply
from forkd.worker import receiving, tarpit, telling
from forkd.worker.receiving import Result
from forkd.worker.transaction import Transaction

if TYPE_CHECKING:
    from forkd.worker.session import Session

_PROBE_SIGNS = frozenset("%!@")
"""In a local part these ask for another host to relay to (RFC 5321 appendix C, the percent hack)."""


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
        return telling.refused_mail(session, sender, mailbox, replies.RELAY_DENIED)
    if session.transaction is not None and session.transaction.members >= MOST_ADDRESSES:
        return telling.refused_mail(session, sender, mailbox, replies.TOO_MANY_RECIPIENTS)
    route = services.recipients.resolve(mailbox.local, mailbox.domain, may_relay=may_relay)
    if not isinstance(route, TAKEN):
        return telling.refused_mail(session, sender, mailbox, _UNTAKEN[type(route)])
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
        return telling.refused_mail(
            session, session.transaction.sender, event.recipient, replies.RECIPIENT_RATE
        )
    if services.dispatcher.wants("rcpt"):
        return await _ask_rcpt(session, event, route)
    return _recipient_stands(session, event, event.recipient, route)


async def _ask_rcpt(session: Session, event: events.Rcpt, route: Accepted | Expanded) -> Reply:
    decision = await session.plugins.ask("rcpt", recipient=event.recipient, parameters=event.parameters)
    transaction = session.transaction
    assert transaction is not None
    if decision.reply is not None:
        return telling.refused_mail(session, transaction.sender, event.recipient, decision.reply)
    if decision.discard:
        transaction.dropped.append(event.recipient)
        return replies.RECIPIENT_OK
    if decision.recipient is None:
        return _recipient_stands(session, event, event.recipient, route)
    # Never with the client's right to relay: a plugin sends mail to ours, or where the client sent it.
    rewritten = decision.recipient
    rerouted = session.services.recipients.resolve(rewritten.local, rewritten.domain, may_relay=False)
    if not isinstance(rerouted, TAKEN):
        return telling.refused_mail(session, transaction.sender, rewritten, replies.LOCAL_ERROR)
    return _recipient_stands(session, event, rewritten, rerouted)


def _recipient_stands(
    session: Session, event: events.Rcpt, mailbox: Mailbox, route: Accepted | Expanded
) -> Reply:
    assert session.transaction is not None
    others = session.transaction.recipients
    if others and not _fits(session, session.transaction, mailbox, route):
        return telling.refused_mail(session, session.transaction.sender, mailbox, replies.TOO_MANY_RECIPIENTS)
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
