"""Who carries a transport's deliveries out? A few threads, each taking what waits in one batch."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from forkd import log
from forkd.deliver.transport import Delivery, Result, Transport
from forkd.qmgr import senders
from forkd.qmgr.schedule import Entry
from forkd.queue.format import Damaged
from forkd.queue.ids import QueueId
from forkd.queue.state import State
from forkd.queue.stored import StoredMessage

if TYPE_CHECKING:
    from forkd.qmgr.routing import Way
    from forkd.qmgr.turns import Key, Turn

ROOM = 256
"""Queued messages that one lane has open: bounds memory (each at most stored.WHOLE_BYTES) whatever the
queue's length, and its threads always find work."""
PLACES = 512
"""Messages that one lane has open while their clients wait: places that no backlog takes from them."""


class Pass:
    """One attempt at one message, over all of its transports."""

    __slots__ = (
        "begin_by",
        "damage",
        "dropped",
        "entry",
        "finished",
        "message",
        "noted",
        "open",
        "postponed",
        "results",
        "started_at",
        "state",
        "tell",
        "turn",
        "untried",
        "wanted",
        "ways",
        "writing",
    )

    def __init__(
        self,
        entry: Entry,
        message: StoredMessage,
        state: State,
        started_at: float,
        *,
        tell: Callable[[Pass], None] | None = None,
        begin_by: float = math.inf,
    ) -> None:
        self.begin_by = begin_by
        """Monotonic; who waits has gone, or will have before we are done."""
        self.tell = tell
        """A client waits for this one (accept = "proxy"): who tells it, on the loop. It is in no queue:
        nothing is recorded."""
        self.entry = entry
        self.message = message
        self.state = state
        self.started_at = started_at
        """Unix time, seconds."""
        self.open = 0
        """Jobs that have not answered."""
        self.wanted = 0
        """Recipients to be tried in this pass."""
        self.results: list[tuple[str, Result]] = []
        """With the name of the transport."""
        self.noted = 0
        """So many of them were written down while the others were not there."""
        self.damage = ""
        """The message could not be read: why."""
        self.postponed = False
        """There are more recipients to try, whose lanes had no room."""
        self.dropped = ""
        """A part of it was not begun: why."""
        self.untried = False
        """Nobody was asked: the results say what these recipients wait for, so that they are given up, or
        their sender is told of the delay. Counts as no attempt."""
        self.turn: Turn | None = None
        """The run it is, where its destinations take turns."""
        self.ways: Mapping[Key, Way] = {}
        """Then: all destinations of the message, also those that are not in this pass."""
        self.finished: Finished | None = None
        self.writing = threading.Lock()
        """Held while something of it is written down."""

    def given_up(self) -> str:
        """Why the client that waited does not any more: what was not begun is not to be."""
        if self.tell is None:
            return ""
        # The worker removes the file when its session has ended.
        if not os.path.exists(self.message.path):  # noqa: PTH110
            return "its client has gone"
        return "it waited too long for its turn" if time.monotonic() > self.begin_by else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """What recording a pass made of its message: said by record.py, obeyed by the schedule."""

    gone: bool = False
    due: float = 0.0
    """Unix time of the next try, unless it is gone."""
    troubled: bool = False
    """The spool refuses what was to be written: nothing of the message is tried before `due`."""
    reports: tuple[QueueId, ...] = ()
    """Messages of our own that tell of it, to be delivered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What one transport has to do in a pass."""

    attempt: Pass
    delivery: Delivery


class Lane:
    """The threads of one transport. They start with the work, at most `threads` of them.

    settle   called in a lane's thread with the passes whose last job has answered, after each batch
    """

    def __init__(self, transport: Transport, threads: int, settle: Callable[[list[Pass]], None]) -> None:
        self.transport = transport
        self._limit = max(1, min(threads, transport.parallel))
        self._settle = settle
        self._first: collections.deque[Job] = collections.deque()
        """What clients wait for goes before what is queued."""
        self._rest: collections.deque[Job] = collections.deque()
        self._waiting: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """A word for each job of those two; false: there will be no more."""
        self._queued = self._proxied = 0
        """Jobs that were put and have not answered: of queued mail, and of waiting clients."""
        self._threads: list[threading.Thread] = []
        self._open = 0
        """Jobs that were put and are not done."""
        self._dropping = False
        self._lock = COUNTING

    @property
    def room(self) -> int:
        """So many more queued messages may be put."""
        return ROOM - self._queued

    @property
    def has_place(self) -> bool:
        """One more client may wait."""
        return self._proxied < PLACES

    def put(self, jobs: Sequence[Job]) -> None:
        """Hand over work; never blocks."""
        with self._lock:
            self._open += len(jobs)
            for job in jobs:
                (self._rest if job.attempt.tell is None else self._first).append(job)
                self._count(job, 1)
        for _ in jobs:
            self._waiting.put(True)
        if self.transport.batch > 1:
            # One thread takes all that gathered while it worked; another helps when that is above a batch.
            more = int(not self._threads or self._waiting.qsize() > self.transport.batch)
        else:
            # Each job waits for somebody else: none waits for another, as long as there may be threads.
            more = self._open - len(self._threads)
        for _ in range(min(more, self._limit - len(self._threads))):
            thread = threading.Thread(target=self._run, name=f"lane {self.transport.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def cancel(self) -> None:
        """End what runs, as far as it can be: a thread that waits for a disk or a program cannot."""

    def drop_waiting(self) -> None:
        """Answer what has not begun with nothing, and end: these messages stay as they are on disk."""
        self._dropping = True
        for _ in self._threads:
            self._waiting.put(False)

    def _count(self, job: Job, by: int) -> None:
        if job.attempt.tell is None:
            self._queued += by
        else:
            self._proxied += by

    def _take(self) -> Job:
        with self._lock:
            return self._first.popleft() if self._first else self._rest.popleft()

    def _run(self) -> None:
        waiting, most = self._waiting, self.transport.batch
        while True:
            more = waiting.get()
            batch: list[Job] = []
            while more:
                batch.append(self._take())
                if len(batch) >= most:
                    break
                try:
                    more = waiting.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._settle(self._deliver(batch))
            with self._lock:
                self._open -= len(batch)
            if not more:
                return

    def _deliver(self, batch: list[Job]) -> list[Pass]:
        """Deliver, note the results; return the passes that are complete by it."""
        name = self.transport.name
        answers: Sequence[list[Result] | Damaged]
        dropped = "qmgr stops" if self._dropping else len(batch) == 1 and batch[0].attempt.given_up()
        if dropped:
            for job in batch:
                job.attempt.dropped = dropped
            answers = [[] for _ in batch]
        else:
            try:
                answers = senders.deliver(self.transport, [job.delivery for job in batch])
                for job, answer in zip(batch, answers, strict=True):
                    check(job, answer)
            except Exception as error:  # the delivery boundary: our bug must not stop the queue
                log.bug(where=f"transport {name}", error=error)
                answers = [bug_results(job) for job in batch]
        complete: list[Pass] = []
        with self._lock:
            for job, answer in zip(batch, answers, strict=True):
                self._count(job, -1)
                if note(name, job, answer):
                    complete.append(job.attempt)
        return complete


def note(transport: str, job: Job, answer: Sequence[Result] | Damaged) -> bool:
    """What a transport has answered; true when the pass is complete by it. With COUNTING held."""
    attempt = job.attempt
    if isinstance(answer, Damaged):
        attempt.damage = str(answer)
    else:
        attempt.results.extend([(transport, result) for result in answer])
    attempt.open -= 1
    return not attempt.open


def check(job: Job, answer: Sequence[Result] | Damaged) -> None:
    """Raises where a transport has a bug: a recipient without a result would be tried for ever."""
    if not isinstance(answer, Damaged) and [result.target for result in answer] != list(job.delivery.targets):
        raise RuntimeError("its results are not those of the targets")


def bug_results(job: Job) -> list[Result]:
    """Our own fault is nobody's refusal: tried again."""
    return [Result(target, "deferred", "4.3.0", "internal error") for target in job.delivery.targets]


COUNTING = threading.Lock()
"""Passes with jobs in several lanes are completed by whichever answers last."""
