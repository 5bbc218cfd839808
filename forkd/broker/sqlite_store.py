"""How does a store of one file serve a broker's loop? On a thread of its own, one request after the other.

So each request is atomic, and the loop never waits for the disk. Requests are done within a transaction that
is committed, and synced, COMMIT_S after its first write (sqlite_file.py): an answer may be a second ahead of
the disk. A broker that is killed, or a machine that loses power, loses that second at most; the file stays
whole (WAL).

A file that cannot be opened or is damaged is said once, clearly; until it can be used again (tried every
RETRY_S) requests are answered "unavailable", and lookups and connections go on. A bug of ours is logged as
one, and otherwise means the same: the thread goes on with the file opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from forkd import log
from forkd.broker.protocol import StateRequest
from forkd.broker.sqlite_file import SqliteFile
from forkd.broker.state import Result, StateError, StoreUnavailable

RETRY_S: Final = 10.0


class SqliteStore:
    """Store in one file.

    max_keys, max_value  of one namespace; octets of one text
    on_trouble           told when the file cannot be used, and why; and with "" when it can be again. Called
                         on the loop.
    clock                wall time: what expires does so over a restart too
    """

    def __init__(
        self,
        path: Path,
        loop: asyncio.AbstractEventLoop,
        *,
        max_keys: int,
        max_value: int,
        on_trouble: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._loop = loop
        self._on_trouble = on_trouble
        self._file = SqliteFile(path, max_keys=max_keys, max_value=max_value, clock=clock)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._retry_at = 0.0
        self._troubled = False
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._thread.start()

    def ask(self, namespace: str, request: StateRequest) -> asyncio.Future[Result]:
        """As Store."""
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.put((namespace, request, future))
        return future

    def info(self) -> dict[str, str]:
        """As Store."""
        return {"keys": str(self._file.keys)}

    async def close(self) -> None:
        """As Store."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- on the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        self._open()
        file = self._file
        while True:
            jobs = self._take(file.wait_s(time.monotonic()))
            stopping = jobs is None
            done = [(job[2], self._do(job)) for job in jobs or ()]
            if done:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(_tell, done)
            if stopping:
                file.close()
                return
            try:
                file.tidy(time.monotonic())
            except Exception as error:  # the boundary of a step
                self._trouble(error)

    def _take(self, wait_s: float) -> list[_Job] | None:
        """What waits, at least one; [] when it is time to tidy; None: the end."""
        jobs: list[_Job] = []
        try:
            job = self._queue.get(timeout=wait_s)
            while job is not None and len(jobs) < 100:
                jobs.append(job)
                job = self._queue.get_nowait()
        except queue.Empty:
            return jobs
        if job is None:
            if jobs:
                self._queue.put(None)
                return jobs
            return None
        jobs.append(job)
        return jobs

    def _do(self, job: _Job) -> Result | Exception:
        namespace, request, _ = job
        if not self._file.opened and (time.monotonic() < self._retry_at or not self._open()):
            return StoreUnavailable("the store cannot be used now")
        try:
            return self._file.do(namespace, request)
        except StateError as error:
            return error
        except Exception as error:  # the boundary of a request: its asker is answered, whatever it was
            self._trouble(error)
            return StoreUnavailable("the store cannot be used now")

    def _open(self) -> bool:
        try:
            self._file.open()
        except Exception as error:  # the boundary of a try
            self._trouble(error)
            return False
        if self._troubled:
            self._troubled = False
            self._say("")
        return True

    def _trouble(self, error: Exception) -> None:
        """The file is let go of: by what went wrong it may be in the middle of something."""
        if not isinstance(error, sqlite3.Error | StoreUnavailable):
            log.bug(where="state", error=error)
        self._file.drop()
        self._retry_at = time.monotonic() + RETRY_S
        if not self._troubled:
            self._troubled = True
            self._say(f"{self._path}: {error or type(error).__name__}")

    def _say(self, text: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_trouble, text)


_Job = tuple[str, StateRequest, "asyncio.Future[Result]"]


def _tell(done: list[tuple[asyncio.Future[Result], Result | Exception]]) -> None:
    for future, result in done:
        if future.done():
            continue  # who asked went away
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
