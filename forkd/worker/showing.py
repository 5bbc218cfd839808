"""What do admins see of a session? Its state in a word, and its entry; which are meant, in which order."""

from __future__ import annotations

import heapq
import ipaddress
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from forkd.rpc.messages_sessions import (
    MAX_TEXT,
    AskSessions,
    SessionEntry,
    SessionFilter,
    Sort,
    State,
)
from forkd.smtp.server import State as Engine

if TYPE_CHECKING:
    from forkd.worker.session import Session

_SORTS: dict[Sort, Callable[[Session], Any]] = {
    "age": lambda session: session.started_at,
    "idle": lambda session: session.patience.heard_at,
    "client": lambda session: (session.address.version, session.address),
    "messages": lambda session: -session.messages,
    "errors": lambda session: -session.errors,
    "octets": lambda session: -session.transaction.size if session.transaction is not None else 0,
}
"""What comes first has the least."""


def choose(sessions: Collection[Session], request: AskSessions, now: float) -> tuple[list[Session], int]:
    """(the first ones in that order, how many there are that fit).

    Cost: of 10,000 sessions 2 ms, 5 ms with a filter; an entry 2 µs.
    """
    fits = _filter(request.filter, now)
    fitting = [session for session in sessions if fits(session)] if fits is not None else sessions
    key = _SORTS[request.sort]
    return heapq.nsmallest(request.limit, fitting, key=key), len(fitting)


def _filter(wanted: SessionFilter, now: float) -> Callable[[Session], bool] | None:
    """The tests that are asked for, the cheap ones first; None: there are none."""
    tests: list[Callable[[Session], bool]] = []
    if wanted.ids:
        ids = frozenset(wanted.ids)
        tests.append(lambda session: session.id in ids)
    if wanted.listener:
        tests.append(lambda session: session.listener == wanted.listener)
    if wanted.user:
        tests.append(lambda session: session.user == wanted.user)
    if wanted.age:
        tests.append(lambda session: now - session.started_at >= wanted.age)
    if wanted.idle:
        tests.append(lambda session: now - session.patience.heard_at >= wanted.idle)
    if wanted.client:
        network = ipaddress.ip_network(wanted.client, strict=False)
        tests.append(lambda session: session.address in network)
    if wanted.state:
        states = frozenset(wanted.state)
        tests.append(lambda session: state(session)[0] in states)
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda session: all(test(session) for test in tests)


def state(session: Session) -> tuple[State, str]:
    """(state, what it waits for in it)."""
    if session.transport.is_closing():
        return "closing", ""
    if session.committing:
        return "commit", ""
    if session.waiting:
        return _waiting(session)
    engine = session.conn.state
    if engine in (Engine.DATA, Engine.CHUNKS):
        return "data", ""
    if engine is Engine.AUTH:
        return "auth", ""
    return ("idle" if session.transaction is None else "mail"), ""


def _waiting(session: Session) -> tuple[State, str]:
    if asked := session.plugins.asking:
        return "plugin", asked
    engine = session.conn.state if hasattr(session, "conn") else None
    if engine is Engine.TLS:
        return "tls", ""
    if engine in (None, Engine.GREETING):
        return "connect", ""
    return ("tarpit" if session.patience.tarpitted else "wait"), ""


def entry(session: Session, now: float) -> SessionEntry:
    """All that is shown of it."""
    word, asked = state(session)
    tls, transaction = session.tls, session.transaction
    mail: dict[str, Any] = {}
    if transaction is not None:
        mail = {
            "mail": True,
            "sender": _cut("" if transaction.sender is None else str(transaction.sender)),
            "recipients": len(transaction.recipients) + len(transaction.dropped),
            "octets": transaction.size,
        }
    return SessionEntry(
        id=session.id,
        client=session.peer[0],
        port=session.peer[1],
        listener=_cut(session.listener),
        state=word,
        asked=_cut(asked),
        age_s=max(0.0, now - session.started_at),
        idle_s=max(0.0, now - session.patience.heard_at),
        name=_cut(session.client_name),
        helo=_cut(session.helo),
        user=_cut(session.user),
        tls="" if tls is None else _cut(f"{tls.version} {tls.cipher}"),
        messages=session.messages,
        errors=session.errors,
        **mail,
    )


def _cut(text: str) -> str:
    return text[:MAX_TEXT]
