"""When is a process started, replaced, waited for, or killed? Pure: values and `now` in, values out.

`now` is monotonic seconds. The states of a slot, after supervisor's process.py:

    WAITING --start--> STARTING --ready--> RUNNING --stop--> DRAINING --exit--> GONE
       ^                  |                   |
       +------exit--------+-------exit--------+          (and stop: WAITING -> GONE, STARTING -> DRAINING)

A death is answered after a delay that doubles with each death that came soon after the start, so there
is never a hot loop. A process that had become ready did serve: its delay stays below READY_DELAY_MAX_S,
so that somebody who kills one worker a second, or a bug that hits one session in a thousand, does not
take the service down. One that never became ready waits up to DELAY_MAX_S.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence

FIRST_DELAY_S = 0.1
READY_DELAY_MAX_S = 1.0
DELAY_MAX_S = 30.0
HANG_UP_S = 2.0
"""From closing its channel to its death."""
TURN_S, HELD_UP_S = 1.0, 1.5
"""Master's loop goes round at least so often; where a turn took so long, it was held up itself."""
STEADY_S = 10.0
"""Who lived for so long after being ready starts with a clean slate."""


class State(enum.Enum):
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    GONE = "gone"


_NEXT: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.STARTING, State.WAITING, State.GONE}),
    State.STARTING: frozenset({State.RUNNING, State.DRAINING, State.WAITING}),
    State.RUNNING: frozenset({State.DRAINING, State.WAITING}),
    State.DRAINING: frozenset({State.GONE}),
    State.GONE: frozenset(),
}

ALIVE = frozenset({State.STARTING, State.RUNNING, State.DRAINING})


@dataclasses.dataclass(slots=True, eq=False)
class Slot:
    """One place for one process at a time.

    start_limit_s  from start to ready, then it is killed
    beat_limit_s   between two heartbeats once ready, then it is killed; 0: it sends none
    """

    role: str
    number: int
    name: str = ""
    start_limit_s: float = 30.0
    beat_limit_s: float = 0.0
    state: State = State.WAITING
    pid: int = 0
    due_at: float = 0.0
    started_at: float = 0.0
    ready_at: float = 0.0
    beat_at: float = 0.0
    kill_at: float | None = None
    kill_by_beat: bool = False
    """While draining without a limit."""
    killed: bool = False
    deaths: int = 0
    """In a row, each soon after its start."""
    starts: int = 0
    last_end: str = ""
    """How and why the process that was here before ended, or could not be made."""
    last_end_at: float = 0.0
    distrusted: bool = False
    """Its process did what it must not: the next one waits as if it had never served."""

    @property
    def alive(self) -> bool:
        """A process is there, or its death has not been seen yet."""
        return self.state in ALIVE

    @property
    def restarts(self) -> int:
        """How often this place was filled anew."""
        return max(0, self.starts - 1)

    def _move(self, state: State) -> None:
        assert state in _NEXT[self.state], f"{self.role}.{self.number}: {self.state} -> {state}"
        self.state = state

    def start(self, pid: int, now: float) -> None:
        """A process was started here."""
        self._move(State.STARTING)
        self.pid = pid
        self.started_at = now
        self.ready_at = 0.0
        self.kill_at = now + self.start_limit_s
        self.killed = self.kill_by_beat = False
        self.starts += 1

    def ready(self, now: float) -> None:
        """It says that it works. Said again, or while draining: ignored."""
        if self.state is State.STARTING:
            self._move(State.RUNNING)
            self.ready_at = self.beat_at = now
            self.kill_at = now + self.beat_limit_s if self.beat_limit_s else None

    def beat(self, now: float) -> None:
        """Its loop went round."""
        self.beat_at = now
        if self.beat_limit_s and (self.state is State.RUNNING or self.kill_by_beat):
            self.kill_at = now + self.beat_limit_s

    def limit(self, start_limit_s: float, beat_limit_s: float) -> None:
        """From now on these hold, also for who runs here; who is just starting has the time it was given."""
        self.start_limit_s, self.beat_limit_s = start_limit_s, beat_limit_s
        if beat_limit_s and self.state is State.RUNNING and self.kill_at is not None:
            self.kill_at = min(self.kill_at, self.beat_at + beat_limit_s)  # a longer one comes with its beat

    def excuse(self, held_s: float, now: float) -> None:
        """Neither it nor master ran for so long: what it was given to start, to beat or to end goes on from
        here."""
        beats = self.state is State.RUNNING or (self.kill_by_beat and self.ready_at)
        if self.beat_limit_s and beats:
            self.beat(now)
        elif self.alive and self.kill_at is not None:
            self.kill_at += held_s

    def hung_up(self, now: float) -> None:
        """It closed its channel: it is about to exit, or will never be heard of again."""
        limit = now + HANG_UP_S
        self.kill_at = limit if self.kill_at is None else min(self.kill_at, limit)

    def distrust(self) -> None:
        """What is or was here must not come back soon."""
        self.distrusted = self.alive

    def stop(self, kill_at: float | None) -> bool:
        """It shall end, by itself until `kill_at` (None: no limit). True when there is one to be told."""
        if self.state is State.WAITING:
            self._move(State.GONE)
            return False
        told = self.state is not State.DRAINING
        if self.state in (State.STARTING, State.RUNNING):
            self._move(State.DRAINING)
            self.kill_at = None
        if self.state is State.DRAINING:
            # Without a limit a loop that stands still must be found all the same.
            self.kill_by_beat = kill_at is None and self.beat_limit_s > 0
            self.kill_at = self.beat_at + self.beat_limit_s if self.kill_by_beat else kill_at
            if self.kill_by_beat and not self.ready_at:
                self.kill_at = self.started_at + self.start_limit_s
            return told
        return False

    def exited(self, now: float) -> float:
        """It is dead. Returns the delay after which it is due again; 0 with GONE when it was stopped."""
        self.pid = 0
        self.kill_at = None
        if self.state is State.DRAINING:
            self._move(State.GONE)
            return 0.0
        was_ready = self.state is State.RUNNING and not self.distrusted
        self.distrusted = False
        if was_ready and now - self.ready_at >= STEADY_S:
            self.deaths = 0
        self.deaths += 1
        self._move(State.WAITING)
        delay_s = _delay_s(self.deaths, READY_DELAY_MAX_S if was_ready else DELAY_MAX_S)
        self.due_at = now + delay_s
        return delay_s

    def not_started(self, now: float, why: str = "") -> float:
        """The start itself failed (no memory, no process ids): as a death before being ready."""
        self.last_end, self.last_end_at = why, now
        self.deaths += 1
        delay_s = _delay_s(self.deaths, DELAY_MAX_S)
        self.due_at = now + delay_s
        return delay_s

    def late(self, now: float) -> str:
        """Why it must be killed now; empty: it need not. Said once: the kill is then under way."""
        if not self.alive or self.killed or self.kill_at is None or now < self.kill_at:
            return ""
        self.killed = True
        match self.state:
            case State.STARTING if now - self.started_at < self.start_limit_s:
                return "closed its channel"
            case State.STARTING:
                return f"not ready within {self.start_limit_s:g} s"
            case State.RUNNING if not self.beat_limit_s or now - self.beat_at < self.beat_limit_s:
                return "closed its channel"
            case State.RUNNING:
                return f"no heartbeat for {now - self.beat_at:.1f} s"
            case _ if self.kill_by_beat:
                return f"no heartbeat for {now - self.beat_at:.1f} s while draining"
            case _:
                return "did not stop in time"


def _delay_s(deaths: int, longest_s: float) -> float:
    return min(FIRST_DELAY_S * 2.0 ** min(deaths - 1, 20), longest_s)


def due(slots: Iterable[Slot], now: float) -> list[Slot]:
    """The slots to be filled now."""
    return [slot for slot in slots if slot.state is State.WAITING and slot.due_at <= now]


def excuse(slots: Iterable[Slot], since: float, now: float) -> None:
    """Master's last turn began at `since`. Where it was held up, so were all of us, as a rule (a container
    that is paused, a machine out of memory): nobody could beat, begin or end; held against nobody."""
    if now - since > HELD_UP_S:
        for slot in slots:
            slot.excuse(now - since, now)


def next_change(slots: Sequence[Slot]) -> float | None:
    """When the clock alone makes something due or late; None: never."""
    moments = [slot.due_at for slot in slots if slot.state is State.WAITING]
    moments += [slot.kill_at for slot in slots if slot.alive and not slot.killed and slot.kill_at is not None]
    return min(moments, default=None)
