"""How does arithmetic of 20 ms keep off the loop? A few threads with a short queue in front."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

THREADS: Final = 2
"""Per worker. There is a worker per CPU already; the second keeps one slow check from holding the others."""
WAITING: Final = 32
"""Checks that may wait: a third of a second at 20 ms each. More would be answered when nobody waits."""

P = ParamSpec("P")
T = TypeVar("T")


class Overloaded(Exception):  # noqa: N818
    """Too many wait already: 454 4.7.0, please try again."""


class Pool:
    """Threads for checks of passwords; made with the first one."""

    def __init__(self, *, threads: int = THREADS, waiting: int = WAITING) -> None:
        self._most = threads + waiting
        self._threads = threads
        self._executor: concurrent.futures.ThreadPoolExecutor | None = None
        self._pending = 0

    async def run(self, work: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        """`work` in a thread. Raises Overloaded at once, or whatever `work` raises.

        Cancelling drops the result; work that had begun goes on to its end and keeps its place so long.
        """
        if self._pending >= self._most:
            raise Overloaded(f"{self._pending} checks of passwords wait")
        if self._executor is None:
            self._executor = concurrent.futures.ThreadPoolExecutor(self._threads, "auth")
        loop = asyncio.get_running_loop()
        self._pending += 1
        future = self._executor.submit(work, *arguments, **more)
        future.add_done_callback(lambda _: self._done(loop))
        return await asyncio.wrap_future(future)

    def _done(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread, or in ours when it was cancelled before it began."""
        try:
            loop.call_soon_threadsafe(self._leave)
        except RuntimeError:
            return  # the loop is closed: the process ends

    def _leave(self) -> None:
        self._pending -= 1

    def close(self) -> None:
        """No more work; what runs is not waited for."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
