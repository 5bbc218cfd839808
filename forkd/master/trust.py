"""Which zygote must end, although it lives? Workers say so, or master finds out: it counts, and asks.

A zygote runs its plugin's code, so it may do whatever its walls leave it: keep sandboxes alive, fork helpers.
Neither leads out of the walls, but both outlive sessions, so the whole zygote is ended, with a longer pause
before the next one than after a mere crash. Other plugins' sessions go on.

And a zygote whose loop stands still (stopped by a signal, or in its plugin's code) makes no sandbox any more,
for good. Each is asked on its control socket whether its loop goes round, ASKS times in server.heartbeat, and
ended when so many turns went by without an answer. Only who holds the other end of that socket can answer, or
keep the answer back: no client and no other plugin. A busy machine makes answers late, by far less; time in
which master itself was held up counts for nothing. The next one is started as after a crash.
"""

from __future__ import annotations

from collections.abc import Iterator

from forkd.master import census
from forkd.master.census import Census
from forkd.master.place import Place
from forkd.master.pool import ALIVE, State
from forkd.master.roster import Roster
from forkd.master.zygote_child import ZygoteChild
from forkd.rpc.messages import Blame
from forkd.rpc.messages_pool import Heartbeat


class Trust:
    """What is known against the zygotes of the roster."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._census = Census()

    @property
    def due(self) -> float | None:
        """When look() should be called next; None: there is no plugin."""
        moments = [zygote.ask_at for _, zygote in self._serving()]
        if self._census.due is not None:
            moments.append(self._census.due)
        return min(moments, default=None)

    def started(self, place: Place) -> None:
        """A process was started there."""
        if isinstance(place.child, ZygoteChild) and place.child.counted:
            pid = place.child.pid
            self._census.started(place.slot.name, pid, census.start_time(pid))

    def reaped(self, place: Place, pid: int) -> None:
        """The process that was there is no more."""
        if place.role.starter == "zygote":
            self._census.reaped(place.slot.name, pid)

    def heard(self, place: Place, beat: Heartbeat, now: float) -> None:
        """A heartbeat came from there."""
        if "plugins" in place.role.needs:
            self._census.heard(place.slot.pid, beat.sandboxes, now)

    def blamed(self, by: Place, blame: Blame) -> None:
        """A worker saw a sandbox outlive its leash. True only of a living process of that zygote: one that is
        killed and waits for the processor, on a busy machine for seconds, does what it should."""
        by.log("blamed", reason=f"{blame.plugin}: {blame.reason}", level="warning")
        session = census.session_of(blame.pid)
        if session and session in self._census.sessions(blame.plugin):
            self._end(blame.plugin, blame.reason, session)

    def look(self, now: float) -> None:
        """Ask and count, where that is due. Blocks for some milliseconds: see census.py."""
        for place, zygote in self._serving():
            if now >= zygote.ask_at and (why := zygote.ask(now)):
                place.kill(why)
        if self._census.due is None or now < self._census.due:
            return
        names = {place.slot.name for place in self._roster if place.role.starter == "zygote"}
        sessions = {pid: at for name in names for pid, at in self._census.sessions(name).items()}
        workers = [
            place.slot.pid
            for place in self._roster
            if "plugins" in place.role.needs and place.slot.state in ALIVE
        ]
        for name, why in self._census.judge(census.look(sessions), workers, now):
            self._end(name, why)

    def _serving(self) -> Iterator[tuple[Place, ZygoteChild]]:
        """Zygotes whose loop should go round."""
        for place in self._roster:
            child, slot = place.child, place.slot
            if isinstance(child, ZygoteChild) and slot.state is State.RUNNING and not slot.killed:
                yield place, child

    def _end(self, plugin: str, why: str, session: int = 0) -> None:
        """`session`: of the zygote that it was, where that is known; else of all generations'."""
        zygotes = [
            place for place in self._roster if place.role.starter == "zygote" and place.slot.name == plugin
        ]
        for place in [each for each in zygotes if each.slot.pid == session] or zygotes:
            if place.slot.name == plugin:
                place.slot.distrust()
                if place.child is not None:
                    place.kill(why)
                else:
                    place.log("killed", reason=why, level="error")
        # And what dead zygotes of it left behind.
        census.end(self._census.sessions(plugin))
