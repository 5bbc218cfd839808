"""How does everything end? By the stop phases of the roles' table, each gone before the next is told.

Begun once; it can be made sooner, never later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Literal

from forkd import log
from forkd.master.errors import StartError
from forkd.master.place import Place
from forkd.master.pool import State
from forkd.master.roster import Roster
from forkd.master.watch import Watch

FAILED_START_STOP_S = 3.0
"""Nobody is served yet: what was started already may end quickly."""

KILL_GRACE_S = 1.0
"""Beyond the limit that a role was told, so that it can end by itself at that limit."""


class Shutdown:
    """The way down, from begin() until over.

    how      running until it has begun; then stopping (within a limit) or draining (without)
    failure  of the start-up, where that is why
    """

    def __init__(self, roster: Roster, watch: Watch) -> None:
        self._roster = roster
        self._watch = watch
        self._phases: list[int] = []
        self._limit_s: float | None = None
        self._unheard: dict[Place, tuple[float | None, bool]] = {}
        """Until when, gently: whom it could not be said to, since he did not read."""
        self.how: Literal["running", "stopping", "draining"] = "running"
        self.failure: StartError | None = None

    @property
    def begun(self) -> bool:
        """Nothing new is begun with any more."""
        return self.how != "running"

    @property
    def over(self) -> bool:
        """Nobody is left."""
        return self.begun and all(place.slot.state is State.GONE for place in self._roster)

    def begin(self, limit_s: float | None, why: str) -> bool:
        """Begin; or, when that has been done, make it sooner. True: it was the first time."""
        first = not self.begun
        if not first and (limit_s is None or (self._limit_s is not None and self._limit_s <= limit_s)):
            return False
        if first:
            self._phases = sorted({place.role.stop_phase for place in self._roster})
        self._limit_s = limit_s
        self.how = "draining" if limit_s is None else "stopping"
        log.service(act=self.how, detail=why)
        # The phase under way may have begun without a limit, or with a longer one: it is told again.
        self._tell(time.monotonic())
        return first

    def fail(self, failure: StartError) -> bool:
        """Start-up is over. The first failure is told, the rest follows from it. As begin()."""
        if self.failure is not None:
            return False
        self.failure = failure
        return self.begin(FAILED_START_STOP_S, "start-up failed")

    def at_once(self, why: str) -> bool:
        """Kill everything: sessions are lost, and no message that was accepted. As begin()."""
        first = self.begin(0.0, why)
        self._phases.clear()
        now = time.monotonic()
        for place in self._roster:
            place.slot.stop(now)
            if place.child is not None and not place.slot.killed:
                place.slot.killed = True
                _kill(place)
        return first

    def go_on(self, now: float) -> None:
        """Tell the next phase when the one before it is gone."""
        while self._phases:
            phase = self._phases[0]
            if any(p.slot.state is not State.GONE for p in self._roster if p.role.stop_phase == phase):
                return
            self._phases.pop(0)
            self._tell(now)

    def abandon(self) -> None:
        """Kill and reap all that is left."""
        for place in self._roster:
            _kill(place)
        for place in self._roster:
            if place.child is not None:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(place.child.pid, 0)
                with contextlib.suppress(OSError):
                    place.child.close()

    def _tell(self, now: float) -> None:
        for place in self._roster:
            if not self._phases or place.role.stop_phase != self._phases[0]:
                continue
            limit_s = self._limit_s if place.role.stop_limit_s is None else place.role.stop_limit_s
            if self.failure is not None:
                limit_s = FAILED_START_STOP_S
            self.tell(place, limit_s, now)

    def tell(self, place: Place, limit_s: float | None, now: float, *, gently: bool = False) -> None:
        """Tell one place's process to end (Supervisor.let_go)."""
        place.slot.stop(None if limit_s is None else now + limit_s + KILL_GRACE_S)
        if place.child is not None:
            if place.child.channel is not None and place.role.starter == "zygote":
                self._watch.remove(place.child.channel.fileno())
            self._unheard[place] = (None if limit_s is None else now + limit_s, gently)
            self._say(place, now)

    def say_again(self, now: float) -> None:
        """Tell those once more who did not read until now: called with each turn of the loop."""
        for place in tuple(self._unheard):
            self._say(place, now)

    def _say(self, place: Place, now: float) -> None:
        until, gently = self._unheard[place]
        limit_s = None if until is None else max(0.0, until - now)
        if place.child is None or place.child.stop(limit_s, gently=gently):
            del self._unheard[place]


def _kill(place: Place) -> None:
    """Where all have to go: whatever goes wrong with one of them, the next one's turn comes."""
    if place.child is None:
        return
    try:
        place.child.kill()
    except Exception as error:
        log.bug(where=place.shown, error=error)
        with contextlib.suppress(OSError):
            os.kill(place.child.pid, signal.SIGKILL)
