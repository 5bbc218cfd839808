"""Who is this client? AUTH from its first command to 235 or a refusal: asked, delayed, counted, limited.

What a mechanism's messages mean is smtp/sasl.py's, who knows the passwords is forkd/auth's; here is what
one session may do and what it is told. The rules:

    too many      a client over limits.auth_failures_per_minute has 421 4.7.0 at once; for an account over
                  limits.account_failures_per_minute no password is looked at, right or wrong: 454 4.7.0
    plugins       those with the hook `auth` are asked first, with login and secret: ok, a refusal, or
                  nothing, and then the backend
    a failure     is answered with one text, 535 5.7.8, whatever it was, auth.failure_delay after the
                  client's last word: neither the answer nor its time tells whether the user exists
    no answer     (backend away, too slow, too many wait) is 454 4.7.0 and counts for nothing

Secrets are arguments on their way and nowhere else: not in the log, not in a repr, not kept.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from forkd import log
from forkd.auth import backends, dovecot
from forkd.auth.backends import (
    Accepted,
    Answer,
    Credentials,
    DovecotBackend,
    Facts,
    Refused,
    Unavailable,
    UsersBackend,
)
from forkd.smtp import events, replies, sasl
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply
from forkd.worker.authenticator import BEARER, Login

if TYPE_CHECKING:
    from forkd.worker.session import Session

SCRAM: Final = "SCRAM-SHA-256"


def may_send(session: Session, sender: Mailbox | None) -> bool:
    """May the session use this sender? Anybody may who need not authenticate, everybody the null sender
    (notifications, RFC 8098 3); else the address must be one of his (RFC 6409 6.1): 553 5.7.1."""
    services = session.services
    if sender is None or not services.config.auth.sender_check:
        return True
    if not services.listeners[session.listener].submission:
        return True
    return services.authenticator.may_send(session.user, sender)


async def on_auth(session: Session, event: events.Auth) -> Reply:
    """AUTH: the engine has checked that it is offered, in order, and private enough."""
    services = session.services
    authenticator = services.authenticator
    if not await authenticator.rates.may_authenticate(session.client, ""):
        services.counters.limited += 1
        _log(session, "limited", event.mechanism, reason="too many failures of this client")
        return replies.AUTH_TOO_MANY
    theirs = event.mechanism == SCRAM and isinstance(authenticator.backend, DovecotBackend)
    login = Login(event.mechanism, None if theirs else sasl.start(event.mechanism))
    authenticator.begin(session, login)
    if event.initial is not None:
        return await _go_on(session, login, event.initial)
    # RFC 4954 4: an empty challenge where the client begins; LOGIN's server begins.
    return replies.challenge(b"" if login.exchange is None else login.exchange.first())


async def on_auth_data(session: Session, event: events.AuthData) -> Reply:
    """The client's answer to a challenge."""
    authenticator = session.services.authenticator
    login = authenticator.under_way(session)
    if event.data is None:
        authenticator.end(session)
        return replies.AUTH_CANCELLED
    return await _go_on(session, login, event.data)


async def _go_on(session: Session, login: Login, data: bytes) -> Reply:
    """One message of the client's; everything but a challenge ends the exchange."""
    authenticator = session.services.authenticator
    asked_at = asyncio.get_running_loop().time()
    try:
        outcome = await (_at_dovecot if login.exchange is None else _here)(session, login, data)
    except Unavailable as error:
        outcome = replies.AUTH_TEMPORARY
        _log(session, "temporary", login.mechanism, user=login.user, reason=str(error), by=_by(session))
    except BaseException:
        authenticator.end(session)
        raise
    if isinstance(outcome, Reply):
        if outcome.code != 334:
            authenticator.end(session)
        if outcome.code >= 500:
            await _let_wait(session, asked_at)
        return outcome
    authenticator.end(session)
    if isinstance(outcome, Refused):
        _failed(session, login, outcome.reason, by=_by(session))
        await _let_wait(session, asked_at)
        return replies.AUTH_FAILED
    return _welcome(session, login, outcome.user, by=_by(session))


Outcome = Reply | Answer


async def _here(session: Session, login: Login, data: bytes) -> Outcome:
    """A message of a mechanism that we speak ourselves."""
    assert login.exchange is not None
    if login.proven:
        return Refused("an answer to our proof") if data else Accepted(login.proven)
    step = login.exchange.step(data)
    match step:
        case sasl.Challenge():
            return replies.challenge(step.data)
        case sasl.Failed():
            return Refused(step.why)
        case sasl.Password():
            login.user = step.user
            return await _with_secret(session, login, step.password, step.authorize_as)
        case sasl.Bearer():
            login.user = step.user
            return await _with_secret(session, login, step.token, "")
        case sasl.NeedVerifier():
            login.user = step.user
            return await _begin_scram(session, login, step.user)
        case sasl.Proven():
            login.proven = step.user
            return replies.challenge(step.final)


async def _begin_scram(session: Session, login: Login, user: str) -> Outcome:
    authenticator = session.services.authenticator
    assert login.exchange is not None
    if (limited := await _account_limit(session, login)) is not None:
        return limited
    if not isinstance(authenticator.backend, UsersBackend):
        return Refused("nobody has a verifier")
    try:
        async with asyncio.timeout(float(authenticator.config.timeout)):
            known, scram = await authenticator.backend.scram(user)
    except TimeoutError as error:
        raise Unavailable("no answer in time") from error
    if known is not None:
        login.user = known
    step = login.exchange.verifier(sasl.ScramVerifier(*scram))
    if isinstance(step, sasl.Challenge):
        return replies.challenge(step.data)
    return Refused("not SCRAM")


async def _with_secret(session: Session, login: Login, secret: str, authorize_as: str) -> Outcome:
    """PLAIN, LOGIN, OAUTHBEARER: the plugins, then the backend."""
    services = session.services
    authenticator = services.authenticator
    if (limited := await _account_limit(session, login)) is not None:
        return limited
    if services.dispatcher.wants("auth"):
        decision = await session.plugins.ask("auth", user=login.user, secret=secret)
        if decision.ok:
            if authorize_as not in ("", login.user):
                return Refused("asked to act for somebody else")
            return _welcome(session, login, login.user, by="plugin")
        if decision.reply is not None:
            if decision.reply.code >= 500:
                _failed(session, login, "a plugin says no", by="plugin")
            else:
                _log(session, "temporary", login.mechanism, user=login.user, by="plugin")
            return decision.reply
    if login.mechanism == BEARER:
        return _bearer_denied(login)
    if authenticator.backend is None:
        return Refused("no plugin knows it")
    credentials = Credentials(login.user, secret, authorize_as, _facts(session))
    return await backends.within(
        float(authenticator.config.timeout), authenticator.backend.check(credentials)
    )


def _bearer_denied(login: Login) -> Outcome:
    """What the client is told in words of its mechanism; its empty answer then has 535 (RFC 7628 3.2.2)."""
    assert login.exchange is not None
    step = login.exchange.denied()
    return replies.challenge(step.data) if isinstance(step, sasl.Challenge) else Refused(step.why)


def _facts(session: Session) -> Facts:
    address, port = session.local
    return Facts(
        session=session.id,
        client_ip=str(session.client.address),
        client_port=session.peer[1],
        local_ip=address,
        local_port=port,
        secured=session.tls is not None,
    )


async def _at_dovecot(session: Session, login: Login, data: bytes) -> Outcome:
    """A message of a mechanism that Dovecot speaks with the client."""
    backend = session.services.authenticator.backend
    assert isinstance(backend, DovecotBackend)
    try:
        async with asyncio.timeout(float(session.services.config.auth.timeout)):
            if login.proxied is None:
                login.user = sasl.scram_user(data)
                if (limited := await _account_limit(session, login)) is not None:
                    return limited
                login.proxied = await backend.begin(login.mechanism, _facts(session), data)
            else:
                login.proxied.respond(data)
            answer = await login.proxied.answer()
    except TimeoutError as error:
        raise Unavailable("dovecot: no answer in time") from error
    except dovecot.Unreachable as error:
        raise Unavailable(f"dovecot: {error}") from error
    except ValueError:
        return Refused("too long")
    if isinstance(answer, dovecot.Continue):
        return replies.challenge(answer.data)
    return backend.judge(answer, login.user)


async def _account_limit(session: Session, login: Login) -> Reply | None:
    """Too many failures for this account, from wherever."""
    if await session.services.authenticator.rates.may_authenticate(session.client, login.user):
        return None
    session.services.counters.limited += 1
    _log(session, "limited", login.mechanism, user=login.user, reason="too many failures of this account")
    return replies.AUTH_TEMPORARY


def _welcome(session: Session, login: Login, user: str, *, by: str) -> Reply:
    session.user = user
    session.facts_changed(user=user)
    session.services.counters.auth += 1
    _log(session, "ok", login.mechanism, user=user, by=by)
    return replies.AUTH_OK


def _failed(session: Session, login: Login, reason: str, *, by: str) -> None:
    session.services.counters.auth_failures += 1
    session.services.authenticator.rates.auth_failed(session.client, login.user)
    _log(session, "refused", login.mechanism, user=login.user, reason=reason, by=by)


async def _let_wait(session: Session, asked_at: float) -> None:
    """Until auth.failure_delay after the client's last word, however long the check took."""
    until = asked_at + float(session.services.config.auth.failure_delay)
    await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))


def _log(
    session: Session, result: str, mechanism: str, *, user: str = "", reason: str = "", by: str = ""
) -> None:
    log.auth(
        session=session.id,
        client=f"{session.peer[0]}:{session.peer[1]}",
        result=result,
        mechanism=mechanism,
        user=user,
        reason=reason,
        by=by,
    )


def _by(session: Session) -> str:
    backend = session.services.authenticator.backend
    return "" if backend is None else backend.name
