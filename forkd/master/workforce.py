"""The workers as load and age ask for them: what sizing.py decides is done here, in the supervisor's loop.

Looked at are those of the generation that serves. The worker that is added has the lowest number that no
living one has, and its folders in the spool are made where they are missing; the one that goes drains gently:
it accepts nothing more, and its sessions end in peace (Supervisor.let_go).

Each worker is told when it changes whether there is room elsewhere (rpc.messages_pool.Room).
"""

from __future__ import annotations

from collections.abc import Callable

from forkd import log
from forkd.config.schema import Config
from forkd.master.generation import Generation
from forkd.master.place import Place
from forkd.master.pool import State
from forkd.master.roles import least_workers, workers
from forkd.master.sizing import Policy, Seen, Sizing
from forkd.master.supervisor import Supervisor
from forkd.rpc.messages_pool import Room

WORKER = "worker"


def policy(config: Config) -> Policy:
    """[pool] and server.workers, as sizing.py needs them."""
    pool = config.pool
    return Policy(
        least=least_workers(config),
        most=workers(config),
        spare=pool.spare / 100,
        busy=pool.busy / 100,
        idle_s=float(pool.idle),
        retire_sessions=pool.retire_sessions,
        retire_bytes=int(pool.retire_memory),
    )


class Workforce:
    """A Task of the supervisor.

    current  the generation that serves
    held     nothing is changed while that is true: somebody else is about to (a reload)
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        current: Callable[[], Generation],
        held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._supervisor = supervisor
        self._current, self._held = current, held
        self._told: dict[int, bool] = {}
        self._due: float | None = 0.0
        self._serve(current())

    @property
    def due(self) -> float | None:
        """At once, and then with each turn of the loop: where nobody says anything, nothing changes."""
        return self._due

    def _serve(self, generation: Generation) -> None:
        self._generation = generation
        self._sizing = Sizing(policy(generation.config))

    def look(self, now: float) -> None:
        """Add, let go, tell."""
        self._due = None
        if self._held():
            return
        if self._current() is not self._generation:
            self._serve(self._current())
        roster = self._supervisor.roster
        ours = [place for place in roster.of(WORKER) if place.generation == self._generation.number]
        serving = [place for place in ours if place.slot.state is State.RUNNING]
        coming = [place for place in ours if place.slot.state in (State.STARTING, State.WAITING)]
        seen = [self._seen(place) for place in serving]
        change = self._sizing.decide(seen, len(coming), now)
        if change.add:
            self._add(change.add, change.why)
        for place in serving:
            if place.slot.number == change.drain:
                log.service(act="worker_leaves", detail=change.why, worker=place.slot.number)
                self._supervisor.let_go(place, gently=True)
        late = sum(place.slot.deaths > 1 for place in coming)
        self._tell(serving, seen, soon=len(coming) - late, late=late)

    def _add(self, count: int, why: str) -> None:
        for _ in range(count):
            place = self._generation.worker()
            if self._supervisor.add([place]):
                log.service(act="worker_added", detail=why, worker=place.slot.number)

    def _seen(self, place: Place) -> Seen:
        slot, said = place.slot, place.said
        if said is None or not said.places:
            return Seen(
                number=slot.number, since=slot.ready_at, places=self._generation.config.limits.sessions
            )
        return Seen(
            number=slot.number,
            since=slot.ready_at,
            places=said.places,
            sessions=said.sessions,
            busy=said.busy,
            served=said.served,
            memory=said.memory,
        )

    def _tell(self, serving: list[Place], seen: list[Seen], *, soon: int, late: int) -> None:
        told: dict[int, bool] = {}
        for place in serving:
            pid, child = place.slot.pid, place.child
            elsewhere = self._sizing.elsewhere(seen, soon=soon, late=late, number=place.slot.number)
            was = self._told.get(pid, False)
            # What it does not take now (it is busy) it is told with the next turn.
            if elsewhere != was and (child is None or not child.tell(Room(elsewhere=elsewhere))):
                elsewhere = was
            told[pid] = elsewhere
        self._told = told
