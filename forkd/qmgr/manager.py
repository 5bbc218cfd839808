"""What is done with a message that is due? Load, route, hand to the lanes, and take back what they did."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator

from forkd import log
from forkd.config.schema import Config
from forkd.deliver.programs import ProgramHost
from forkd.deliver.transport import Delivery, Target, Transport
from forkd.fs import REAL, Fs
from forkd.qmgr.acts import Acts, path_of
from forkd.qmgr.lanes import Finished, Job, Lane, Pass
from forkd.qmgr.record import Policy, Recorder
from forkd.qmgr.routing import Routing
from forkd.qmgr.schedule import Entry, Schedule, Standing
from forkd.queue import recovery, state, stored
from forkd.queue.format import Damaged
from forkd.queue.ids import ID, SLOT, QueueId
from forkd.queue.spool import TMP, Spool

BITE = 256
"""Messages looked at per turn of the loop: below 50 ms, and whatever else is ready comes between."""

UNREADABLE_RETRY_S = 60.0
"""When a spool file cannot be opened or read: the disk's fault, not the message's."""


BEGIN_S = 30.0
"""Mail whose client waits is begun with in this time, or refused for now: what a worker waits for
(worker/next_hop.py, SLACK_S) is this, the transport's own timeout, and some."""

DAY_S = 86_400.0


Way = tuple[Transport, tuple[Target, ...]]
"""A transport, and those recipients of a message that go there."""


class Manager:
    """The queue of one spool. All methods belong to the loop's thread.

    root   of the spool
    wake   called from any thread when take_back() has something to do; must not block
    programs  starts queue programs
    """

    def __init__(
        self,
        config: Config,
        root: str,
        wake: Callable[[], None],
        *,
        programs: ProgramHost | None = None,
        fs: Fs = REAL,
    ) -> None:
        queue = config.queue
        self.root = root
        self.fs = fs
        self.schedule = Schedule()
        self.counters: collections.Counter[str] = collections.Counter(
            {"delivered": 0, "deferred": 0, "failed": 0, "finished": 0}
        )
        self.active = 0
        durable = queue.durability == "fsync"
        self.acts = Acts(root, self.schedule, durable=durable, fs=fs)
        self._routing = Routing(config, programs=programs, fs=fs)
        self._recorder = Recorder(
            root,
            Policy(
                retry_first_s=float(queue.retry_first),
                retry_max_s=float(queue.retry_max),
                give_up_s=float(queue.give_up),
                durable=durable,
            ),
            fs=fs,
        )
        self._lanes: dict[str, Lane] = {}
        self._parked: dict[str, dict[QueueId, Entry]] = {}
        """Lane -> messages that are due, and wait for room there: not loaded, and not in anybody's way."""
        self._threads = queue.concurrency
        self._slots = frozenset(Spool.slots(root, fs=fs))
        self._done: collections.deque[Pass] = collections.deque()
        self._wake = wake
        self._scan: Iterator[recovery.Found | None] | None = None

    # --- what is there ------------------------------------------------------------------------------

    def recover(self) -> None:
        """At start-up: clean the spool by recovery's table and learn every message. Raises OSError.

        Cost: a listing, and one small file for each message that was tried before.
        """
        now = time.time()
        for found in recovery.recover(self.root, fs=self.fs):
            entry = self.schedule.add(found.id, found.slot, 0.0, has_state=found.has_state)
            if entry is None or not found.has_state:
                continue
            with contextlib.suppress(OSError):  # then it is read, or fails again, when it is due: now
                known = state.load(path_of(self.root, entry), fs=self.fs)
                if known.hold:
                    self.schedule.hold(entry)
                elif known.next_try_at:
                    # The clock may have been wrong when it was written: no delay is longer than a day.
                    self.schedule.wait(entry, min(known.next_try_at, now + DAY_S))
                elif known.failed():
                    self.schedule.fail(entry)

    def poked(self, data: bytes, now: float) -> None:
        """Pokes as they come from the pipe, whole lines `<slot>/<id>`; workers are not to be trusted."""
        add, slots = self.schedule.add, self._slots
        for line in data.decode("ascii", "replace").split("\n"):
            slot, _, queue_id = line.partition("/")
            if slot in slots and ID.fullmatch(queue_id):
                add(queue_id, slot, now)
            elif SLOT.fullmatch(slot) and ID.fullmatch(queue_id):
                self._slots = frozenset(Spool.slots(self.root, fs=self.fs))
                if slot in self._slots:
                    add(queue_id, slot, now)

    def walk(self, most: int, now: float) -> bool:
        """A bite of the walk over new/ for messages whose poke was lost; true when it is through."""
        if self._scan is None:
            self._scan = recovery.scan(self.root, fs=self.fs)
        seen = 0
        for _, found in zip(range(most), self._scan, strict=False):
            seen += 1
            if found is not None and found.id not in self.schedule:
                self.schedule.add(found.id, found.slot, now, has_state=True)
                self.counters["found_by_walk"] += 1
        if seen == most:
            return False
        self._scan = None
        return True

    # --- delivery -----------------------------------------------------------------------------------

    def pump(self, now: float) -> int:
        """Start what is due, as far as its lanes have room; return how many were looked at.

        A lane whose programs hang costs what it may have open, and holds up nobody else's mail.
        """
        self._unpark()
        entries = self.schedule.take(now, BITE)
        jobs: dict[str, list[Job]] = {}
        for entry in entries:
            self._start(entry, now, jobs)
        for name, waiting in jobs.items():
            self._lane(name).put(waiting)
        return len(entries)

    def _unpark(self) -> None:
        for name, parked in tuple(self._parked.items()):
            for queue_id in tuple(itertools.islice(parked, max(0, self._lane(name).room))):
                entry = parked.pop(queue_id)
                # An admin may have removed or held it meanwhile.
                if self.schedule.get(queue_id) is entry and entry.standing is Standing.WAITING:
                    self.schedule.wait(entry, entry.due)
            if not parked:
                del self._parked[name]

    def _start(self, entry: Entry, now: float, jobs: dict[str, list[Job]]) -> None:
        path = path_of(self.root, entry)
        try:
            message = stored.load(path, entry.id, fs=self.fs)
            known = state.load(path, fs=self.fs) if entry.has_state else state.State()
        except stored.Emptied:
            log.queue_event(
                act="emptied", id=entry.id, level="warning",
                detail="empty file removed: delivered before a cut, or lost to one with durability none",
            )  # fmt: skip
            with contextlib.suppress(OSError):
                state.remove(path, has_state=entry.has_state, fs=self.fs)
            self.schedule.remove(entry.id)
            return
        except FileNotFoundError:
            # A stale poke or a name the walk saw just before its removal.
            self.schedule.remove(entry.id)
            return
        except Damaged as damage:
            self._quarantine(entry, str(damage), now)
            return
        except OSError as error:
            log.queue_event(act="unreadable", id=entry.id, detail=f"{error.strerror}", level="error")
            self.schedule.wait(entry, now + UNREADABLE_RETRY_S)
            return
        if known.held(message.envelope):
            self.schedule.hold(entry)
            return
        for outcome in entry.unrecorded:
            known.last[outcome.recipient] = outcome
        wanted = known.open(len(message.envelope.recipients))
        if entry.retry_failed:
            wanted = sorted({*wanted, *known.failed()})
        ways = self._ways(message, wanted)
        full = [way.name for way, _ in ways if self._lane(way.name).room <= len(jobs.get(way.name, ()))]
        if full and (len(full) == len(ways) or entry.retry_failed):
            self.schedule.park(entry)
            self._parked.setdefault(full[0], {})[entry.id] = entry
            return
        entry.retry_failed = False
        attempt = Pass(entry, message, known, now)
        attempt.postponed = bool(full)
        self._divide(attempt, [way for way in ways if way[0].name not in full], jobs)

    def _ways(self, message: stored.StoredMessage, wanted: list[int]) -> list[Way]:
        return self._routing.route(message.envelope, wanted) or [(self._routing.nowhere, ())]

    def _divide(self, attempt: Pass, ways: list[Way], jobs: dict[str, list[Job]]) -> None:
        attempt.wanted = sum(len(targets) for _, targets in ways)
        attempt.open = len(ways)
        self.active += 1
        for transport, targets in ways:
            jobs.setdefault(transport.name, []).append(Job(attempt, Delivery(attempt.message, targets)))

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
        ways = self._ways(message, list(range(len(message.envelope.recipients))))
        busy = [way.name for way, _ in ways if not self._lane(way.name).has_place]
        if busy:
            return f"transport {busy[0]}: too many clients wait for it already"
        jobs: dict[str, list[Job]] = {}
        entry, begin_by = Entry(queue_id, slot, now, has_state=False), time.monotonic() + BEGIN_S
        attempt = Pass(entry, message, state.State(), now, tell=tell, begin_by=begin_by)
        self._divide(attempt, ways, jobs)
        for lane, waiting in jobs.items():
            self._lane(lane).put(waiting)
        return ""

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            transport = self._routing.transports.get(name, self._routing.nowhere)
            lane = self._lanes[name] = Lane(transport, self._threads, self._settle)
        return lane

    def _settle(self, passes: list[Pass]) -> None:
        """In a lane's thread."""
        for attempt in passes:
            try:
                attempt.finished = self._recorder.settle(attempt)
            except Exception as error:  # still the delivery boundary: the message must not be forgotten
                log.bug(where="record", error=error)
                attempt.finished = Finished(due=time.time() + UNREADABLE_RETRY_S)
        self._done.extend(passes)
        self._wake()

    def take_back(self) -> None:
        """Note what the lanes have finished."""
        done, schedule, counters = self._done, self.schedule, self.counters
        while done:
            attempt = done.popleft()
            entry, finished = attempt.entry, attempt.finished
            assert finished is not None
            self.active -= 1
            for _, result in attempt.results:
                counters[result.status] += 1
            if attempt.tell is not None:
                attempt.tell(attempt)
                continue
            if finished.gone:
                counters["finished"] += 1
                schedule.remove(entry.id)
            elif finished.due:
                schedule.wait(entry, finished.due)
            else:
                schedule.fail(entry)
            if not finished.gone:
                self.acts.after_pass(entry)

    def stop_starting(self) -> None:
        """Let running batches end, answer the rest with nothing; `active` falls to 0."""
        for lane in self._lanes.values():
            lane.drop_waiting()

    def _quarantine(self, entry: Entry, why: str, now: float) -> None:
        try:
            recovery.quarantine(self.root, path_of(self.root, entry), entry.id, why, fs=self.fs)
        except OSError as error:
            log.queue_event(act="not_quarantined", id=entry.id, detail=f"{error.strerror}", level="error")
            self.schedule.wait(entry, now + UNREADABLE_RETRY_S)
            return
        self.schedule.remove(entry.id)
        self.counters["quarantined"] += 1


def open_lock(root: str) -> int:
    """The descriptor of root/lock, to be locked by the one qmgr of this spool. Raises OSError."""
    return os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
