"""What does the log hear of a session? Its replies in one line, and its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from forkd import log
from forkd.smtp.reply import Reply

if TYPE_CHECKING:
    from forkd.worker.session import Session


def one_line(reply: Reply) -> str:
    """A reply as the log shows it."""
    return f"{reply.code} {reply.enhanced + ' ' if reply.enhanced else ''}{reply.lines[0]}"


def session_ended(session: Session) -> None:
    """The connection is gone: who it was, how long, what came of it."""
    if not session.told:
        log.debug("a probe's session ended", session=session.id, reason=session.reason or "lost")
        return
    log.session_end(
        session=session.id,
        reason=session.reason or "lost",
        seconds=time.monotonic() - session.started_at,
        listener=session.listener,
        **session.who(),
        messages=session.messages,
        recipients=session.recipients,
        errors=session.errors,
        last_reply="" if session.last_reply is None else one_line(session.last_reply),
        plugins=session.plugins.take_stories(),
    )
