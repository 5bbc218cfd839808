"""How many workers should there be, and whose time is over? Pure: values and `now` in, values out.

`now` is monotonic seconds. What is known of a worker is what it said last (rpc.messages_pool.Heartbeat), and
it is believed: by a lie it gains no more than by serving badly.

    one more     fewer of the running workers' places are free than pool.spare, or all of them together are
                 busier than pool.busy for BUSY_S. One at a time: it serves before the next is thought of
    one fewer    without one there would be half the sessions and half the work that call for another, all the
                 time for pool.idle. The one with the fewest sessions goes, gently
    a successor  a worker has served pool.retire_sessions, or has pool.retire_memory. One at a time: its
                 successor serves before it is told to go. A young one stays whatever it says, so that workers
                 which are too large from the start are replaced slowly, not in a hot loop

The number of those that serve stays between pool.min and server.workers; who goes is not counted, and for a
moment there are a worker and its successor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

BUSY_S = 3.0
"""One heartbeat a second: three of them, so that a burst starts nobody who comes when it is over."""
YOUNG_S = 20.0
"""How long a worker lives at least before it may be retired."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """[pool], with server.workers counted out. Shares are 0 to 1."""

    least: int
    most: int
    spare: float
    busy: float
    idle_s: float
    retire_sessions: int
    retire_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One worker that serves, as it said last.

    number     of its slot
    since      when it was ready
    places     sessions it may have
    """

    number: int
    since: float
    places: int
    sessions: int = 0
    busy: float = 0.0
    served: int = 0
    memory: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What is to be done, and why; for the log.

    add     start so many more
    drain   this one is to end, by its number; None: nobody
    """

    add: int = 0
    drain: int | None = None
    why: str = ""


NOTHING = Change()


class Sizing:
    """Remembers since when something has been so; asked in every turn of master's loop."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._busy_since: float | None = None
        self._idle_since: float | None = None
        self._retiring: int | None = None
        self._beside = 0
        """So many served when its successor was called for, itself among them."""

    def decide(self, seen: Sequence[Seen], coming: int, now: float) -> Change:
        """What to do now.

        seen    those that serve and have not been told to end
        coming  those that are being started, or wait for that after a death
        """
        policy, count = self._policy, len(seen)
        busy = self._lasts_busy(seen, now)
        idle = self._lasts_idle(seen, coming, now)
        if self._retiring not in {worker.number for worker in seen}:
            self._retiring = None
        if coming or not seen:
            return NOTHING  # what they change is seen when they serve
        if count < policy.least:
            return Change(add=policy.least - count, why=f"{count} of pool.min {policy.least} serve")
        if self._retiring is not None:
            if count > self._beside:
                number, self._retiring = self._retiring, None
                return Change(drain=number, why="its successor serves")
            return Change(add=1, why=f"successor of worker {self._retiring}")
        if count > policy.most:
            return self._go(seen, f"server.workers is {policy.most}")
        if count < policy.most:
            free, places = _free(seen), _places(seen)
            if free < policy.spare * places:
                return Change(add=1, why=f"{free} of {places} places are free")
            if busy:
                self._busy_since = None
                return Change(add=1, why=f"{count} workers are busy, {_busy(seen):.0%} of a processor each")
        if idle:
            self._idle_since = None
            return self._go(seen, f"{count - 1} would have been enough for {policy.idle_s:g} s")
        return self._retire(seen, now)

    def elsewhere(self, seen: Sequence[Seen], *, soon: int, late: int, number: int) -> bool:
        """Is there room for those whom worker `number` has no place for, or will be in a moment?

        soon    those that are coming and have not failed to
        late    those that have: nobody waits for them
        """
        if any(worker.sessions < worker.places for worker in seen if worker.number != number):
            return True
        return bool(soon) or (not late and len(seen) < self._policy.most)

    # --- the rules --------------------------------------------------------------------------------------

    def _lasts_busy(self, seen: Sequence[Seen], now: float) -> bool:
        if not seen or _busy(seen) < self._policy.busy:
            self._busy_since = None
            return False
        if self._busy_since is None:
            self._busy_since = now
        return now - self._busy_since >= BUSY_S

    def _lasts_idle(self, seen: Sequence[Seen], coming: int, now: float) -> bool:
        if coming or len(seen) <= self._policy.least or not self._one_too_many(seen):
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since >= self._policy.idle_s

    def _one_too_many(self, seen: Sequence[Seen]) -> bool:
        """Would one fewer be enough, by a margin?"""
        policy, left = self._policy, len(seen) - 1
        sessions, busy = sum(worker.sessions for worker in seen), sum(worker.busy for worker in seen)
        places = _places(seen) / len(seen) * left
        # Half of what would call for another: twice the spare share can be more than all there are.
        used = (1 - policy.spare) / 2
        return left > 0 and sessions <= used * places and busy <= policy.busy / 2 * left

    def _go(self, seen: Sequence[Seen], why: str) -> Change:
        """The one with the fewest sessions; of several the one that came last."""
        leaver = min(seen, key=lambda worker: (worker.sessions, -worker.since))
        return Change(drain=leaver.number, why=why)

    def _retire(self, seen: Sequence[Seen], now: float) -> Change:
        policy = self._policy
        for worker in sorted(seen, key=lambda each: each.since):
            if now - worker.since < YOUNG_S:
                continue
            if 0 < policy.retire_sessions <= worker.served:
                why = f"it has served {worker.served} sessions"
            elif 0 < policy.retire_bytes <= worker.memory:
                why = f"it has {worker.memory >> 20} MiB of its own"
            else:
                continue
            self._retiring, self._beside = worker.number, len(seen)
            return Change(add=1, why=f"successor of worker {worker.number}: {why}")
        return NOTHING


def _places(seen: Sequence[Seen]) -> int:
    return sum(worker.places for worker in seen)


def _free(seen: Sequence[Seen]) -> int:
    return sum(max(0, worker.places - worker.sessions) for worker in seen)


def _busy(seen: Sequence[Seen]) -> float:
    """Of each of them, on average."""
    return sum(worker.busy for worker in seen) / len(seen)
