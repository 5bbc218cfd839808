"""What does removing a message with a report do? What giving it up does, by an admin instead of the clock.

The report is committed before the message is removed, by the same code and in the same order as of mail
that failed (record.py, queue/FORMAT.md). Where it cannot be committed the message stays, as one that has
failed and whose sender is to be told.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Sequence
from typing import Final

from forkd import log
from forkd.deliver.transport import Result
from forkd.qmgr.acts_files import ACT_S, Became, Done, Place, sync_folders
from forkd.qmgr.lanes import Finished, Pass
from forkd.qmgr.requests_look import Candidate
from forkd.qmgr.routing import Way
from forkd.queue import state, stored
from forkd.queue.envelope import Envelope
from forkd.queue.format import Damaged
from forkd.queue.ids import QueueId

ENHANCED: Final = "5.0.0"
"""RFC 3463 3.1: no other code says that somebody decided so."""
TEXT: Final = "removed from the queue by the administrator of this mail system"


class Bounce:
    """work() is an acts_files.Work; of messages whose entries are lent to it.

    settle  records a pass (Recorder.settle)
    route   recipients of an envelope, by destination (Routing.route)
    """

    def __init__(
        self, settle: Callable[[Pass], Finished], route: Callable[[Envelope, Sequence[int]], list[Way]]
    ) -> None:
        self._settle = settle
        self._route = route
        self.reports: collections.deque[QueueId] = collections.deque()
        """Committed, and not in the schedule yet."""

    def work(self, place: Place, messages: Sequence[Candidate], who: str) -> list[Done]:
        """Whoever does not have it is told to have failed, and it is removed. A report's syncs each."""
        end, done = time.monotonic() + ACT_S, []
        for message in messages:
            done.append(self._bounce(place, message, who))
            if time.monotonic() >= end:
                break
        gone = [each for each, (became, _) in zip(messages, done, strict=False) if became is Became.GONE]
        if place.durable:
            sync_folders({each.slot: each.path(place.root) for each in gone}.values(), place.fs)
        return done

    def _bounce(self, place: Place, candidate: Candidate, who: str) -> Done:
        entry, path = candidate.lent, candidate.path(place.root)
        assert entry is not None, "it is somebody else's"
        try:
            message = stored.load(path, candidate.id, fs=place.fs)
            known = state.load(path, fs=place.fs)
        except FileNotFoundError:
            return Became.GONE, ""
        except (Damaged, OSError) as error:
            return Became.UNCHANGED, f"cannot be read: {error}"
        for outcome in entry.unrecorded:
            known.last[outcome.recipient] = outcome
        attempt = Pass(entry, message, known, time.time())
        attempt.untried = True
        attempt.results = [
            (way.transport.name, Result(target, "failed", ENHANCED, TEXT))
            for way in self._route(message.envelope, known.open(message.envelope.recipients))
            for target in way.targets
        ]
        attempt.wanted = len(attempt.results)
        finished = self._settle(attempt)
        self.reports.extend(finished.reports)
        if not finished.gone:
            entry.due = finished.due
            log.queue_event(act="not_removed", id=message.id, who=who, detail=_LATER, level="error")
            return Became.UNCHANGED, _LATER
        log.queue_event(act="bounced", id=message.id, who=who)
        return Became.GONE, ""


_LATER: Final = "not removed yet: its report cannot be written now"
