"""The loop: what happened, what is due, what is late? One thread; nothing in it waits but poll.

It has a list of places (place.py) and does the same to all: start what is due, hear what they say, kill
what is late, reap what is dead. Stopping and starting go by the phases of the roles' table.
"""

from __future__ import annotations

import functools
import math
import os
import signal
import time
from collections.abc import Callable, Sequence

import setproctitle

from forkd import log
from forkd.exits import Exit
from forkd.master import pool, status
from forkd.master.certificates import Certificates
from forkd.master.child import Child, Failed
from forkd.master.errors import StartError
from forkd.master.notify import Notifier
from forkd.master.output import Output
from forkd.master.place import Place, describe
from forkd.master.pool import State
from forkd.master.refusals import Refusals
from forkd.master.shutdown import Shutdown
from forkd.master.signals import Signals
from forkd.master.trust import Trust
from forkd.master.watch import Watch
from forkd.rpc.channel import BadRecord
from forkd.rpc.messages import AskStatus, AskStop, Blame, Done, Ready
from forkd.rpc.messages_pool import Heartbeat

STATUS_EVERY_S = 5.0
"""STATUS= for systemctl status."""

_ENDED_BY_ITSELF = frozenset({"exit 0", "SIGTERM"})
"""As a process ends that was told to; while we stop, it does not matter by whom."""


class Supervisor:
    """From run() to its return: everything in `places` is alive, or waited for, or being stopped.

    on_ready      called once, when every place of every phase is ready
    certificates  looked at when they are due; workers are told what changed
    refusals      likewise, when the kernel refused a plugin's system call
    """

    def __init__(
        self,
        places: Sequence[Place],
        *,
        signals: Signals,
        notifier: Notifier,
        service: status.Service,
        stop_timeout_s: float,
        on_ready: Callable[[], None] = lambda: None,
        certificates: Certificates | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._certificates = certificates
        self._places = list(places)
        self._by_pid: dict[int, Place] = {}
        self._signals = signals
        self._notifier = notifier
        self._service = service
        self._stop_timeout_s = stop_timeout_s
        self._on_ready = on_ready
        self._started = False
        self._start_phases = sorted({place.role.start_phase for place in places})
        self._interrupts = 0
        self._watchdog_at = 0.0
        self._status_at = 0.0
        self._watch = Watch()
        self._watch.add(signals.descriptor, self._on_signals)
        self._down = Shutdown(self._places, self._watch)
        self._trust = Trust(self._places)
        self._refusals = refusals
        if refusals is not None:
            self._watch.add(refusals.descriptor, self._on_refusals)

    def run(self) -> None:
        """Start everything, keep it alive, return when all of it has been stopped by signal or request.

        Raises StartError when a place failed before all were ready; everything is stopped by then.
        """
        self._title()
        if not self._places:
            self._ready()
        now = time.monotonic()
        while True:
            self._manage(now)
            if self._down.over:
                break
            since, now = now, self._watch.wait(self._timeout_ms(time.monotonic()))
            pool.excuse((place.slot for place in self._places), since, now)
            log.flush()
        if self._down.failure is not None:
            raise self._down.failure

    def abandon(self) -> None:
        """Kill and reap all that is left: the way out when run() raised something unforeseen."""
        self._down.abandon()

    # --- what the clock says --------------------------------------------------------------------------

    @property
    def _state(self) -> str:
        """Starting | running | stopping | draining."""
        return self._down.how if self._down.begun or self._started else "starting"

    def _manage(self, now: float) -> None:
        for place in self._places:
            if (why := place.slot.late(now)) and place.child is not None:
                place.kill(why)
            if place.output is not None and place.output.resumes(now):
                self._watch.add(place.output.descriptor, functools.partial(self._read_output, place))
        if self._down.begun:
            self._down.go_on(now)
        elif not self._started:
            self._start_by_phases()
        self._start_due(now)
        self._trust.look(now)
        self._look_at_certificates(now)
        self._tell_systemd(now)

    def _timeout_ms(self, now: float) -> int:
        moments = [now + pool.TURN_S, pool.next_change([place.slot for place in self._places])]
        if self._notifier.watchdog_s:
            moments.append(self._watchdog_at)
        if self._certificates is not None:
            moments.append(self._certificates.due)
        moments.append(self._trust.due)
        moments += [place.output.resume_at for place in self._places if place.output is not None]
        if not log.flush():
            moments.append(now + 0.5)
        first = min(moment for moment in moments if moment is not None)
        # Rounded up: a poll that returns a little early would find nothing to do and spin.
        return max(0, math.ceil((first - now) * 1000))

    def _start_due(self, now: float) -> None:
        for slot in pool.due([place.slot for place in self._places if self._may_start(place)], now):
            place = next(place for place in self._places if place.slot is slot)
            self._start(place, now)

    def _may_start(self, place: Place) -> bool:
        if self._down.failure is not None:
            return False
        if self._state == "starting":
            return bool(self._start_phases) and place.role.start_phase <= self._start_phases[0]
        # While workers drain, who serves them is still replaced; who never ran is not begun with.
        return not self._down.begun or place.slot.starts > 0

    def _start(self, place: Place, now: float) -> None:
        slot = place.slot
        try:
            child = place.start()
        except OSError as error:
            delay_s = slot.not_started(now, str(error))
            level = "debug" if place.refused == str(error) else "error"
            place.refused = str(error)
            place.log("not_started", reason=place.refused, after_s=delay_s, level=level)
            if self._state == "starting":
                self._fail(StartError(Exit.SYSTEM, f"{place.shown} could not be started: {error}"))
            return
        slot.start(child.pid, now)
        place.child, place.said, place.failed, place.refused = child, None, None, ""
        self._by_pid[child.pid] = place
        self._trust.started(place)
        if child.channel is not None:
            self._watch.add(child.channel.fileno(), lambda at: self._hear(place, at))
        if child.output >= 0:
            place.output = Output(child.output, plugin=slot.name, pid=child.pid, now=now)
            self._watch.add(child.output, functools.partial(self._read_output, place))
        place.log("started", level="debug" if self._state == "starting" else "info")

    def _start_by_phases(self) -> None:
        while self._start_phases:
            phase = self._start_phases[0]
            if any(p.slot.state is not State.RUNNING for p in self._places if p.role.start_phase <= phase):
                return
            self._start_phases.pop(0)
        if self._places:
            self._ready()

    def _ready(self) -> None:
        self._started = True
        self._title()
        self._notifier.send("READY=1")
        self._status_at = 0.0
        self._on_ready()

    def _look_at_certificates(self, now: float) -> None:
        due = None if self._certificates is None else self._certificates.due
        if self._certificates is not None and due is not None and now >= due:
            children = [place.child for place in self._places if place.child is not None]
            self._certificates.look(now, children)

    def _tell_systemd(self, now: float) -> None:
        if self._notifier.watchdog_s and now >= self._watchdog_at:
            self._notifier.send("WATCHDOG=1")
            self._watchdog_at = now + self._notifier.watchdog_s
        if now >= self._status_at:
            self._status_at = now + STATUS_EVERY_S
            sessions = sum(place.said.sessions for place in self._places if place.said and place.slot.alive)
            alive = sum(place.slot.alive for place in self._places)
            total = len(self._places)
            self._notifier.send(f"STATUS={self._state}: {sessions} sessions, {alive} of {total} processes")

    # --- the way down ---------------------------------------------------------------------------------

    def _stop(self, limit_s: float | None, why: str) -> None:
        self._going_down(self._down.begin(limit_s, why))

    def _fail(self, failure: StartError) -> None:
        self._going_down(self._down.fail(failure))

    def _going_down(self, now: bool) -> None:
        if now:
            self._notifier.send("STOPPING=1", f"STATUS={self._state}")
            self._title()

    # --- what happened --------------------------------------------------------------------------------

    def _on_refusals(self, _now: float) -> None:
        if self._refusals is not None:
            workers = (place.child for place in self._places if "plugins" in place.role.needs)
            self._refusals.tell([child for child in workers if child is not None])

    def _on_signals(self, now: float) -> None:
        for number in self._signals.take():
            match number:
                case signal.SIGCHLD:
                    self._reap(now)
                case signal.SIGTERM:
                    self._stop(self._stop_timeout_s, "SIGTERM")
                case signal.SIGQUIT:
                    self._stop(None, "SIGQUIT")
                case signal.SIGINT:
                    self._interrupts += 1
                    if self._interrupts == 1:
                        self._stop(self._stop_timeout_s, "SIGINT; once more to stop at once")
                    else:
                        self._going_down(self._down.at_once("second SIGINT"))
                case signal.SIGHUP:
                    log.service(
                        act="not_reloaded",
                        level="warning",
                        detail="reloading comes with a later version: restart for a new configuration",
                    )

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Others are orphans of our descendants: sandboxes that outlived their zygote.
            if (place := self._by_pid.pop(pid, None)) is not None:
                self._died(place, wait_status, now)

    def _died(self, place: Place, wait_status: int, now: float) -> None:
        assert place.child is not None
        place.child.reaped = True
        self._hear(place, now)
        if place.output is not None and place.output.read(now):
            place.output.finish()
        self._let_go(place)
        slot, pid = place.slot, place.slot.pid
        self._trust.reaped(place, pid)
        ended = describe(wait_status)
        was = slot.state
        delay_s = slot.exited(now)
        if slot.state is State.GONE:
            ok = ended == "exit 0" or slot.killed or place.role.starter == "zygote"
            place.log("exited", pid=pid, status=ended, level="debug" if ok else "warning")
            return
        reason = place.ended(wait_status, now, served=was is State.RUNNING)
        # Who stops us may well tell all of us at once, as systemd does with KillMode=control-group.
        level = "info" if self._down.begun and ended in _ENDED_BY_ITSELF else "error"
        if self._state == "starting" and place.failed:
            level = "debug"  # start-up fails with these words
        place.log("exited", pid=pid, status=ended, reason=reason, after_s=delay_s, level=level)
        if self._state == "starting":
            self._fail(place.start_failure(wait_status))

    def _let_go(self, place: Place) -> None:
        child, place.child, place.output = place.child, None, None
        if child is not None:
            if child.channel is not None:
                self._watch.remove(child.channel.fileno())
            self._watch.remove(child.output)
            child.close()

    def _hear(self, place: Place, now: float) -> None:
        child = place.child
        if child is None or child.channel is None:
            return
        try:
            messages, ended = child.hear(now)
        except BadRecord as error:
            # No record may hurt master: whoever sends one that is not in the protocol is done.
            self._watch.remove(child.channel.fileno())
            place.failed = Failed(f"spoke out of protocol: {error}")
            place.kill(place.failed.text)
            return
        for message in messages:
            self._heard(place, child, message, now)
        if ended and child.channel is not None:
            self._watch.remove(child.channel.fileno())
            place.slot.hung_up(now)

    def _heard(self, place: Place, child: Child, message: object, now: float) -> None:
        match message:
            case Heartbeat():
                place.said = message
                self._trust.heard(place, message, now)
                place.slot.beat(now)
            case Ready():
                place.slot.ready(now)
                place.log("ready", level="debug" if self._state == "starting" else "info")
            case Failed():
                place.failed = message
                if place.slot.state is State.STARTING:
                    place.kill(message.text, level="debug")  # it gives up: its exit says why
            case AskStatus() if place.role.may_ask:
                slots = [(each.slot, each.said) for each in self._places]
                child.tell(status.answer(message.n, self._state, self._service, slots))
            case AskStop() if place.role.may_ask:
                child.tell(Done(n=message.n))
                drain = message.mode == "drain"
                self._stop(None if drain else self._stop_timeout_s, f"asked by {message.who}")
            case AskStatus() | AskStop():
                place.failed = Failed("asked for what is admin's to ask")
                place.kill(place.failed.text)
            case Blame():
                self._trust.blamed(place, message)

    def _read_output(self, place: Place, now: float) -> None:
        output = place.output
        if output is not None and (not output.read(now) or output.resume_at is not None):
            # At its end; or it prints more than its share, and for a while nobody reads it.
            self._watch.remove(output.descriptor)

    def _title(self) -> None:
        setproctitle.setproctitle(f"forkd: master [{self._state}]")
