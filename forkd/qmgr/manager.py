"""What is done with a message that is due? Load, plan, hand to the lanes, and take back what they did."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping, Sequence

from forkd import log
from forkd.config.aliases import NO_ALIASES, Aliases
from forkd.config.schema import Config
from forkd.deliver.pipe import ProgramRunner
from forkd.deliver.programs import ProgramHost
from forkd.deliver.transport import Result
from forkd.fs import REAL, Fs
from forkd.qmgr.acts import Acts
from forkd.qmgr.acts_bounce import Bounce
from forkd.qmgr.destination import Destination
from forkd.qmgr.dispatch import RECORDING, Dispatch
from forkd.qmgr.intake import Intake
from forkd.qmgr.lanes import Finished, Pass
from forkd.qmgr.loading import Kept, Loading
from forkd.qmgr.planning import LEAST_LOOK_S, Loaded, end_of, plan
from forkd.qmgr.record import Recorder
from forkd.qmgr.reporting import Reporter
from forkd.qmgr.routing import Maker, Routing, Way
from forkd.qmgr.schedule import Entry, Schedule, Standing
from forkd.qmgr.turns import End, Key, Stage, Turn, Turns
from forkd.queue import recovery, state, stored
from forkd.queue.format import Damaged
from forkd.queue.ids import SLOT, QueueId
from forkd.queue.spool import QMGR_SLOT, TMP

BITE = 256
"""Messages looked at per turn of the loop: below 50 ms, and whatever else is ready comes between."""

BEGIN_S = 30.0
"""Mail whose client waits is begun with in this time, or refused for now: what a worker waits for
(worker/next_hop.py, SLACK_S) is this, the transport's own timeout, and some."""


class Manager:
    """The queue of one spool. All methods belong to the loop's thread.

    root      of the spool
    wake      called from any thread when take_back() has something to do; must not block
    programs  starts queue programs
    pipes     runs those of transports of kind "pipe"
    aliases   for the recipients of reports
    kinds     of [transport.NAME]: who makes a transport of such settings
    """

    def __init__(
        self,
        config: Config,
        root: str,
        wake: Callable[[], None],
        *,
        programs: ProgramHost | None = None,
        pipes: ProgramRunner | None = None,
        aliases: Aliases = NO_ALIASES,
        fs: Fs = REAL,
        kinds: Mapping[type, Maker] | None = None,
    ) -> None:
        queue = config.queue
        self.root = root
        self.fs = fs
        self.schedule = Schedule()
        self.turns = Turns()
        """Of the messages whose destinations are not all ours to see: who comes next."""
        self.counters: collections.Counter[str] = collections.Counter(
            {"delivered": 0, "deferred": 0, "failed": 0, "finished": 0}
        )
        self.active = 0
        durable = queue.durability == "fsync"
        self.intake = Intake(root, self.schedule, self.counters, fs)
        self._routing = Routing(config, programs=programs, pipes=pipes, fs=fs, kinds=kinds)
        self._loading = Loading(root, self.schedule, self.counters, self._routing, fs)
        reporter = Reporter(config, root, self._routing.retry_of, aliases=aliases, durable=durable, fs=fs)
        self._recorder = Recorder(root, self._routing.retry_of, reporter, durable=durable, fs=fs)
        bounce = Bounce(self._recorder.settle, self._routing.route)
        self.acts = Acts(root, self.schedule, durable=durable, fs=fs, bounce=bounce, leave=self._leave)
        self._dispatch = Dispatch(self._routing, queue.concurrency, self._settle, self._recorder.note)
        self._kept = Kept()
        self._turns_first = False
        self._done: collections.deque[Pass] = collections.deque()
        self._wake = wake

    # --- delivery -----------------------------------------------------------------------------------

    def pump(self, now: float) -> int:
        """Start what is due and has its turn, as far as there is room; return how many were looked at.

        A lane whose programs hang costs what it may have open, a destination that is slow its own window:
        neither holds up anybody else's mail.
        """
        # Where both want the same lane, each is first every other time.
        self._turns_first = not self._turns_first
        count = self._take_turns(now) if self._turns_first else 0
        for entry in self._dispatch.unpark():
            # An admin may have removed or held it meanwhile.
            if self.schedule.get(entry.id) is entry and entry.standing is Standing.WAITING:
                self.schedule.wait(entry, entry.due)
        entries = self.schedule.take(now, BITE)
        for entry in entries:
            self._look(entry, now)
        self._dispatch.send()
        self._dispatch.note_divided()
        return count + len(entries) + self._take_turns(now)

    def clock_set_back(self, by_s: float) -> None:
        """What was to come at a time of the old clock comes so much earlier. What its records say of the old
        clock is seen when it is looked at (planning.py)."""
        self.schedule.shift(-by_s)
        self.turns.shift(-by_s)

    def next_wake(self) -> float | None:
        """When pump() may have something to do without anything else happening, Unix time; None: never."""
        times = [each for each in (self.schedule.next_due(), self.turns.next_wake()) if each is not None]
        return min(times, default=None)

    def _look(self, entry: Entry, now: float) -> None:
        loaded = self._loading.load(entry, now)
        if loaded is None:
            self._forget(entry.id, now)
            return
        ways = loaded.ways or [self._routing.no_way]
        name = ways[0].transport.name
        if len(ways) > 1 or name in self._routing.networked or (loaded.ways and self.turns.knows(entry.id)):
            self._place(entry, loaded, now)
        elif self._dispatch.room(name) > 0:
            # The ordinary local mail: no turns to wait for, the lane's room says it all.
            self._forget(entry.id, now)
            entry.again, entry.flushed_at = frozenset(), 0.0
            self._begin(Pass(entry, loaded.message, loaded.known, now), ways)
        else:
            self.schedule.park(entry)
            self._dispatch.park(name, entry)

    def _place(self, entry: Entry, loaded: Loaded, now: float, *, speak: bool = True) -> None:
        """Have it wait for its turns, or for its time; no pass of it runs.

        speak  what waits too long is said; false: it has just been
        """
        for way in loaded.ways if entry.flushed_at else ():
            at = self.turns.at(*way.key)
            if at is not None and at.away and at.failed_at < entry.flushed_at:
                self.turns.flush(*way.key)
        entry.again, entry.flushed_at = loaded.again, 0.0
        made = plan(loaded, self.turns, self._routing.retry_of, now)
        if made.overdue and speak:
            self._forget(entry.id, now)
            self._say(entry, loaded, made.overdue, now)
            return
        self.turns.place(entry.id, [self._routing.bound(way) for way in made.now])
        if made.now:
            self._kept.put(entry.id, loaded)
        # What should have been said and could not be, since the disk is full, say: soon again.
        self.schedule.wait(entry, min(made.look_at, now + LEAST_LOOK_S) if made.overdue else made.look_at)

    def _say(self, entry: Entry, loaded: Loaded, overdue: list[tuple[str, Result]], now: float) -> None:
        """Give them up, or tell their sender of the delay: recorded as a pass that tried nothing. Of many
        that are due together, the rest waits unloaded."""
        if self._dispatch.room(RECORDING) <= 0:
            self.schedule.park(entry)
            self._dispatch.park(RECORDING, entry)
            return
        attempt = Pass(entry, loaded.message, loaded.known, now)
        attempt.untried, attempt.results, attempt.wanted = True, overdue, len(overdue)
        self.schedule.start(entry)
        self.active += 1
        self._dispatch.record(attempt)

    def _take_turns(self, now: float) -> int:
        turns = [] if self.turns.idle else self.turns.take(now, self._dispatch.rooms())
        for turn in turns:
            self._start(turn, now)
        self._dispatch.send()
        self._kept.trim()
        return len(turns)

    def _start(self, turn: Turn, now: float) -> None:
        entry = self.schedule.get(turn.id)
        assert entry is not None, "what leaves the schedule has left the turns"
        self.schedule.start(entry)
        loaded = self._kept.pop(turn.id) or self._loading.load(entry, now)
        if loaded is None:
            self.turns.done(turn, {}, now)
            self.turns.remove(turn.id, now)
            return
        attempt = Pass(entry, loaded.message, loaded.known, now)
        attempt.turn = turn
        attempt.ways = {way.key: way for way in loaded.ways}
        entry.again = loaded.again
        keys = [part.at.key for part in turn.parts]
        if ways := [attempt.ways[key] for key in keys if key in attempt.ways]:
            self._begin(attempt, ways)
        else:  # its records say that there is nothing left to do for it there
            self.turns.done(turn, dict.fromkeys(keys, End(settled=True)), now)
            self.schedule.wait(entry, now)

    def _begin(self, attempt: Pass, ways: Sequence[Way]) -> None:
        self.active += 1
        self._dispatch.give(attempt, ways)

    def deliver_now(self, slot: str, name: str, tell: Callable[[Pass], None], now: float) -> str:
        """Bring a message in tmp/ to its transports while its client waits; `tell` is called afterwards.

        Returns why not, for the log; then nothing is called.
        """
        queue_id = name.partition(".")[0]
        if not SLOT.fullmatch(slot) or recovery.judge_temporary(name) is not recovery.Leftover.LIVE:
            return f"{slot!r}/{name!r} is no message of a living worker's"
        try:
            message = stored.load(f"{self.root}/{TMP}/{slot}/{name}", queue_id, fs=self.fs)
        except (Damaged, OSError) as error:
            return f"cannot be read: {error}"
        wanted = state.State().open(message.envelope.recipients)
        ways = self._routing.route(message.envelope, wanted) or [self._routing.no_way]
        busy = [way.transport.name for way in ways if not self._dispatch.has_place(way.transport.name)]
        if busy:
            return f"transport {busy[0]}: too many clients wait for it already"
        entry, begin_by = Entry(queue_id, slot, now, has_state=False), time.monotonic() + BEGIN_S
        self._begin(Pass(entry, message, state.State(), now, tell=tell, begin_by=begin_by), ways)
        self._dispatch.send()
        return ""

    # --- what came of it ----------------------------------------------------------------------------

    def _settle(self, passes: list[Pass]) -> None:
        """In other threads."""
        for attempt in passes:
            try:
                attempt.finished = self._recorder.settle(attempt)
            except Exception as error:  # still the delivery boundary: the message must not be forgotten
                log.bug(where="record", error=error)
                attempt.finished = self._recorder.stumbled(attempt)
        self._done.extend(passes)
        self._wake()

    def take_back(self) -> None:
        """Note what the lanes have finished."""
        done, counters, now = self._done, self.counters, time.time()
        while done:
            attempt = done.popleft()
            self.active -= 1
            for _, result in () if attempt.untried else attempt.results:
                counters[result.status] += 1
            if attempt.tell is not None:
                attempt.tell(attempt)
            else:
                self._finish(attempt, now)

    def _finish(self, attempt: Pass, now: float) -> None:
        entry, finished, schedule = attempt.entry, attempt.finished, self.schedule
        assert finished is not None
        for report in finished.reports:
            schedule.add(report, QMGR_SLOT, now)
        rest = self._rest(attempt, finished, now)
        asked = entry.removed_by or entry.hold_by
        if rest is not None and not asked:
            self._place(entry, rest, now, speak=not attempt.untried)
            return
        self.turns.remove(entry.id, now)
        if finished.gone:
            self.counters["finished"] += 1
            schedule.remove(entry.id)
            return
        schedule.wait(entry, finished.due)
        if asked:
            self.acts.after_pass(entry)

    def _rest(self, attempt: Pass, finished: Finished, now: float) -> Loaded | None:
        """Of a pass of a message that has turns: end them; what is still to be done, if that is known."""
        if attempt.turn is None and not attempt.untried:
            return None
        entry, tried = attempt.entry, {result.target.index for _, result in attempt.results}
        entry.again -= tried
        rest = None
        if (finished.due or entry.again) and not (finished.gone or finished.troubled):
            rest = self._loading.routed(entry, attempt.message, attempt.state)
            rest = rest if rest.ways else None
        if attempt.turn is not None:
            open_ = {way.key for way in rest.ways} if rest else set[Key]()
            by_index = {result.target.index: result for _, result in attempt.results}
            keys = [part.at.key for part in attempt.turn.parts]
            ends = {key: end_of(key, attempt.ways.get(key), by_index, open_) for key in keys}
            self.turns.done(attempt.turn, ends, now)
            self._dispatch.ended(attempt)
        return rest

    # --- what an admin asks of a destination --------------------------------------------------------

    def flush_destination(self, transport: str, name: str) -> int:
        """It is back: nothing waits for a probe, and what has been tried there is due now. From the loop.

        transport, name  as destinations() has them
        Returns how many messages are for it, as far as they are known to be: what was not due since the
        start of qmgr was not looked at (flush these by id).
        """
        now = time.time()
        at = self.turns.at(transport, name)
        for queue_id in self.turns.flush(transport, name):
            entry = self.schedule.get(queue_id)
            if entry is not None and entry.standing is Standing.WAITING:
                self.schedule.flush_entry(entry, now)
        return 0 if at is None else len(at.parts)

    def hold_destination(self, transport: str, name: str, *, held: bool = True) -> bool:
        """Start nothing there, or do again. Until qmgr starts again: it is not written down. From the loop.

        What runs there goes on; what waits there is not given up. A transport of this machine's own is one
        destination, the empty name. False: no such destination has mail now.
        """
        known = self.turns.hold(transport, name, held=held)
        if not name and transport in self._routing.threaded:
            self._dispatch.hold(transport, held=held)
            return True
        return known

    def destinations(self) -> Sequence[Destination]:
        """Next hops that have mail, or are away: a snapshot of things that live. From the loop."""
        return tuple(self.turns.destinations())

    def waits_for(self, queue_id: QueueId) -> Sequence[Destination]:
        """Those whose turn it waits for: with what was said there (why), and when it is asked again
        (probe_at), where it is away. From the loop."""
        stages = self.turns.stages(queue_id)
        found = (self.turns.at(*key) for key, stage in stages.items() if stage is Stage.WAITING)
        return tuple(at for at in found if at is not None)

    def _leave(self, entry: Entry) -> None:
        """An admin takes it: it has no turn, and is looked at anew when it comes back."""
        if self.turns.knows(entry.id):
            self._forget(entry.id, time.time())
            entry.due = 0.0

    def _forget(self, queue_id: QueueId, now: float) -> None:
        self._kept.pop(queue_id)
        self.turns.remove(queue_id, now)

    # --- the end ------------------------------------------------------------------------------------

    def stop_starting(self) -> None:
        """Let what runs end, answer the rest with nothing; `active` falls to 0."""
        self._dispatch.drop_waiting()

    def cut_short(self) -> None:
        """End what waits for others: as if it had not begun, since nobody knows how far it came."""
        self._dispatch.cancel()

    def close(self, limit_s: float) -> None:
        """Say good-bye to next hops whose connections are kept. Blocks for so long at most."""
        self._dispatch.close(limit_s)
