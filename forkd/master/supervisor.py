"""The loop: what happened, what is due, what is late? One thread; nothing in it waits but poll.

It has a roster of places (roster.py) and does the same to all: start what is due, hear what they say, kill
what is late, reap what is dead. Starting and stopping go by the phases of the roles' table; what comes and
goes between them, add() and let_go() bring and end, for whoever has an opinion (Task): a reload, the pool.
"""

from __future__ import annotations

import functools
import math
import signal
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec
import setproctitle

from forkd import log
from forkd.master import pool, status
from forkd.master.certificates import Certificates
from forkd.master.child import Child
from forkd.master.errors import StartError
from forkd.master.hearing import Asked, Hearing
from forkd.master.lives import Lives
from forkd.master.notify import Notifier
from forkd.master.place import Place
from forkd.master.pool import State
from forkd.master.refusals import Refusals
from forkd.master.roster import Roster
from forkd.master.shutdown import Shutdown
from forkd.master.signals import Signals
from forkd.master.trust import Trust
from forkd.master.watch import Watch
from forkd.rpc.messages import AskStop, Done
from forkd.rpc.messages_reload import AskReload, Reloaded
from forkd.rpc.messages_status import AskStatus


class Task(Protocol):
    """What else goes on in the loop while the service is up; it must not block.

    due   monotonic time at which look() should be called at the latest; None: whenever
    look  called with each turn of the loop, once the service is up and until it is told to stop
    """

    @property
    def due(self) -> float | None: ...
    def look(self, now: float, /) -> None: ...


class Reloader(Protocol):
    """Who reads the configuration anew (reload.py).

    busy  he is about it
    """

    @property
    def busy(self) -> bool: ...
    def ask(self, who: str, tell: Callable[[Reloaded], None], /, *, may_wait: bool) -> None: ...
    def stopping(self) -> None: ...


class Supervisor:
    """From run() to its return: everything in `roster` is alive, or waited for, or being stopped.

    service       what `forkd status` is told beside the places
    on_ready      called once, when every place of every phase is ready
    certificates  looked at when they are due; workers are told what changed
    refusals      likewise, when the kernel refused a plugin's system call
    """

    def __init__(
        self,
        roster: Roster,
        *,
        signals: Signals,
        notifier: Notifier,
        service: status.Service,
        stop_timeout_s: float,
        on_ready: Callable[[], None] = lambda: None,
        certificates: Certificates | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self.roster = roster
        self.tasks: list[Task] = []
        self.reloader: Reloader | None = None
        self.service = service
        self.stop_timeout_s = stop_timeout_s
        self.certificates = certificates
        self._signals = signals
        self._notifier = notifier
        self._on_ready = on_ready
        self._started = False
        self._start_phases = sorted({place.role.start_phase for place in roster})
        self._interrupts = 0
        self._watch = Watch()
        self._watch.add(signals.descriptor, self._on_signals)
        self._down = Shutdown(roster, self._watch)
        self._trust = Trust(roster)
        self._hearing = Hearing(
            self._watch, self._trust, starting=lambda: self._state == "starting", asked=self._asked
        )
        self._lives = Lives(roster, self._hearing, self._trust, state=lambda: self._state, fail=self._fail)
        self._refusals = refusals
        if refusals is not None:
            self._watch.add(refusals.descriptor, self._on_refusals)

    def run(self) -> None:
        """Start everything, keep it alive, return when all of it has been stopped by signal or request.

        Raises StartError when a place failed before all were ready; everything is stopped by then.
        """
        self._title()
        if not len(self.roster):
            self._ready()
        now = time.monotonic()
        while True:
            self._manage(now)
            if self._down.over:
                break
            since, now = now, self._watch.wait(self._timeout_ms(time.monotonic()))
            pool.excuse((place.slot for place in self.roster), since, now)
            log.flush()
        if self._down.failure is not None:
            raise self._down.failure

    def abandon(self) -> None:
        """Kill and reap all that is left: the way out when run() raised something unforeseen."""
        self._down.abandon()

    # --- places come and go ---------------------------------------------------------------------------

    def add(self, places: Iterable[Place]) -> bool:
        """From now on these are kept alive too; their processes are started with the next turn, whatever
        their roles' phases. False: we stop, and nothing new is begun with."""
        if self._down.begun:
            return False
        for place in places:
            self.roster.add(place)
        return True

    def let_go(self, place: Place, limit_s: float | None = None, *, gently: bool = False) -> None:
        """Tell what is there to end; nothing is started there any more, and the place vanishes with it.

        limit_s  as Stop.deadline_s: then it is killed; None: as long as it takes, while its loop goes round
        gently   sessions that are there go on (rpc.messages_pool.Stop)
        May be called again, with a shorter limit. A place without a process vanishes with the next turn.
        """
        if self._down.begun:
            return  # it has been told, or will be when its phase comes
        self._down.tell(place, limit_s, time.monotonic(), gently=gently)

    def _sweep(self) -> None:
        for place in self.roster:
            if place.slot.state is State.GONE:
                self.roster.vanish(place)
                place.on_gone()

    # --- what the clock says --------------------------------------------------------------------------

    @property
    def _state(self) -> str:
        """Starting | running | stopping | draining."""
        return self._down.how if self._down.begun or self._started else "starting"

    def _manage(self, now: float) -> None:
        for place in self.roster:
            if (why := place.slot.late(now)) and place.child is not None:
                place.kill(why)
            self._hearing.resume(place, now)
        self._sweep()
        self._down.say_again(now)
        if self._down.begun:
            self._down.go_on(now)
        elif not self._started:
            self._start_by_phases()
        else:
            for task in self.tasks:
                task.look(now)
        self._start_due(now)
        self._trust.look(now)
        self._look_at_certificates(now)
        self._notifier.look(now, self._told)

    def _timeout_ms(self, now: float) -> int:
        moments = [now + pool.TURN_S, pool.next_change([place.slot for place in self.roster])]
        moments.append(self._notifier.due)
        if self.certificates is not None:
            moments.append(self.certificates.due)
        moments += [self._trust.due, *(task.due for task in self.tasks if self._state == "running")]
        moments += [place.output.resume_at for place in self.roster if place.output is not None]
        if not log.flush():
            moments.append(now + 0.5)
        first = min(moment for moment in moments if moment is not None)
        # Rounded up: a poll that returns a little early would find nothing to do and spin.
        return max(0, math.ceil((first - now) * 1000))

    def _start_due(self, now: float) -> None:
        for slot in pool.due([place.slot for place in self.roster if self._may_start(place)], now):
            place = next(place for place in self.roster if place.slot is slot)
            self._lives.start(place, now)

    def _may_start(self, place: Place) -> bool:
        if self._down.failure is not None:
            return False
        if self._state == "starting":
            return bool(self._start_phases) and place.role.start_phase <= self._start_phases[0]
        # While workers drain, who serves them is still replaced; who never ran is not begun with.
        return not self._down.begun or place.slot.starts > 0

    def _start_by_phases(self) -> None:
        while self._start_phases:
            phase = self._start_phases[0]
            if any(p.slot.state is not State.RUNNING for p in self.roster if p.role.start_phase <= phase):
                return
            self._start_phases.pop(0)
        if self.roster:
            self._ready()

    def _ready(self) -> None:
        self._started = True
        self._title()
        self._notifier.ready()
        self._on_ready()

    def _look_at_certificates(self, now: float) -> None:
        due = None if self.certificates is None else self.certificates.due
        if self.certificates is not None and due is not None and now >= due:
            children = [place.child for place in self.roster if place.child is not None]
            self.certificates.look(now, children)

    def _told(self) -> str:
        sessions = sum(place.said.sessions for place in self.roster if place.said and place.slot.alive)
        alive = sum(place.slot.alive for place in self.roster)
        return f"{self._state}: {sessions} sessions, {alive} of {len(self.roster)} processes"

    # --- the way down ---------------------------------------------------------------------------------

    def _stop(self, limit_s: float | None, why: str) -> None:
        self._going_down(self._down.begin(limit_s, why))

    def _fail(self, failure: StartError) -> None:
        self._going_down(self._down.fail(failure))

    def _going_down(self, now: bool) -> None:
        if now:
            if self.reloader is not None:
                self.reloader.stopping()
            self._notifier.stopping(self._state)
            self._title()

    # --- what happened --------------------------------------------------------------------------------

    def _on_refusals(self, _now: float) -> None:
        if self._refusals is not None:
            workers = (place.child for place in self.roster if "plugins" in place.role.needs)
            self._refusals.tell([child for child in workers if child is not None])

    def _on_signals(self, now: float) -> None:
        for number in self._signals.take():
            match number:
                case signal.SIGCHLD:
                    self._lives.reap(now)
                case signal.SIGTERM:
                    self._stop(self.stop_timeout_s, "SIGTERM")
                case signal.SIGQUIT:
                    self._stop(None, "SIGQUIT")
                case signal.SIGINT:
                    self._interrupts += 1
                    if self._interrupts == 1:
                        self._stop(self.stop_timeout_s, "SIGINT; once more to stop at once")
                    else:
                        self._going_down(self._down.at_once("second SIGINT"))
                case signal.SIGHUP:
                    self._reload("SIGHUP", lambda _: None)

    def _asked(self, child: Child, asked: Asked) -> None:
        match asked:
            case AskStatus():
                child.tell(
                    status.answer(
                        asked.n,
                        self._state,
                        self.service,
                        self.roster,
                        ended=self._lives.tally.counted,
                        reloading=self.reloader is not None and self.reloader.busy,
                    )
                )
            case AskReload():
                tell = functools.partial(_answer, child, asked.n)
                self._reload(f"asked by {asked.who}", tell, may_wait=False)
            case AskStop():
                child.tell(Done(n=asked.n))
                drain = asked.mode == "drain"
                self._stop(None if drain else self.stop_timeout_s, f"asked by {asked.who}")

    def _reload(self, who: str, tell: Callable[[Reloaded], None], *, may_wait: bool = True) -> None:
        if self.reloader is not None and self._state == "running":
            self.reloader.ask(who, tell, may_wait=may_wait)
            return
        why = f"forkd is {self._state}: the configuration is not read anew"
        log.service(act="not_reloaded", level="warning", detail=why)
        tell(Reloaded(n=0, generation=self.service.generation, error=why))

    def reloading(self) -> None:
        """A reload begins."""
        self._notifier.reloading()

    def reloaded(self) -> None:
        """It is over, whatever came of it."""
        if not self._down.begun:
            self._notifier.ready()

    def _title(self) -> None:
        setproctitle.setproctitle(f"forkd: master [{self._state}]")


def _answer(child: Child, n: int, report: Reloaded) -> None:
    child.tell(msgspec.structs.replace(report, n=n))
