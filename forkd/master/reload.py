"""How does a new configuration come into force while mail flows? Step by step, each waited for by the loop.

    read        the files; what is wrong with them keeps the old generation, and the report says what
    open        its certificates, listeners (beside the old ones), folders, walls
    beside      zygotes of plugins that are not as they were, a broker or launcher that is given something new
    qmgr        where it is given something new: the old one ends its deliveries (stop_timeout), the next one
                begins. Before the workers, which may take mail that only the next one can route
    workers     as many as there are; ready, and alive for SETTLE_S
    admin       where it is given something new: both listen for a moment, so the answer finds its client
    listeners   where a socket ends it lets nobody new in, and who was about to come has HANDSHAKE_S for it:
                with an address that includes the old one (0.0.0.0) its next client is the next socket's
    in force    old workers take no more clients, and end with their sessions; what served them ends with them

Whatever fails before the last step is undone: the old generation has taken mail all the time, and goes on;
qmgr, where it had ended for the new one, is started anew from the old configuration. What is new ends as an
old generation does, for a client may have come to it.

At most MAX_OLD generations drain at once; the oldest beyond is told to end within stop_timeout. A HUP during
a reload is remembered, and one more follows; `forkd reload` is refused then.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable, Generator, Iterable, Sequence

from forkd import log
from forkd.config.load import LoadedConfig
from forkd.config.problems import ConfigError
from forkd.master.errors import StartError
from forkd.master.generation import Generation
from forkd.master.place import Place
from forkd.master.pool import State
from forkd.master.reload_report import Changes, changes, pinned
from forkd.master.reload_steps import Undo, change_log, look_for_the_dead, named, serves
from forkd.master.roles import Role
from forkd.master.supervisor import Supervisor
from forkd.rpc.messages_reload import Reloaded

SETTLE_S = 0.5
"""So long all new workers must have lived before the old ones go: most that die of a client die sooner."""
HANDSHAKE_S = 0.5
"""For clients that have begun to connect to a socket which ends: a round trip, and more than most take."""
MAX_OLD = 3
"""Generations beside the one in force: each may hold as many workers."""
MAX_ERROR = 20_000
"""Characters of why not: the answer is one record."""

Steps = Generator[None, None, None]
Tell = Callable[[Reloaded], None]


class Reloads:
    """A task of the supervisor's (supervisor.Task); `current` is the generation in force.

    living   all generations that there are, kept up to date here; at first the one in force alone
    read     the configuration as its files are now; raises ConfigError
    prepare  called with what was read, before it is opened; raises StartError
    """

    def __init__(
        self,
        living: list[Generation],
        roles: Sequence[Role],
        supervisor: Supervisor,
        *,
        read: Callable[[], LoadedConfig],
        prepare: Callable[[LoadedConfig], None] = lambda _: None,
    ) -> None:
        (self.current,) = living
        self._roles = roles
        self._supervisor = supervisor
        self._read = read
        self._prepare = prepare
        self._living = living
        self._hurried: set[int] = set()
        self._numbers = self.current.number
        self._steps: Steps | None = None
        self._tell: Tell | None = None
        self._asked_again = ""
        self._began_at = 0.0
        self._due: float | None = None
        self._changes = Changes((), (), 0)
        self._renewed: list[str] = []
        self._kept: list[str] = []
        self._returning: list[str] = []

    # --- what the supervisor asks ---------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """One is under way."""
        return self._steps is not None

    @property
    def due(self) -> float | None:
        """When look() has something to do without anything else happening."""
        return self._due if self.busy else None

    def ask(self, who: str, tell: Tell | None = None, *, may_wait: bool = True) -> None:
        """Reload; `tell` is called once, when it is over, or at once with a refusal. While one is under way:
        with may_wait another one follows it (one for all who ask meanwhile, and none of them is told)."""
        if self.busy:
            if tell is None or may_wait:
                self._asked_again = who
            else:
                tell(self._report("another reload is under way: ask again when it is over"))
            return
        self._tell, self._began_at = tell, time.monotonic()
        self._changes, self._renewed, self._kept = Changes((), (), 0), [], []
        log.service(act="reloading", detail=who)
        self._supervisor.reloading()
        self._steps = self._go()
        self.look(self._began_at)

    def stopping(self) -> None:
        """We are told to stop: nothing of it comes into force any more, who asked for it is told, and none
        follows."""
        self._asked_again = ""
        if self._steps is not None:
            self._steps.close()
            self._over("forkd was told to stop meanwhile")

    def look(self, _now: float) -> None:
        """One step further, where that can be done now; and what old generations leave is tidied up."""
        if self._steps is not None:
            self._due = None
            try:
                next(self._steps)
            except StopIteration:
                self._over("")
            except ConfigError as error:
                self._over(str(error.from_anywhere()))
            except StartError as error:
                self._over(f"{error}\n{error.detail}".strip())
            except Exception as error:  # a bug in reading what is new must not end what serves
                log.bug(where="reload", error=error)
                self._over(f"a bug of forkd's own, its log has it: {error}")
        self._tidy()

    # --- the steps --------------------------------------------------------------------------------------

    def _go(self) -> Steps:
        while self._returning:  # one that came to nothing is not undone yet: there must be one qmgr at a time
            yield
        old = self.current
        read = self._read()
        self._changes = changes(old.loaded, read)
        loaded = pinned(old.loaded, read)
        self._prepare(loaded)
        # Of one that came to nothing a worker may still be there.
        self._numbers += 1
        new = Generation(self._numbers, loaded, old.ground, old)
        roles = [role for role in self._roles if role.wanted(loaded.plugins)]
        new.open(roles)
        for note in new.notes:
            log.config_note(note=note)
        # What the last reload left is given back, and what is new need not be looked at by each child.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._living.append(new)
        done = False
        try:
            yield from self._replace(new, old, roles)
            if old.hush(beside=new):
                yield from self._wait(HANDSHAKE_S)
            done = True
        finally:
            new.before = None
            if not done:
                self._take_back(new)
        self._put_in_force(new, old)

    def _replace(self, new: Generation, old: Generation, roles: Sequence[Role]) -> Steps:
        fresh = new.succeed(old, roles)
        self._kept += [named(place) for place in new.services.values()]
        yield from self._start(
            each for each in fresh if each.role.reload != "after" and not each.role.may_ask
        )
        after = [each for each in fresh if each.role.reload == "after"]
        with Undo() as undo:
            for place in after:
                yield from self._take_turns(place, old, undo)
            count = sum(each.generation == old.number for each in self._workers() if serves(each))
            workers: list[Place] = []
            for _ in range(max(1, min(count, new.most_workers)) if new.most_workers else 0):
                workers.append(new.worker())
                self._supervisor.add(workers[-1:])
            yield from self._ready(workers)
            yield from self._wait(SETTLE_S if workers else 0, workers)
            yield from self._start(each for each in fresh if each.role.may_ask)
            undo.forget()
        for place in (*fresh, *workers):
            self._renewed.append(named(place))
        self._kept = [name for name in self._kept if name not in self._renewed]

    def _start(self, places: Iterable[Place]) -> Steps:
        added = list(places)
        self._supervisor.add(added)
        yield from self._ready(added)

    def _ready(self, places: Sequence[Place]) -> Steps:
        while any(place.slot.state is not State.RUNNING for place in places):
            look_for_the_dead(places)
            yield

    def _wait(self, seconds: float, alive: Sequence[Place] = ()) -> Steps:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._due = until
            look_for_the_dead(alive)
            yield

    def _take_turns(self, place: Place, old: Generation, undo: Undo) -> Steps:
        """The old one ends, then the new one begins; undone, it is the other way round."""
        name = place.role.name
        before = old.services.get(name)
        if before is not None:
            undo.add(functools.partial(self._bring_back, name, place, old))
            self._supervisor.let_go(before, self._supervisor.stop_timeout_s)
            while before in self._supervisor.roster:
                yield
        yield from self._start([place])

    def _bring_back(self, name: str, place: Place, old: Generation) -> None:
        """The old one could not be kept meanwhile: it is started again, when the new one is gone."""
        before, supervisor = old.services[name], self._supervisor
        self._returning.append(name)

        def start() -> None:
            self._returning.remove(name)
            again = old.services[name] = old.place(place.role, supervisor.roster.free_number(name))
            supervisor.add([again])

        def behind_it() -> None:
            if before in supervisor.roster:
                before.on_gone = start
            else:
                start()

        if place in supervisor.roster:
            place.on_gone = behind_it
            supervisor.let_go(place, supervisor.stop_timeout_s)
        else:
            behind_it()

    def _put_in_force(self, new: Generation, old: Generation) -> None:
        supervisor = self._supervisor
        new.take_over()
        self.current = new
        supervisor.service = new.service()
        supervisor.stop_timeout_s = float(new.config.server.stop_timeout)
        supervisor.certificates = new.certificates
        if new.config.log != old.config.log:
            change_log(
                new.config.log,
                [each for name, each in new.services.items() if each is old.services.get(name)],
            )
        self._answer("")
        for place in self._workers():
            if place.generation == old.number:
                supervisor.let_go(place, gently=True)
        # They close their own copies when they hear it, after they accepted whom the kernel had for a socket
        # that was hushed (Doors.leave).
        old.close_sockets(beside=new)
        for name, place in old.services.items():
            if place.role.may_ask and new.services.get(name) is not place:
                supervisor.let_go(place, place.role.stop_limit_s)

    def _take_back(self, new: Generation) -> None:
        """It does not come into force: whoever came to one of its workers is served to the end."""
        for place in self._workers():
            if place.generation == new.number:
                self._supervisor.let_go(place, gently=True)
        new.close_sockets(beside=self.current)

    # --- old generations --------------------------------------------------------------------------------

    def _tidy(self) -> None:
        if len(self._living) == 1:
            return
        supervisor = self._supervisor
        used = {place.generation for place in self._workers()}
        if self.busy:
            used.add(self._living[-1].number)
        over = [each for each in self._living if each is not self.current and each.number not in used]
        self._living[:] = [each for each in self._living if each not in over]
        needed = [place for each in self._living for place in each.services.values()]
        for generation in over:
            for place in generation.services.values():
                gone = place not in supervisor.roster or place.slot.state in (State.DRAINING, State.GONE)
                if place not in needed and not gone:
                    supervisor.let_go(place, place.role.stop_limit_s)
            generation.drop(self._living)
            log.service(act="generation_over", detail=f"generation {generation.number}", level="debug")
        old = [each for each in self._living if each is not self.current]
        for generation in old[: max(0, len(old) - MAX_OLD)]:
            if generation.number not in self._hurried:
                self._hurried.add(generation.number)
                log.service(act="hurried", detail=f"generation {generation.number}: too many drain at once")
                for place in self._workers():
                    if place.generation == generation.number:
                        supervisor.let_go(place, supervisor.stop_timeout_s)

    def _workers(self) -> list[Place]:
        return [place for place in self._supervisor.roster if place.role.reload == "renew"]

    # --- what is said of it -----------------------------------------------------------------------------

    def _over(self, error: str) -> None:
        self._steps = None
        if error:
            self._answer(error)
        self._supervisor.reloaded()
        if self._asked_again:
            who, self._asked_again = self._asked_again, ""
            self.ask(who)

    def _answer(self, error: str) -> None:
        kept = f"generation {self.current.number} stays in force: {error}" if error else ""
        report = self._report(f"not reloaded, {kept}" if error else "")
        if error:
            log.service(act="not_reloaded", level="error", detail=kept)
            self._supervisor.service = self._supervisor.service.kept(error)
        else:
            left = f"; needs a restart: {', '.join(c.key for c in report.needs_restart)}"
            log.service(
                act="reloaded",
                seconds=round(report.seconds, 3),
                detail=f"generation {report.generation}: {len(report.applied)} keys applied"
                + (left if report.needs_restart else ""),
            )
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(report)

    def _report(self, error: str) -> Reloaded:
        known = self._changes
        return Reloaded(
            n=0,
            generation=self.current.number,
            error=error[:MAX_ERROR],
            applied=() if error else known.applied,
            needs_restart=() if error else known.needs_restart,
            unchanged=0 if error else known.unchanged,
            renewed=() if error else tuple(self._renewed)[:200],
            kept=() if error else tuple(self._kept)[:200],
            seconds=time.monotonic() - self._began_at,
        )
