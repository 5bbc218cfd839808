"""What do processes tell of sessions and messages, and who answers `forkd explain`? Intake, and a thread.

The loop takes records from the socket and hands them on; one thread writes them, removes what is too old or
too much, and answers (trace_file.py). Where the thread does not keep up the socket is left unread: those who
tell keep what they can, drop and count the rest.

A file that cannot be used is said once, clearly; a damaged one is put aside and a new one begun. Nothing that
goes wrong here reaches a mail.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import queue
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from forkd import log
from forkd.admin.trace_file import TraceFile, Unusable
from forkd.admin.trace_pruning import STEP
from forkd.rpc import places, tracing
from forkd.rpc.channel import MAX_RECORD_BYTES, BadRecord, decode
from forkd.rpc.messages_trace import Traces
from forkd.rpc.start import RoleStart

COMMIT_S: Final = 0.1
"""What a kill of admin takes with it. Not synced, a commit is a write of some pages."""
PRUNE_S: Final = 1.0
RETRY_S: Final = 10.0
"""Between two tries to use a file that cannot be used."""
WAITING: Final = 64
"""Records that wait for the thread, at most: 4 MiB."""
PAUSE_S: Final = 0.05
"""Then the socket is read again."""
AT_ONCE: Final = 16
"""Records taken in one turn of the loop, so that admins' requests come between."""


class Unavailable(Exception):  # noqa: N818 - a state of the world
    """The file cannot be used now; the text says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Question:
    """What forkd explain asks."""

    id: str
    since: float
    answer: asyncio.Future[dict[str, Any]]


_Record = tuple[int, Traces]
"""With the pid of who wrote it."""


def of(start: RoleStart, loop: asyncio.AbstractEventLoop) -> TraceStore | None:
    """The store of this configuration; None: nothing is to be kept."""
    if start.trace is None:
        return None
    table = start.config.trace
    file = TraceFile(
        places.trace_file(start.config.server.data_dir),
        keep_s=float(table.keep),
        sessions=table.sessions,
        max_bytes=int(table.max_size),
    )
    return TraceStore(start.trace, file, loop)


class TraceStore:
    """From open() to close(): what is told is kept, and can be asked for.

    sock    read end of the pair
    clock   wall time
    """

    def __init__(
        self,
        sock: socket.socket,
        file: TraceFile,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._socket = sock
        self._file = file
        self._loop = loop
        self._clock = clock
        self._jobs: queue.SimpleQueue[_Record | _Question | None] = queue.SimpleQueue()
        self._reading = False
        self._said_bad = False
        self._why = ""
        """The file cannot be used."""
        self._retry_at = 0.0
        self._commit_at = 0.0
        self._prune_at = 0.0
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    # --- on the loop ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to read."""
        self._thread.start()
        self._resume()

    async def close(self) -> None:
        """Take what the others said before they ended, write it, and end."""
        self._pause()
        while self._take_one():
            pass
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    async def find(self, id_: str, *, since: float) -> dict[str, Any]:
        """As TraceFile.find, with what was said until now. Raises Unavailable."""
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._take()
        self._jobs.put(_Question(id_, since, future))
        return await future

    def info(self) -> dict[str, str]:
        """For the heartbeat."""
        shown = {"traced": str(self._file.sessions)}
        if self._file.lost:
            shown["trace_lost"] = str(self._file.lost)
        if self._why:
            shown["trace_trouble"] = self._why
        return shown

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket.fileno())

    def _resume(self) -> None:
        if not self._reading and self._thread.is_alive():
            self._reading = True
            self._loop.add_reader(self._socket.fileno(), self._take)

    def _take(self) -> None:
        """Records that are there now, as long as the thread keeps up."""
        for _ in range(AT_ONCE):
            if self._jobs.qsize() >= WAITING:
                self._pause()
                self._loop.call_later(PAUSE_S, self._resume)
                return
            if not self._take_one():
                return

    def _take_one(self) -> bool:
        try:
            octets, beside, _, _ = self._socket.recvmsg(
                MAX_RECORD_BYTES + 1, tracing.BESIDE_BYTES, socket.MSG_DONTWAIT
            )
        except OSError:
            return False
        if not octets:  # master and all others are gone
            self._pause()
            return False
        pid = tracing.pid_of(beside)
        try:
            self._jobs.put((pid, decode(octets, Traces)))
        except BadRecord as error:
            if not self._said_bad:  # whoever it was goes on to serve mail: once is enough
                self._said_bad = True
                log.overload(what="traces: a process spoke out of protocol", detail=f"pid {pid}: {error}")
        return True

    # --- on the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=COMMIT_S)
            except queue.Empty:
                self._step(None)
                continue
            if job is None:
                self._file.close()
                return
            self._step(job)

    def _step(self, job: _Record | _Question | None) -> None:
        """Do one thing, and what the clock asks for."""
        try:
            if self._usable():
                self._do(job)
                self._tidy(time.monotonic())
                return
        except Exception as error:  # the boundary of a step: the thread goes on with the file opened anew
            self._trouble(error)
        if isinstance(job, _Question):
            self._tell(job, Unavailable(self._why))

    def _do(self, job: _Record | _Question | None) -> None:
        match job:
            case _Question():
                self._tell(job, self._file.find(job.id, since=job.since, now=self._clock()))
            case (pid, traces):
                self._file.add(pid, traces, self._clock())

    def _tidy(self, now: float) -> None:
        if now >= self._prune_at or self._file.fresh >= STEP:
            # Step by step: records come between.
            self._prune_at = now + (0.0 if self._file.prune(self._clock()) else PRUNE_S)
        if self._file.dirty and now >= self._commit_at:
            self._commit_at = now + COMMIT_S
            self._file.commit()

    def _usable(self) -> bool:
        if self._file.opened:
            return True
        now = time.monotonic()
        if now < self._retry_at:
            return False
        try:
            self._file.open()
        except Unusable as error:
            aside = self._file.put_aside()
            said = f"{error}; put aside as {aside.name}, and a new one begun"
            log.service(act="traces_lost", detail=said, level="error")
            self._file.open()
        if self._why:
            self._why = ""
            log.service(act="traces_kept", detail="what happens to sessions is kept again")
        return True

    def _trouble(self, error: Exception) -> None:
        """The file is let go of: by what went wrong it may be in the middle of something."""
        if not isinstance(error, sqlite3.Error | OSError):
            log.bug(where="traces", error=error)
        self._file.drop(failed=True)
        self._retry_at = time.monotonic() + RETRY_S
        if not self._why:
            log.service(act="traces_not_kept", detail=f"{error or type(error).__name__}", level="error")
        self._why = f"{error or type(error).__name__}"

    def _tell(self, question: _Question, result: dict[str, Any] | Unavailable) -> None:
        def tell() -> None:
            if question.answer.done():
                return  # who asked went away
            if isinstance(result, Unavailable):
                question.answer.set_exception(result)
            else:
                question.answer.set_result(result)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(tell)
