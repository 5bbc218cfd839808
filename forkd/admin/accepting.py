"""Who comes to a socket of ours, so many at a time? The accept loop of control socket and HTTP."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from forkd import log


class Clients:
    """Each connection is a task that `serve`s and closes it; who is beyond `most` waits: one of them with us,
    the others in the backlog.

    what   the socket's name in the log
    crowd  called when somebody begins to wait: it may end one who is served
    """

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[socket.socket], Coroutine[Any, Any, None]],
        *,
        most: int,
        what: str,
        crowd: Callable[[], object] = lambda: None,
    ) -> None:
        self._listener = listener
        self._serve = serve
        self._most = most
        self._what = what
        self._crowd = crowd
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept, until cancelled."""
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(self._most)
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                # No descriptors left: without the pause this would be a hot loop.
                log.overload(what=self._what, detail=str(error))
                await asyncio.sleep(0.1)
                continue
            if room.locked():
                self._crowd()
            try:
                await room.acquire()
            except asyncio.CancelledError:
                connection.close()
                raise
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: room.release())

    async def close(self, *, wait_s: float) -> None:
        """Let answers under way go out for so long; then end all."""
        if self._tasks and wait_s:
            await asyncio.wait(self._tasks, timeout=wait_s)
        for task in self._tasks:
            task.cancel()


class Held:
    """How many connections does each user have?"""

    def __init__(self) -> None:
        self._of: collections.Counter[int] = collections.Counter()

    @contextlib.contextmanager
    def one_more(self, uid: int) -> Iterator[int]:
        """How many, with the one that he has until the end of this."""
        self._of[uid] += 1
        try:
            yield self._of[uid]
        finally:
            self._of[uid] -= 1
            if not self._of[uid]:
                del self._of[uid]


async def let_go(writer: asyncio.StreamWriter, *, wait_s: float) -> None:
    """Close it when what was written has gone out; after wait_s in any case.

    close() alone keeps descriptor and answer for as long as who asked does not read: for ever, if he likes.
    """
    try:
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), wait_s)
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.transport.abort()
