"""Who carries out deliveries that wait for others? One event loop, for all transports of that kind.

It runs in a thread of its own and never touches the disk for its own ends: what is settled is recorded by
other threads (Recording), several passes at a time. A lane looks the same from outside, whoever works in it
(lanes.Lane).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import uvloop

from forkd import log
from forkd.deliver.transport import AsyncTransport, Result
from forkd.qmgr import senders
from forkd.qmgr.lanes import COUNTING, PLACES, Job, Pass, bug_results, check, note
from forkd.queue.format import Damaged

TOGETHER = 64
"""Passes recorded before the loop is woken to take them back, where none waits for the disk."""
THREADS = 8
"""That wait for the disk at the same time: file systems write several syncs as one (ext4: 110 lines a second
by one thread, 3,600 by eight)."""
ROOM = 512
"""Passes that wait to be recorded: bounds memory (each at most stored.WHOLE_BYTES) where next hops are
quicker than the disk."""

STOPS = "qmgr stops"


class Recording:
    """The threads that make outcomes durable. They start with the first of them.

    One removes what all recipients have, which needs no sync, several messages at a time; some others write
    lines and reports, one at a time each.

    settle   called there with passes that are complete; blocks for as long as the disk takes
    note     called there with one that goes on, of which some recipients have the mail; likewise, and not
             beside settle of the same one
    """

    def __init__(self, settle: Callable[[list[Pass]], None], note: Callable[[Pass], None]) -> None:
        self._settle = settle
        self._note = note
        self._quick: queue.SimpleQueue[Pass | None] = queue.SimpleQueue()
        self._slow: queue.SimpleQueue[tuple[Pass, bool] | None] = queue.SimpleQueue()
        """None: there will be no more."""
        self._counting = threading.Lock()
        self._open = 0
        self._writers = self._idle = 0
        self._removes = False

    @property
    def room(self) -> int:
        """So many more may be put before memory should be thought of."""
        return ROOM - self._open

    def put(self, attempt: Pass, *, complete: bool = True) -> None:
        """From any thread; never blocks."""
        quick = complete and is_removal(attempt)
        if quick:
            self._quick.put(attempt)
        else:
            self._slow.put((attempt, complete))
        with self._counting:
            self._open += 1
            if quick:
                start = None if self._removes else self._remove
                self._removes = True
            else:
                more = self._writers < THREADS and self._slow.qsize() > self._idle
                start = self._write if more else None
                self._writers += more
        if start is not None:
            threading.Thread(target=start, name="recording", daemon=True).start()

    def close(self) -> None:
        """The threads end when what was put is recorded. Never blocks."""
        self._quick.put(None)
        for _ in range(self._writers):
            self._slow.put(None)

    def _remove(self) -> None:
        while (attempt := self._quick.get()) is not None:
            batch: list[Pass | None] = [attempt]
            with contextlib.suppress(queue.Empty):
                while len(batch) < TOGETHER and batch[-1] is not None:
                    batch.append(self._quick.get_nowait())
            self._do([each for each in batch if each is not None])
            if batch[-1] is None:
                return

    def _write(self) -> None:
        while True:
            with self._counting:
                self._idle += 1
            item = self._slow.get()
            with self._counting:
                self._idle -= 1
            if item is None:
                return
            attempt, complete = item
            if complete:
                self._do([attempt])
            else:
                self._note_while_open(attempt)

    def _do(self, passes: list[Pass]) -> None:
        for attempt in passes:
            with attempt.writing:
                pass  # a note of it may have been under way in another thread; no other one begins
        self._settle(passes)
        with self._counting:
            self._open -= len(passes)

    def _note_while_open(self, attempt: Pass) -> None:
        with attempt.writing:
            # It may have come to its end meanwhile; then that is what is written, or was.
            if attempt.open:
                try:
                    self._note(attempt)
                except Exception as error:  # our bug: what was not noted is recorded with the rest
                    log.bug(where="record", error=error)
        with self._counting:
            self._open -= 1


def is_removal(attempt: Pass) -> bool:
    """All of its message's recipients have it, and nobody is to be told: likely, and cheap to see."""
    turn, recipients = attempt.turn, attempt.message.envelope.recipients
    return (turn is None or len(turn.parts) == len(attempt.ways)) and all(
        result.status == "delivered" and not recipients[result.target.index].notify
        for _, result in attempt.results
    )


class Network:
    """The event loop and its thread. They start with the first delivery."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have it called on the loop. From qmgr's own loop alone; never blocks."""
        if self._loop is None:
            self._loop = uvloop.new_event_loop()
            self._loop.set_exception_handler(_stray)
            threading.Thread(target=self._loop.run_forever, name="network", daemon=True).start()
        self._loop.call_soon_threadsafe(function, *arguments)

    def close(self, transports: Sequence[AsyncTransport], limit_s: float) -> None:
        """Have them let go of their connections; blocks for so long at most. Nothing runs there any more."""
        if self._loop is None:
            return
        closing = asyncio.run_coroutine_threadsafe(_close(transports), self._loop)
        with contextlib.suppress(TimeoutError):
            closing.result(limit_s)


class AsyncLane:
    """The deliveries of one transport on the event loop; the face of lanes.Lane.

    Clients that wait go first; of queued mail no more is put than there are connections, so that what
    waits for its turn waits where the turns are (turns.py).
    """

    def __init__(self, transport: AsyncTransport, network: Network, recording: Recording) -> None:
        self.transport = transport
        self._network = network
        self._recording = recording
        self._first: collections.deque[Job] = collections.deque()
        self._rest: collections.deque[Job] = collections.deque()
        self._queued = self._proxied = 0
        """Jobs that were put and have not answered: of queued mail, and of waiting clients."""
        self._running: set[asyncio.Task[Any]] = set()
        """The event loop's alone."""
        self._dropping = False

    @property
    def room(self) -> int:
        """So many more queued messages may be put."""
        return self.transport.connections - self._queued

    @property
    def has_place(self) -> bool:
        """One more client may wait."""
        return self._proxied < PLACES

    def put(self, jobs: Sequence[Job]) -> None:
        """Hand over work; never blocks."""
        with COUNTING:
            for job in jobs:
                self._count(job, 1)
        for job in jobs:
            (self._rest if job.attempt.tell is None else self._first).append(job)
        self._network.call(self._begin)

    def drop_waiting(self) -> None:
        """Answer what has not begun with nothing: these messages stay as they are on disk."""
        self._dropping = True
        self._network.call(self._begin)

    def cancel(self) -> None:
        """End what runs; it is answered with nothing."""
        self._dropping = True
        self._network.call(self._cancel)

    # --- on the event loop --------------------------------------------------------------------------

    def _begin(self) -> None:
        while (self._first or self._rest) and (
            self._dropping or len(self._running) < self.transport.connections
        ):
            job = self._first.popleft() if self._first else self._rest.popleft()
            if why := STOPS if self._dropping else job.attempt.given_up():
                job.attempt.dropped = why
                self._answer(job, ())
                continue
            delivering = senders.deliver_async(self.transport, job.delivery)
            task = asyncio.get_running_loop().create_task(delivering)
            self._running.add(task)
            task.add_done_callback(functools.partial(self._ended, job))

    def _ended(self, job: Job, task: asyncio.Task[list[Result] | Damaged]) -> None:
        self._running.discard(task)
        self._answer(job, self._outcome(job, task))
        self._begin()

    def _outcome(self, job: Job, task: asyncio.Task[list[Result] | Damaged]) -> Sequence[Result] | Damaged:
        """The delivery boundary: our bug must stop neither this message nor another."""
        where = f"transport {self.transport.name}"
        if task.cancelled():
            if self._dropping:
                job.attempt.dropped = STOPS
                return ()
            log.bug(where=where, error=RuntimeError("a delivery was cancelled by nobody"))
            return bug_results(job)
        error = task.exception()
        if error is not None:
            log.bug(where=where, error=error)
            return bug_results(job)
        answer = task.result()
        targets = job.delivery.targets
        if self._dropping and not isinstance(answer, Damaged) and {r.target for r in answer} < {*targets}:
            job.attempt.dropped = STOPS  # cancelled, and some had it before
            return answer
        try:
            check(job, answer)
        except RuntimeError as bug:
            log.bug(where=where, error=bug)
            return bug_results(job)
        return answer

    def _answer(self, job: Job, answer: Sequence[Result] | Damaged) -> None:
        with COUNTING:
            self._count(job, -1)
            complete = note(self.transport.name, job, answer)
        if complete:
            self._recording.put(job.attempt)

    def _count(self, job: Job, by: int) -> None:
        if job.attempt.tell is None:
            self._queued += by
        else:
            self._proxied += by

    def _cancel(self) -> None:
        for task in self._running:
            task.cancel()


async def _close(transports: Sequence[AsyncTransport]) -> None:
    for ended in await asyncio.gather(*(each.close() for each in transports), return_exceptions=True):
        if isinstance(ended, Exception):
            log.bug(where="network", error=ended)


def _stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a task or callback raised that nobody waited for."""
    log.bug(where="network", error=context.get("exception") or RuntimeError(context["message"]))
