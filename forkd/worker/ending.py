"""How does a session end that its client did not end? With 421, so that he comes again and nothing is lost.

Whoever has a reply to come that makes a message ours, or the next hop's, has it first: a client that is told
421 in its place sends the same mail again. What else is under way (a plugin, a password, a delay) is given
up, and nothing comes of it any more.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from forkd.smtp import replies
from forkd.smtp.reply import Reply, reply
from forkd.smtp.server import State
from forkd.worker import room

if TYPE_CHECKING:
    from forkd.worker.services import Services
    from forkd.worker.session import Session

KICKED = reply(421, "4.3.2", "Connection closed by the administrator, try again later", close=True)

LINGER_S = 2.0
"""For a client to take the 421; then it is cut off."""
NEXT_HOP_S = 30.0
"""For a next hop that has the message (accept = "proxy") to answer, when its client is kicked."""
LAST_S = 0.5
"""For all that is left when the worker's time is over: half of what master waits beyond it
(shutdown.KILL_GRACE_S)."""


def sweep(session: Session, now: float) -> None:
    """Once a second: is this client too late?"""
    if now < session.patience.by:
        return
    if session.closing:
        session.transport.abort()
    elif not session.waiting and session.patience.over(now, session.transaction):
        session.say_and_close(replies.TIMEOUT, "timeout")


def drain(session: Session) -> None:
    """We stop: an idle session ends now, one with a transaction after it (421 4.3.2)."""
    if session.transaction is None and not session.waiting:
        session.say_and_close(replies.SHUTTING_DOWN, "shutdown")


def evict(session: Session) -> bool:
    """Others wait for its sandboxes: end it unless something is under way that does not only wait."""
    if session.committing or session.closing or (session.waiting and not session.patience.tarpitted):
        return False
    session.say_and_close(replies.OVERLOAD_CLOSE, "evicted")
    session.cut_short(only_waits=True)
    return True


def give_way(session: Session) -> None:
    """Others want its place (room.py). Who reads nothing, or does not end TLS, is cut off."""
    session.say_and_close(replies.OVERLOAD_CLOSE, "evicted")
    session.patience.by = time.monotonic() + room.PATIENCE_S
    if session.choked:
        session.transport.abort()
    session.leave()


def kick(session: Session) -> None:
    """An administrator wants it gone, whatever is under way."""
    end(session, KICKED, "kicked", next_hop_s=NEXT_HOP_S)


def end(session: Session, words: Reply, reason: str, *, next_hop_s: float) -> None:
    """End it with these words, as soon as that may be: at once, after a commit, or after the next hop's
    answer, if that comes within `next_hop_s`."""
    if session.committing or session.handing_on:
        session.last_words = words, reason
        session.services.loop.call_later(next_hop_s, _without_the_next_hop, session)
    else:
        at_once(session, words, reason)


def _without_the_next_hop(session: Session) -> None:
    if session.handing_on and session.last_words is not None:
        at_once(session, *session.last_words)


def at_once(session: Session, words: Reply, reason: str) -> None:
    """End it with these words, and give up what is under way."""
    if session.closing or session.transport.is_closing() or session not in session.services.sessions:
        return
    if not hasattr(session, "conn") or session.conn.state is State.TLS:
        session.abort(reason)  # nobody would understand us: a proxy, or a handshake
        return
    session.say_and_close(words, reason)
    session.cut_short()
    session.patience.by = time.monotonic() + LINGER_S


async def end_all(services: Services) -> None:
    """The worker's time is over: 421 to whoever is left. What was handed to the committer is committed, and
    its client told so; who has not taken his last words by then is cut off."""
    sessions = services.sessions
    for session in tuple(sessions):
        end(session, replies.SHUTTING_DOWN, "shutdown", next_hop_s=LAST_S / 2)
    by = time.monotonic() + LAST_S
    while sessions and time.monotonic() < by:
        await asyncio.sleep(0.01)
    services.committer.close()
    if sessions:
        await asyncio.sleep(0.01)  # the last replies go out
    for session in tuple(sessions):
        session.transport.abort()
