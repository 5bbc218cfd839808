"""What is done with a message that is due? Load, route, hand to the lanes, and take back what they did."""

from __future__ import annotations

import collections
import contextlib
import os
import time
from collections.abc import Callable, Iterator

from forkd import log
from forkd.config.schema import Config
from forkd.deliver.programs import ProgramHost
from forkd.deliver.transport import Delivery
from forkd.fs import REAL, Fs, sync_name
from forkd.qmgr.lanes import Finished, Job, Lane, Pass
from forkd.qmgr.record import Policy, Recorder
from forkd.qmgr.routing import Routing
from forkd.qmgr.schedule import Entry, Schedule, Standing
from forkd.queue import recovery, state, stored
from forkd.queue.format import Damaged
from forkd.queue.ids import ID, SLOT, QueueId
from forkd.queue.spool import TMP, Spool

ACTIVE = 256
"""Messages loaded at once: bounds memory (each at most stored.WHOLE_BYTES) whatever the queue's length."""

UNREADABLE_RETRY_S = 60.0
"""When a spool file cannot be opened or read: the disk's fault, not the message's."""


BEGIN_S = 30.0
"""Mail whose client waits is begun with in this time, or refused for now: what a worker waits for
(worker/next_hop.py, SLACK_S) is this, the transport's own timeout, and some."""

DAY_S = 86_400.0

NOT_QUEUED = "not in the queue"
NOT_HELD = "not held"


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
        self._durable = queue.durability == "fsync"
        self._routing = Routing(config, programs=programs, fs=fs)
        self._recorder = Recorder(
            root,
            Policy(
                retry_first_s=float(queue.retry_first),
                retry_max_s=float(queue.retry_max),
                give_up_s=float(queue.give_up),
                durable=self._durable,
            ),
            fs=fs,
        )
        self._lanes: dict[str, Lane] = {}
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
                known = state.load(self.path(entry), fs=self.fs)
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

    def path(self, entry: Entry) -> str:
        """The message's file."""
        return f"{self.root}/new/{entry.slot}/{entry.id}"

    # --- delivery -----------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Another message may be started."""
        return self.active < ACTIVE

    def pump(self, now: float) -> int:
        """Start what is due, as far as ACTIVE allows; return how many were started."""
        entries = self.schedule.take(now, ACTIVE - self.active)
        jobs: dict[str, list[Job]] = {}
        for entry in entries:
            self._start(entry, now, jobs)
        for name, waiting in jobs.items():
            self._lane(name).put(waiting)
        return len(entries)

    def _start(self, entry: Entry, now: float, jobs: dict[str, list[Job]]) -> None:
        path = self.path(entry)
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
            entry.retry_failed = False
            wanted = sorted({*wanted, *known.failed()})
        self._divide(Pass(entry, message, known, now), wanted, jobs)

    def _divide(self, attempt: Pass, wanted: list[int], jobs: dict[str, list[Job]]) -> None:
        message = attempt.message
        attempt.wanted = len(wanted)
        ways = self._routing.route(message.envelope, wanted) or [(self._routing.nowhere, ())]
        attempt.open = len(ways)
        self.active += 1
        for transport, targets in ways:
            jobs.setdefault(transport.name, []).append(Job(attempt, Delivery(message, targets)))

    def deliver_now(self, slot: str, name: str, tell: Callable[[Pass], None], now: float) -> str:
        """Bring a message in tmp/ to its transports while its client waits; `tell` is called afterwards.

        Returns why not, for the log; then nothing is called.
        """
        queue_id = name.partition(".")[0]
        if not SLOT.fullmatch(slot) or recovery.judge_temporary(name) is not recovery.Leftover.LIVE:
            return f"{slot!r}/{name!r} is no message of a living worker's"
        if not self.has_room:
            return "too much is under way"
        try:
            message = stored.load(f"{self.root}/{TMP}/{slot}/{name}", queue_id, fs=self.fs)
        except (Damaged, OSError) as error:
            return f"cannot be read: {error}"
        jobs: dict[str, list[Job]] = {}
        entry, begin_by = Entry(queue_id, slot, now, has_state=False), time.monotonic() + BEGIN_S
        attempt = Pass(entry, message, state.State(), now, tell=tell, begin_by=begin_by)
        self._divide(attempt, list(range(len(message.envelope.recipients))), jobs)
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
            if entry.removed_by and not finished.gone:
                self._remove(entry, entry.removed_by)
            elif entry.hold_by and not finished.gone:
                who, entry.hold_by = entry.hold_by, ""
                self._hold(entry, who)

    def stop_starting(self) -> None:
        """Let running batches end, answer the rest with nothing; `active` falls to 0."""
        for lane in self._lanes.values():
            lane.drop_waiting()

    # --- admin's acts -------------------------------------------------------------------------------

    def remove(self, queue_id: QueueId, who: str) -> bool:
        """Remove a message for good; while it is running, when its pass ends. False: not in the queue."""
        entry = self.schedule.get(queue_id)
        if entry is None:
            return False
        if entry.standing is Standing.RUNNING:
            entry.removed_by = who or "?"
        else:
            self._remove(entry, who)
        return True

    def _remove(self, entry: Entry, who: str) -> None:
        path = self.path(entry)
        try:
            with contextlib.suppress(FileNotFoundError):
                state.remove(path, has_state=entry.has_state, fs=self.fs)
            sync_name(self.fs, path)
        except OSError as error:
            log.queue_event(
                act="not_removed", id=entry.id, detail=f"{error.strerror}", who=who, level="error"
            )
            return
        self.schedule.remove(entry.id)
        log.queue_event(act="removed", id=entry.id, who=who)

    def hold(self, queue_id: QueueId, who: str) -> str:
        """Do not deliver it before it is released; while it is running, from the end of its pass on.

        Durable when this returns, but for a running one. Blocks for one or two syncs. Returns why not.
        """
        entry = self.schedule.get(queue_id)
        if entry is None:
            return NOT_QUEUED
        if entry.standing is Standing.RUNNING:
            entry.hold_by = who or "?"
            return ""
        return "" if entry.standing is Standing.HELD else self._hold(entry, who)

    def release(self, queue_id: QueueId, who: str, now: float) -> str:
        """Deliver what is held: it is due now, whoever held it. As hold()."""
        entry = self.schedule.get(queue_id)
        if entry is None:
            return NOT_QUEUED
        if entry.standing is Standing.RUNNING:
            asked, entry.hold_by = entry.hold_by, ""
            return "" if asked else NOT_HELD
        # A quarantined message that was never due is not known to be held: the files tell.
        path = self.path(entry)
        try:
            message = stored.load(path, entry.id, fs=self.fs)
            known = state.load(path, fs=self.fs)
        except (Damaged, OSError) as error:
            return f"cannot be read: {error}"
        if not known.held(message.envelope):
            return NOT_HELD
        why = self._note_hold(entry, known, "")
        if not why:
            log.queue_event(act="released", id=queue_id, who=who)
            self.schedule.wait(entry, now)
        return why

    def _hold(self, entry: Entry, who: str) -> str:
        try:
            known = state.load(self.path(entry), fs=self.fs)
        except OSError as error:
            return f"cannot be read: {error}"
        why = self._note_hold(entry, known, f"held by {who or '?'}")
        if not why:
            log.queue_event(act="held", id=entry.id, who=who)
            self.schedule.hold(entry)
        return why

    def _note_hold(self, entry: Entry, known: state.State, reason: str) -> str:
        entry.has_state = True
        line = state.Attempt(at=time.time(), hold=reason)
        try:
            state.append(self.path(entry), line, known, durable=self._durable, fs=self.fs)
        except OSError as error:
            log.queue_event(act="unrecorded", id=entry.id, detail=f"spool: {error.strerror}", level="error")
            return f"not recorded: {error.strerror}"
        return ""

    def _quarantine(self, entry: Entry, why: str, now: float) -> None:
        try:
            recovery.quarantine(self.root, self.path(entry), entry.id, why, fs=self.fs)
        except OSError as error:
            log.queue_event(act="not_quarantined", id=entry.id, detail=f"{error.strerror}", level="error")
            self.schedule.wait(entry, now + UNREADABLE_RETRY_S)
            return
        self.schedule.remove(entry.id)
        self.counters["quarantined"] += 1


def open_lock(root: str) -> int:
    """The descriptor of root/lock, to be locked by the one qmgr of this spool. Raises OSError."""
    return os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
