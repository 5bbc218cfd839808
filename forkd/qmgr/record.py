"""How do outcomes become durable? By the message's removal, or by a line in its `.state`."""

from __future__ import annotations

import dataclasses
import functools
import random
import time

from forkd import log
from forkd.deliver.transport import Result
from forkd.fs import REAL, Fs
from forkd.qmgr.lanes import Finished, Pass
from forkd.qmgr.schedule import retry_delay
from forkd.queue import recovery, state
from forkd.queue.recycle import Bin
from forkd.queue.state import Attempt, Outcome

_chance = random.Random().random  # noqa: S311 - spreads retries, guards nothing

UNRECORDED_RETRY_S = 30.0
"""When the spool's disk refuses a line or a removal: soon, since the admin is likely at work on it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """[queue], as far as it decides here; seconds."""

    retry_first_s: float
    retry_max_s: float
    give_up_s: float
    durable: bool = True


class Recorder:
    """Settles passes. Called in the lanes' threads; has no state of its own.

    root    of the spool
    """

    def __init__(self, root: str, policy: Policy, *, fs: Fs = REAL) -> None:
        self._root = root
        self._policy = policy
        self._fs = fs
        self._bin = Bin(root, fs)

    def settle(self, attempt: Pass) -> Finished:
        """Record what a pass brought; say what becomes of the message. Logs one line per recipient.

        All delivered: the removal of the message is the record. Else one line, synced. A pass that was
        cut short by a stop records what it has. Blocks for a sync in the second case. Nothing is recorded of
        one that a client waits for: the mail is the client's until it is told.
        """
        message, now = attempt.message, time.time()
        age_s = max(0.0, now - message.envelope.received_at)
        number = attempt.state.attempts + 1
        if attempt.tell is not None:
            # It has no age here: whether it comes again is its client's affair.
            outcomes = [_plain(result) for _, result in attempt.results]
            self._log(attempt, outcomes, age_s=age_s, now=now, due=0.0)
            return Finished(gone=True)
        outcomes = [self._outcome(result, age_s) for _, result in attempt.results]
        known = dict(attempt.state.last)
        known.update((outcome.recipient, outcome) for outcome in outcomes)
        total = len(message.envelope.recipients)
        delivered = sum(1 for outcome in known.values() if outcome.status == "delivered")
        if delivered == total:
            self._log(attempt, outcomes, age_s=age_s, now=now, due=0.0)
            return self._remove(attempt, tuple(outcomes))
        due = 0.0
        if len(attempt.results) < attempt.wanted:
            # Cut short by a stop, or damaged: the rest was not tried, so it is due as it was.
            due = attempt.entry.due
        elif attempt.postponed or any(outcome.status == "deferred" for outcome in known.values()):
            policy = self._policy
            due = now + retry_delay(
                number, first_s=policy.retry_first_s, most_s=policy.retry_max_s, chance=_chance()
            )
        self._log(attempt, outcomes, age_s=age_s, now=now, due=due)
        recorded = self._append(attempt, now, due, tuple(outcomes))
        if attempt.damage:
            return self._quarantine(attempt)
        if not due:
            log.queue_event(
                act="failed",
                id=message.id,
                level="error",
                detail=f"{total - delivered} of {total} recipients cannot be delivered to; kept in the queue",
            )
        return recorded or Finished(due=due)

    def _outcome(self, result: Result, age_s: float) -> Outcome:
        status, enhanced, text = result.status, result.enhanced, result.text
        if status == "deferred" and age_s > self._policy.give_up_s:
            # RFC 3463 X.4.7: delivery time expired.
            status, enhanced, text = "failed", "5.4.7", f"given up after {age_s / 86_400:.1f} days: {text}"
        return Outcome(result.target.index, status, enhanced, text)

    def _append(
        self, attempt: Pass, now: float, due: float, outcomes: tuple[Outcome, ...]
    ) -> Finished | None:
        """Write the line; a Finished when that could not be done."""
        entry = attempt.entry
        mine = {outcome.recipient for outcome in outcomes}
        all_new = (*(old for old in entry.unrecorded if old.recipient not in mine), *outcomes)
        if not all_new:
            return None
        line = Attempt(at=now, next_try_at=due, outcomes=all_new)
        entry.has_state = True
        try:
            state.append(attempt.message.path, line, attempt.state, durable=self._policy.durable, fs=self._fs)
        except OSError as error:
            entry.unrecorded = all_new
            return self._unrecorded(attempt, error)
        entry.unrecorded = ()
        return None

    def _remove(self, attempt: Pass, outcomes: tuple[Outcome, ...]) -> Finished:
        entry = attempt.entry
        try:
            # A large file would keep a name for nothing: its blocks are freed one way or the other.
            put = (
                functools.partial(self._bin.put, entry.slot, entry.id) if attempt.message.in_memory else None
            )
            state.remove(attempt.message.path, has_state=entry.has_state, put=put, fs=self._fs)
        except FileNotFoundError:
            pass  # an admin's rm, or no .state: gone is gone
        except OSError as error:
            entry.unrecorded = (*entry.unrecorded, *outcomes)
            return self._unrecorded(attempt, error)
        return Finished(gone=True)

    def _quarantine(self, attempt: Pass) -> Finished:
        message = attempt.message
        try:
            recovery.quarantine(self._root, message.path, message.id, attempt.damage, fs=self._fs)
        except OSError as error:
            return self._unrecorded(attempt, error)
        return Finished(gone=True)

    def _unrecorded(self, attempt: Pass, error: OSError) -> Finished:
        """The outcomes stay in memory: a restart before the disk is well may deliver again (FORMAT.md)."""
        log.queue_event(
            act="unrecorded", id=attempt.message.id, detail=f"spool: {error.strerror}", level="error"
        )
        return Finished(due=time.time() + UNRECORDED_RETRY_S)

    def _log(self, attempt: Pass, outcomes: list[Outcome], *, age_s: float, now: float, due: float) -> None:
        message = attempt.message
        for (transport, result), outcome in zip(attempt.results, outcomes, strict=True):
            log.delivery(
                id=message.id,
                recipient=result.target.address,
                transport=transport,
                status=outcome.status,
                enhanced=outcome.enhanced,
                text=outcome.text,
                session=message.envelope.session,
                attempt=attempt.state.attempts + 1,
                seconds=now - attempt.started_at,
                age_s=age_s,
                next_try_s=due - now if due and outcome.status == "deferred" else 0.0,
            )


def _plain(result: Result) -> Outcome:
    return Outcome(result.target.index, result.status, result.enhanced, result.text)
