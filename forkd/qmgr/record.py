"""How do outcomes become durable? First reports on them, then the removal of the message, or a line in its
`.state`."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set

from forkd import log
from forkd.deliver.transport import Result
from forkd.fs import REAL, Fs
from forkd.qmgr.lanes import Finished, Pass
from forkd.qmgr.reporting import NOTHING, Case, Reported, Reporter
from forkd.qmgr.retry import Retry
from forkd.queue import recovery, state
from forkd.queue.format import Damaged
from forkd.queue.outcome import Outcome, bounded
from forkd.queue.recycle import Bin
from forkd.queue.spool import SpoolError
from forkd.queue.state import Attempt
from forkd.smtp.reply import Reply

UNRECORDED_RETRY_S = 30.0
"""When the spool's disk refuses a line or a removal: soon, since the admin is likely at work on it."""


class Recorder:
    """Settles passes. Called in several threads, of one pass in one at a time; has no state of its own.

    root      of the spool
    retry_of  address -> how patient its route is
    """

    def __init__(
        self,
        root: str,
        retry_of: Callable[[str], Retry],
        reporter: Reporter,
        *,
        durable: bool = True,
        fs: Fs = REAL,
    ) -> None:
        self._root = root
        self._retry_of = retry_of
        self._reporter = reporter
        self._durable = durable
        self._fs = fs
        self._bin = Bin(root, fs)

    def settle(self, attempt: Pass) -> Finished:
        """Record what a pass brought; say what becomes of the message. Logs one line per recipient.

        First whoever is to be told is told, durably. All delivered or failed: then the removal of the message
        is the record. Else one line, synced. A pass that was cut short by a stop records what it has, and
        tells nobody yet. Blocks for the syncs of reports and line. Nothing is recorded of one that a client
        waits for: the mail is the client's until it is told.
        """
        message, now = attempt.message, time.time()
        recipients = message.envelope.recipients
        age_s = max(0.0, now - message.envelope.received_at)
        if attempt.tell is not None:
            # It has no age here: whether it comes again is its client's affair.
            outcomes = [_plain(result) for _, result in attempt.results]
            self._log(attempt, outcomes, age_s=age_s, now=now, due=0.0)
            return Finished(gone=True)
        warned = attempt.state.warned
        outcomes = [self._outcome(result, age_s, warned=warned) for _, result in attempt.results]
        known = {i: _settled(i, to.fate) for i, to in enumerate(recipients) if to.fate}
        known.update(attempt.state.last)
        known.update((outcome.recipient, outcome) for outcome in outcomes)
        tried = {outcome.recipient for outcome in outcomes}
        due = self._due(attempt, known, tried, now)
        self._log(attempt, outcomes, age_s=age_s, now=now, due=due)
        said: Reported | None = NOTHING
        if len(attempt.results) < attempt.wanted:
            said = None  # cut short by a stop, or damaged
        elif any(not o.told and (o.status != "delivered" or recipients[i].notify) for i, o in known.items()):
            said = self._report(attempt, known, tried, now)
        if attempt.damage:
            self._append(attempt, now, due, outcomes)
            return self._quarantine(attempt)
        if said is not None:
            earlier = said.told - tried
            if said.told:
                outcomes = [o.as_told() if o.recipient in said.told else o for o in outcomes]
                # An alias' own outcome stands in no line yet.
                outcomes += [known[i].as_told() for i in sorted(earlier - attempt.state.last.keys())]
            if not due:
                return self._remove(attempt, outcomes, said)
            failed = self._append(attempt, now, due, outcomes, earlier & attempt.state.last.keys())
            return dataclasses.replace(failed or Finished(due=due), reports=said.ids)
        if failed := self._append(attempt, now, due, outcomes):
            return failed
        # Nothing but the report is left to do where none waits.
        return Finished(due=due) if due else Finished(due=now + UNRECORDED_RETRY_S, troubled=True)

    def note(self, attempt: Pass) -> None:
        """Of a pass that waits for other destinations yet: write down who has the mail, so that a kill does
        not give it to them twice. Blocks for a sync."""
        before = attempt.state.last
        had = [
            self._outcome(result, 0.0, warned=False)
            for _, result in tuple(attempt.results)
            if result.status == "delivered" and result.target.index not in before
        ]
        if not had:
            return
        attempt.entry.has_state = True
        line = Attempt(at=time.time(), outcomes=tuple(bounded(had)), untried=True)
        try:
            state.append(attempt.message.path, line, attempt.state, durable=self._durable, fs=self._fs)
        except OSError as error:
            why = f"spool: {error.strerror}"
            log.queue_event(act="unrecorded", id=attempt.message.id, detail=why, level="error")

    def stumbled(self, attempt: Pass) -> Finished:
        """After a bug of ours in settle(): whoever has it does not get it again, at least while we live."""
        had = {outcome.recipient: outcome for outcome in attempt.entry.unrecorded}
        # Without what was said: that may be what we stumbled over.
        had.update(
            (result.target.index, Outcome(result.target.index, result.status, "2.0.0", ""))
            for _, result in attempt.results
            if result.status == "delivered"
        )
        attempt.entry.unrecorded = tuple(had.values())
        return Finished(due=time.time() + UNRECORDED_RETRY_S, troubled=True)

    def _report(
        self, attempt: Pass, known: Mapping[int, Outcome], tried: Set[int], now: float
    ) -> Reported | None:
        """Tell whoever is to be told; None: not now, since the spool's disk is full, say.

        Where the message is found damaged, that is noted in the pass.
        """
        message, before = attempt.message, attempt.state
        ended = {**before.ended, **({} if attempt.untried else dict.fromkeys(tried, now))}
        try:
            return self._reporter.report(Case(message, known, ended))
        except Damaged as damage:
            attempt.damage = str(damage)
        except FileNotFoundError:
            return NOTHING  # an admin's rm
        except (OSError, SpoolError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            log.queue_event(act="unreported", id=message.id, detail=f"spool: {why}", level="error")
        return None

    def _due(self, attempt: Pass, known: Mapping[int, Outcome], tried: Set[int], now: float) -> float:
        """When the first of those that wait is due, Unix time; 0: none waits.

        Each has a time of its own, which a restart can tell from the same records.
        """
        state, envelope, first = attempt.state, attempt.message.envelope, math.inf
        for index, recipient in enumerate(envelope.recipients):
            if index in known and known[index].status != "deferred":
                continue
            tries, ended_at = state.tries.get(index, 0), state.ended.get(index, 0.0)
            if index in tried and not attempt.untried:
                tries, ended_at = tries + 1, now
            due = self._retry_of(recipient.address).due_of(
                attempt.message.id, tries, ended_at=ended_at, received_at=envelope.received_at
            )
            first = min(first, due or now)
        return 0.0 if math.isinf(first) else first

    def _outcome(self, result: Result, age_s: float, *, warned: bool) -> Outcome:
        status, enhanced, text = result.status, result.enhanced, result.text
        retry = self._retry_of(result.target.address)
        if status == "deferred" and retry.gives_up(received_at=0.0, now=age_s):
            # RFC 3463 X.4.7: delivery time expired.
            status, enhanced, text = "failed", "5.4.7", f"given up after {age_s / 86_400:.1f} days: {text}"
        return Outcome(
            result.target.index,
            status,
            enhanced,
            text,
            told=warned if status == "deferred" else result.passed_on,
            relayed=result.relayed,
            host=result.host,
            reply=_words(result.reply),
        )

    def _append(
        self,
        attempt: Pass,
        now: float,
        due: float,
        outcomes: Collection[Outcome],
        told: Set[int] = frozenset(),
    ) -> Finished | None:
        """Write the line; a Finished when that could not be done. `told`: of outcomes in earlier lines."""
        entry = attempt.entry
        new = {outcome.recipient: outcome for outcome in entry.unrecorded}
        new.update((outcome.recipient, outcome) for outcome in bounded(outcomes))
        new.update((i, new[i].as_told()) for i in told if i in new)
        told = told - new.keys()
        if not new and not told:
            return None
        line = Attempt(
            at=now,
            next_try_at=due,
            outcomes=tuple(new.values()),
            untried=attempt.untried,
            told=tuple(sorted(told)),
        )
        entry.has_state = True
        try:
            state.append(attempt.message.path, line, attempt.state, durable=self._durable, fs=self._fs)
        except OSError as error:
            entry.unrecorded = (*new.values(), *(attempt.state.last[i].as_told() for i in sorted(told)))
            # Where nothing is lost by it the next hop is not asked more often because our disk is full.
            patient = all(outcome.status == "deferred" and not outcome.told for outcome in entry.unrecorded)
            return self._unrecorded(attempt, error, not_before=due if patient else 0.0)
        entry.unrecorded = ()
        return None

    def _remove(self, attempt: Pass, outcomes: Iterable[Outcome], said: Reported) -> Finished:
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
            last = {**attempt.state.last, **{outcome.recipient: outcome for outcome in outcomes}}
            entry.unrecorded = tuple(o.as_told() if i in said.told else o for i, o in last.items())
            return dataclasses.replace(self._unrecorded(attempt, error), reports=said.ids)
        return Finished(gone=True, reports=said.ids)

    def _quarantine(self, attempt: Pass) -> Finished:
        message = attempt.message
        try:
            recovery.quarantine(self._root, message.path, message.id, attempt.damage, fs=self._fs)
        except OSError as error:
            return self._unrecorded(attempt, error)
        return Finished(gone=True)

    def _unrecorded(self, attempt: Pass, error: OSError, *, not_before: float = 0.0) -> Finished:
        """The outcomes stay in memory: a restart before the disk is well may deliver again (FORMAT.md)."""
        log.queue_event(
            act="unrecorded", id=attempt.message.id, detail=f"spool: {error.strerror}", level="error"
        )
        return Finished(due=max(not_before, time.time() + UNRECORDED_RETRY_S), troubled=True)

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
                host=result.host,
                tls=result.tls,
                session=message.envelope.session,
                attempt=attempt.state.tries.get(outcome.recipient, 0) + 1,
                seconds=now - attempt.started_at,
                age_s=age_s,
                next_try_s=due - now if due and outcome.status == "deferred" else 0.0,
            )


def _plain(result: Result) -> Outcome:
    return Outcome(result.target.index, result.status, result.enhanced, result.text)


def _settled(index: int, fate: str) -> Outcome:
    """Of an alias or a list: its members are recipients of their own."""
    return Outcome(index, "delivered", "2.0.0", fate)


def _words(reply: Reply | None) -> str:
    """What a next hop said, as it said it; lines cut by LF."""
    if reply is None:
        return ""
    return "\n".join(reply.encode(smtputf8=True).decode("utf-8").splitlines())
