"""How does a process begin and end at its place? Started when it is due; reaped, judged, replaced or gone."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from forkd import log
from forkd.exits import Exit
from forkd.master.errors import StartError
from forkd.master.hearing import Hearing
from forkd.master.place import Place, describe
from forkd.master.pool import State
from forkd.master.roster import Roster
from forkd.master.tally import Tally
from forkd.master.trust import Trust

_ENDED_BY_ITSELF = frozenset({"exit 0", "SIGTERM"})
"""As a process ends that was told to; while it or all of us stop, it does not matter by whom."""


class Lives:
    """All births and deaths.

    state   of the service: starting | running | stopping | draining
    fail    while it is starting a failure ends it: told why
    tally   what those have counted that have ended
    """

    def __init__(
        self,
        roster: Roster,
        hearing: Hearing,
        trust: Trust,
        *,
        state: Callable[[], str],
        fail: Callable[[StartError], None],
    ) -> None:
        self._roster = roster
        self._hearing = hearing
        self._trust = trust
        self._state = state
        self._fail = fail
        self.tally = Tally()

    def start(self, place: Place, now: float) -> None:
        """Start a process there."""
        slot, starting = place.slot, self._state() == "starting"
        try:
            child = place.start()
        except OSError as error:
            delay_s = slot.not_started(now, str(error))
            level = "debug" if place.refused == str(error) else "error"
            place.refused = str(error)
            place.log("not_started", reason=place.refused, after_s=delay_s, level=level)
            if starting:
                self._fail(StartError(Exit.SYSTEM, f"{place.shown} could not be started: {error}"))
            return
        slot.start(child.pid, now)
        place.child, place.said, place.failed, place.refused = child, None, None, ""
        self._roster.started(place)
        self._trust.started(place)
        self._hearing.begin(place, child, now)
        place.log("started", level="debug" if starting else "info")

    def reap(self, now: float) -> None:
        """All that are dead."""
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Others are orphans of our descendants: sandboxes that outlived their zygote.
            if (place := self._roster.reaped(pid)) is not None:
                self._died(place, wait_status, now)

    def _died(self, place: Place, wait_status: int, now: float) -> None:
        assert place.child is not None
        place.child.reaped = True
        self._hearing.end(place, now)
        slot, pid = place.slot, place.slot.pid
        self._trust.reaped(place, pid)
        if place.said is not None:
            self.tally.add(place.said.counters)
            place.said = msgspec.structs.replace(place.said, counters={})
        place.on_end()
        ended = describe(wait_status)
        was = slot.state
        delay_s = slot.exited(now)
        if slot.state is State.GONE:
            ok = ended in _ENDED_BY_ITSELF or slot.killed or place.role.starter == "zygote"
            place.log("exited" if ok else "died", pid=pid, status=ended, level="debug" if ok else "warning")
            return
        state = self._state()
        reason = place.ended(wait_status, now, served=was is State.RUNNING)
        # Who stops us may well tell all of us at once, as systemd does with KillMode=control-group.
        stopping = state in ("stopping", "draining")
        told = stopping and ended in _ENDED_BY_ITSELF
        level = "info" if told else "error"
        if state == "starting" and place.failed:
            level = "debug"  # start-up fails with these words
        act: log.ProcessAct = "exited" if told or slot.killed else "died"
        place.log(act, pid=pid, status=ended, reason=reason, after_s=delay_s, level=level)
        if state == "starting":
            self._fail(place.start_failure(wait_status))
