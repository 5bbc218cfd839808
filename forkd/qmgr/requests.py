"""What may admin ask of the queue? One function per act; what is not in the table is refused.

An act is a generator: what stands between its yields runs on the loop's thread and touches memory only;
what it yields is done on a thread of its own (Requests), which waits for the disk, and nobody for it.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import msgspec

from forkd import log
from forkd.qmgr.acts import NOT_QUEUED
from forkd.qmgr.acts_files import Became, Done, Place, Work, hold, release, remove
from forkd.qmgr.manager import Manager
from forkd.qmgr.requests_filter import chooser
from forkd.qmgr.requests_look import Candidate, look, whole_entry
from forkd.qmgr.requests_pages import PAGE_LOOKS, list_page, stat_page
from forkd.qmgr.schedule import Entry, Schedule, Standing
from forkd.queue.ids import ID, QueueId
from forkd.rpc.messages import QueueAnswer, QueueFilter, QueueRequest

FLUSHED_AT_ONCE = 1000
"""Of a flush of all; below 5 ms."""
SHOWN_PROBLEMS = 20
ORDER_SHARE = 5
"""Putting all ids in order may take 1/5 of its thread's time, however often it is asked for."""
SORTED_AT_ONCE = 20_000
"""Ids; 3 ms."""

Act = Generator[Callable[[], Any], Any, QueueAnswer]
Page = tuple[list[Entry], QueueId, bool]


def in_order(ids: Sequence[QueueId]) -> list[QueueId]:
    """Sorted; of many, merged in Python, which lets the loop's thread have the interpreter in between."""
    if len(ids) <= SORTED_AT_ONCE:
        return sorted(ids)
    parts = [sorted(ids[at : at + SORTED_AT_ONCE]) for at in range(0, len(ids), SORTED_AT_ONCE)]
    return list(heapq.merge(*parts))


class Queue:
    """What acts work on. The loop's thread only, but for `place`, which does not change."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.schedule = manager.schedule
        self.acts = manager.acts
        self.place: Place = manager.acts.place
        self._ids: list[QueueId] = []
        self._ordered_at = float("-inf")
        self._cost_s = 0.0

    def page(self, after: QueueId, limit: int) -> Generator[Callable[[], Any], Any, Page]:
        """The next entries by id, the id to go on after, and whether there are more.

        A listing is of the messages that were there when it began; of these, what has gone is left out.
        """
        now = time.monotonic()
        if not after and now - self._ordered_at > ORDER_SHARE * self._cost_s:
            self._ids = yield functools.partial(in_order, self.schedule.ids())
            self._ordered_at = time.monotonic()
            self._cost_s = self._ordered_at - now
        start = bisect.bisect_right(self._ids, after)
        ids = self._ids[start : start + limit]
        more = start + limit < len(self._ids)
        found = map(self.schedule.get, ids)
        return [entry for entry in found if entry is not None], ids[-1] if ids else after, more

    def candidate(self, entry: Entry) -> Candidate:
        """To be looked at; with what keeps it waiting, where that is its next hop's doing."""
        for at in self.manager.waits_for(entry.id):
            if at.held or at.away:
                said = "held by an admin" if at.held else at.why.text if at.why is not None else "away"
                return Candidate.of(entry, waits_for=f"{at.name or at.transport}: {said}", due=at.probe_at)
        return Candidate.of(entry)


def begin(queue: Queue, request: QueueRequest, now: float) -> Act | QueueAnswer:
    """What is asked for as a generator; or at once why not."""
    if request.destination:
        return _at_destination(queue, request)
    act = _ACTS.get(request.act)
    if act is None:
        return QueueAnswer(n=request.n, error=f"unknown act {request.act!r}")
    for queue_id in (*request.ids, *(request.filter.ids if request.filter else ())):
        if not ID.fullmatch(queue_id):
            return QueueAnswer(n=request.n, error=f"{queue_id!r} is not a queue id")
    return act(queue, request, now)


def _at_destination(queue: Queue, request: QueueRequest) -> QueueAnswer:
    """flush, hold, release of next hops: by their name, as TRANSPORT/NAME, or all of a transport."""
    wanted, manager = request.destination, queue.manager
    known = [(at.transport, at.name) for at in manager.destinations()]
    keys = [key for key in known if wanted in (*key, "/".join(key))]
    if request.act == "flush":
        count = sum(manager.flush_destination(*key) for key in keys)
    elif request.act in ("hold", "release"):
        # A transport of this machine is a destination of its own, also where it has no mail.
        held = request.act == "hold"
        keys = [
            key
            for key in {**dict.fromkeys(keys), (wanted, ""): None}
            if manager.hold_destination(*key, held=held)
        ]
        count = len(keys)
    else:
        return QueueAnswer(n=request.n, error=f"{request.act} takes no destination")
    if not keys:
        return QueueAnswer(n=request.n, error=f"no mail is known to wait for {wanted!r}")
    log.queue_event(act=_DESTINATION[request.act], detail=wanted, count=count, who=request.who)
    return QueueAnswer(n=request.n, count=count)


# --- looking ----------------------------------------------------------------------------------------


def _candidates(
    queue: Queue, request: QueueRequest
) -> Generator[Callable[[], Any], Any, tuple[list[Candidate], QueueId, bool]]:
    named = request.filter.ids if request.filter else ()
    if not named:
        entries, after, more = yield from queue.page(request.after, PAGE_LOOKS)
    else:
        chosen = sorted(i for i in set(named) if i > request.after)
        entries = [entry for i in chosen if (entry := queue.schedule.get(i)) is not None]
        after, more = request.after, False
    return [queue.candidate(entry) for entry in entries], after, more


def _pages(page: Callable[..., QueueAnswer], queue: Queue, request: QueueRequest, _now: float) -> Act:
    candidates, after, more = yield from _candidates(queue, request)
    answer: QueueAnswer = yield functools.partial(
        page, queue.place.root, candidates, request, fs=queue.place.fs
    )
    if not answer.more:
        # All of this page was looked at, also where it ends in messages that have gone.
        answer = msgspec.structs.replace(answer, after=after, more=more)
    return msgspec.structs.replace(answer, count=len(queue.schedule))


def _show(queue: Queue, request: QueueRequest, _now: float) -> Act:
    if len(request.ids) != 1:
        return QueueAnswer(n=request.n, error="show takes one id")
    entry = queue.schedule.get(request.ids[0])
    shown = None
    if entry is not None:
        candidate = queue.candidate(entry)
        shown = yield functools.partial(whole_entry, queue.place.root, candidate, fs=queue.place.fs)
    if shown is None:
        return QueueAnswer(n=request.n, error=f"{request.ids[0]} is not in the queue")
    return QueueAnswer(n=request.n, entries=(shown,), count=1)


# --- acting -----------------------------------------------------------------------------------------


def _act(work: Work, queue: Queue, request: QueueRequest, now: float) -> Act:
    """On those that the filter still fits: the running ones later, the others are lent and worked on."""
    if not request.ids:
        return QueueAnswer(n=request.n, error=f"{request.act} takes ids")
    schedule, acts = queue.schedule, queue.acts
    ids = tuple(dict.fromkeys(request.ids))
    unfit = yield from _unfit(queue, ids, request.filter)
    whys: dict[QueueId, str] = {}
    lent: dict[QueueId, tuple[Entry, Standing]] = {}
    for queue_id in ids:
        entry = schedule.get(queue_id)
        if queue_id in unfit or entry is None:
            whys[queue_id] = unfit.get(queue_id, NOT_QUEUED)
        elif entry.standing is Standing.RUNNING:
            whys[queue_id] = acts.later(entry, work, request.who)
        elif work is hold and entry.standing is Standing.HELD:
            whys[queue_id] = ""
        else:
            lent[queue_id] = entry, acts.lend(entry)
    done: Sequence[Done] = ()
    try:
        messages = [Candidate.of(entry, lent=True) for entry, _ in lent.values()]
        done = yield functools.partial(work, queue.place, messages, request.who)
    finally:
        for place, (queue_id, (entry, standing)) in enumerate(lent.items()):
            if place < len(done):
                whys[queue_id] = done[place][1]
            result = done[place] if place < len(done) else (Became.UNCHANGED, "")
            acts.take_back(entry, standing, result, now)
    return _told(request, ids, whys)


def _unfit(
    queue: Queue, ids: Sequence[QueueId], wanted: QueueFilter | None
) -> Generator[Callable[[], Any], Any, dict[QueueId, str]]:
    """Those that the filter does not fit any more, with that as the reason."""
    if wanted is None:
        return {}
    known = [queue.candidate(entry) for i in ids if (entry := queue.schedule.get(i)) is not None]
    root, fs, fits = queue.place.root, queue.place.fs, chooser(wanted)

    def looking() -> dict[QueueId, str]:
        unfit = {}
        for candidate in known:
            seen = look(root, candidate, fs=fs)
            if seen is not None and not fits(seen):
                unfit[candidate.id] = "not as it was chosen any more"
        return unfit

    unfit: dict[QueueId, str] = yield looking
    return unfit


def _flush(queue: Queue, request: QueueRequest, now: float) -> Act:
    if not request.ids:
        entries, after, more = yield from queue.page(request.after, FLUSHED_AT_ONCE)
        waiting = [entry for entry in entries if entry.standing is Standing.WAITING]
        for entry in waiting:
            queue.schedule.flush_entry(entry, now)
        log.queue_event(act="flushed", count=len(waiting), who=request.who)
        return QueueAnswer(n=request.n, count=len(waiting), seen=len(entries), after=after, more=more)
    ids = tuple(dict.fromkeys(request.ids))
    unfit = yield from _unfit(queue, ids, request.filter)
    whys = {i: unfit.get(i) or _flush_one(queue.schedule, i, now) for i in ids}
    answer = _told(request, ids, whys)
    log.queue_event(act="flushed", count=answer.count, who=request.who)
    return answer


def _flush_one(schedule: Schedule, queue_id: QueueId, now: float) -> str:
    """Why there is no try now; empty when there is."""
    entry = schedule.get(queue_id)
    if entry is None:
        return NOT_QUEUED
    if entry.standing is Standing.HELD:
        return "on hold; it must be released"
    schedule.flush((queue_id,), now)
    return ""  # one that is being tried just now has what was asked for


def _told(request: QueueRequest, ids: Sequence[QueueId], whys: dict[QueueId, str]) -> QueueAnswer:
    """What came of an act: `whys` says of each id why not; empty: done; no word: no time for it."""
    problems = tuple(f"{queue_id}: {whys[queue_id]}" for queue_id in ids if whys.get(queue_id))
    return QueueAnswer(
        n=request.n,
        count=len(whys) - len(problems),
        left=tuple(queue_id for queue_id in ids if queue_id not in whys),
        not_done=problems[:SHOWN_PROBLEMS],
    )


_DESTINATION: Final[dict[str, log.QueueAct]] = {
    "flush": "destination_flush",
    "hold": "destination_hold",
    "release": "destination_release",
}

_ACTS: dict[str, Callable[[Queue, QueueRequest, float], Act | QueueAnswer]] = {
    "count": lambda queue, request, _now: QueueAnswer(n=request.n, count=len(queue.schedule)),
    "list": functools.partial(_pages, list_page),
    "show": _show,
    "stat": functools.partial(_pages, stat_page),
    "remove": functools.partial(_act, remove),
    "bounce": lambda queue, request, now: _act(queue.acts.bounce, queue, request, now),
    "hold": functools.partial(_act, hold),
    "release": functools.partial(_act, release),
    "flush": _flush,
}
