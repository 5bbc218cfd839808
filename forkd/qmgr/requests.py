"""What may admin ask of the queue? One function per act; what is not in the table is refused."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from forkd.qmgr.acts import path_of
from forkd.qmgr.manager import Manager
from forkd.qmgr.schedule import Entry, Standing
from forkd.queue import state, stored
from forkd.queue.format import Damaged
from forkd.queue.ids import ID
from forkd.queue.stored import StoredMessage
from forkd.rpc.messages import QueueAnswer, QueueEntry, QueueRequest

ANSWER_BYTES = 40_000
"""Of entries in one answer, so that the record stays below channel.MAX_RECORD_BYTES (65,536)."""

SHOWN_RECIPIENTS = 10
MOST_ENTRIES = 1000

_encode = msgspec.json.Encoder().encode


def answer(manager: Manager, request: QueueRequest, now: float) -> QueueAnswer:
    """Do what is asked and say what came of it. Never raises for the request's content."""
    act = _ACTS.get(request.act)
    if act is None:
        return QueueAnswer(n=request.n, error=f"unknown act {request.act!r}")
    for queue_id in request.ids:
        if not ID.fullmatch(queue_id):
            return QueueAnswer(n=request.n, error=f"{queue_id!r} is not a queue id")
    return act(manager, request, now)


def _list(manager: Manager, request: QueueRequest, _now: float) -> QueueAnswer:
    limit = min(max(1, request.limit), MOST_ENTRIES)
    entries: list[QueueEntry] = []
    size = 0
    more = False
    chosen = manager.schedule.after(request.after, limit + 1)
    for place, entry in enumerate(chosen):
        shown = _entry(manager, entry, detail=False)
        if shown is None:
            continue
        size += len(_encode(shown))
        if place == limit or (size > ANSWER_BYTES and entries):
            more = True
            break
        entries.append(shown)
    return QueueAnswer(n=request.n, entries=tuple(entries), count=len(manager.schedule), more=more)


def _show(manager: Manager, request: QueueRequest, _now: float) -> QueueAnswer:
    if len(request.ids) != 1:
        return QueueAnswer(n=request.n, error="show takes one id")
    entry = manager.schedule.get(request.ids[0])
    shown = None if entry is None else _entry(manager, entry, detail=True)
    if shown is None:
        return QueueAnswer(n=request.n, error=f"{request.ids[0]} is not in the queue")
    return QueueAnswer(n=request.n, entries=(shown,), count=1)


def _remove(manager: Manager, request: QueueRequest, _now: float) -> QueueAnswer:
    if not request.ids:
        return QueueAnswer(n=request.n, error="remove takes ids")
    missing = [queue_id for queue_id in request.ids if not manager.acts.remove(queue_id, request.who)]
    error = f"not in the queue: {', '.join(missing[:20])}" if missing else ""
    return QueueAnswer(n=request.n, count=len(request.ids) - len(missing), error=error)


def _flush(manager: Manager, request: QueueRequest, now: float) -> QueueAnswer:
    if not request.ids:
        return QueueAnswer(n=request.n, count=manager.schedule.flush((), now))
    return _each(request, [(i, _flush_one(manager, i, now)) for i in request.ids])


def _flush_one(manager: Manager, queue_id: str, now: float) -> str:
    """Why there is no try now; empty when there is."""
    entry = manager.schedule.get(queue_id)
    if entry is None:
        return "not in the queue"
    if entry.standing is Standing.HELD:
        return "on hold; it must be released"
    manager.schedule.flush((queue_id,), now)
    return ""  # one that is being tried just now has what was asked for


def _hold(manager: Manager, request: QueueRequest, _now: float) -> QueueAnswer:
    return _each(request, [(i, manager.acts.hold(i, request.who)) for i in request.ids])


def _release(manager: Manager, request: QueueRequest, now: float) -> QueueAnswer:
    return _each(request, [(i, manager.acts.release(i, request.who, now)) for i in request.ids])


def _each(request: QueueRequest, results: list[tuple[str, str]]) -> QueueAnswer:
    """What came of an act on each id: nothing, or why not."""
    if not results:
        return QueueAnswer(n=request.n, error=f"{request.act} takes ids")
    not_done = [f"{queue_id}: {why}" for queue_id, why in results if why]
    return QueueAnswer(n=request.n, count=len(results) - len(not_done), error="; ".join(not_done[:20]))


_ACTS: dict[str, Callable[[Manager, QueueRequest, float], QueueAnswer]] = {
    "list": _list,
    "show": _show,
    "remove": _remove,
    "flush": _flush,
    "hold": _hold,
    "release": _release,
}


def _entry(manager: Manager, entry: Entry, *, detail: bool) -> QueueEntry | None:
    """What the message's files say; None when it has just gone."""
    path = path_of(manager.root, entry)
    try:
        message = stored.load(path, entry.id, fs=manager.fs)
        known = state.load(path, fs=manager.fs)
    except FileNotFoundError:
        return None
    except (Damaged, OSError) as error:
        return QueueEntry(
            id=entry.id, sender="", recipients=(), more_recipients=0, size=0, received_at=0.0, attempts=0,
            next_try_at=entry.due, reason=f"cannot be read: {error}", state=_state_name(entry, 0),
        )  # fmt: skip
    recipients = message.envelope.recipients
    undone = [i for i in range(len(recipients)) if i not in known.last or known.last[i].status != "delivered"]
    reasons = [known.last[i].text for i in undone if i in known.last]
    held = known.held(message.envelope) if entry.standing is not Standing.RUNNING else ""
    if held:
        reasons = [held]
    return QueueEntry(
        id=entry.id,
        sender=message.envelope.sender,
        recipients=tuple(recipients[i].address for i in undone[:SHOWN_RECIPIENTS]),
        more_recipients=max(0, len(undone) - SHOWN_RECIPIENTS),
        size=message.size,
        received_at=message.envelope.received_at,
        attempts=known.attempts,
        next_try_at=0.0 if held or entry.standing is Standing.FAILED else entry.due,
        reason=reasons[0][:500] if reasons else "",
        state=Standing.HELD.value if held else _state_name(entry, known.attempts),
        detail=_detail(message, known) if detail else "",
    )


def _state_name(entry: Entry, attempts: int) -> str:
    if entry.standing is Standing.WAITING and not attempts:
        return Standing.RUNNING.value
    return entry.standing.value


def _detail(message: StoredMessage, known: state.State) -> str:
    """Envelope and outcomes as JSON; where there are too many recipients, the first of them."""
    envelope = message.envelope
    for shown in (len(envelope.recipients), 100, 10):
        indexes = range(min(shown, len(envelope.recipients)))
        detail = {
            "envelope": msgspec.structs.replace(
                envelope, recipients=tuple(envelope.recipients[i] for i in indexes)
            ),
            "recipients": len(envelope.recipients),
            "outcomes": [
                {
                    "recipient": envelope.recipients[i].address,
                    "status": known.last[i].status,
                    "enhanced": known.last[i].enhanced,
                    "text": known.last[i].text,
                }
                for i in indexes
                if i in known.last
            ],
        }
        text = _encode(detail)
        if len(text) <= ANSWER_BYTES:
            return text.decode()
    return ""
