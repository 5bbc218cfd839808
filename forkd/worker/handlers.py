"""What does each act of the client lead to? One handler per event: check, ask, take effect.

A handler returns the Reply, or a coroutine that will, or None when somebody else will answer
(the committer). The built-in checks come before the plugins, and no verdict overrides them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forkd.smtp import events, replies
from forkd.smtp.reply import Reply
from forkd.worker import authentication, opening, receiving, recipients, telling, tls, xclient
from forkd.worker.receiving import Result
from forkd.worker.transaction import Transaction

if TYPE_CHECKING:
    from forkd.worker.session import Session

# --- HELO, EHLO -----------------------------------------------------------------------------------------


def on_hello(session: Session, event: events.Hello) -> Result:
    """A new dialogue. A refused one changes nothing (RFC 5321 4.1.4)."""
    if session.services.dispatcher.wants("helo"):
        return _ask_hello(session, event)
    return _welcome(session, event)


async def _ask_hello(session: Session, event: events.Hello) -> Reply:
    decision = await session.plugins.ask("helo", name=event.name, extended=event.extended)
    if decision.reply is not None:
        telling.refused(session, decision.reply, command="EHLO" if event.extended else "HELO")
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
        return telling.refused_mail(session, event.sender, None, services.no_space)
    if services.listeners[session.listener].submission and not authentication.may_send(session, event.sender):
        return telling.refused_mail(session, event.sender, None, replies.SENDER_NOT_YOURS)
    if services.rates.counts("message") and not session.client.trusted:
        return _count_mail(session, event)
    if services.dispatcher.wants("mail"):
        return _ask_mail(session, event)
    return _sender_stands(session, event)


async def _count_mail(session: Session, event: events.Mail) -> Reply:
    services = session.services
    if not await services.rates.message(session.client):
        services.counters.limited += 1
        return telling.refused_mail(session, event.sender, None, replies.MESSAGE_RATE)
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
        return telling.refused_mail(session, event.sender, None, decision.reply)
    return _sender_stands(session, event)


def _sender_stands(session: Session, event: events.Mail) -> Reply:
    session.transaction = Transaction(event)
    session.plugins.begin(event.sender, smtputf8=event.smtputf8)
    return replies.SENDER_OK


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
        telling.refused(session, reply, command=event.command, said=event.said)
    return reply


def drop_transaction(session: Session) -> None:
    """RSET, EHLO: clear sender, recipients, data."""
    if session.transaction is not None:
        session.transaction.abort()
        session.transaction = None
    session.plugins.reset()


HANDLERS: dict[type, Callable[..., Result]] = {
    events.Hello: on_hello,
    events.Mail: on_mail,
    events.Rcpt: recipients.on_rcpt,
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
