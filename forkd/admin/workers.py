"""How does admin ask workers? Over connections that they open to run/workers.sock; it checks who they are.

A worker is who the kernel says (SO_PEERCRED): a process that master has as a worker of such a slot. What it
answers is about its own sessions, as their ids show, and bounded by its type and by what it was asked; who
says anything else is not asked again. One that does not answer in time costs its own sessions in this one
answer, and is named in it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Awaitable, Callable, Sequence

from forkd import log
from forkd.admin.access import Peer
from forkd.rpc import channel
from forkd.rpc.channel import BadRecord
from forkd.rpc.message import Message
from forkd.rpc.messages_sessions import (
    AskSessions,
    FromWorker,
    Kick,
    Kicked,
    SessionEntry,
    SessionFilter,
    Sessions,
    Sort,
    is_of,
)
from forkd.rpc.messages_status import ProcessStatus

ANSWER_S = 3.0
"""For a worker's whole answer: its loop stands still for milliseconds where it is healthy."""

ALIVE = frozenset({"running", "draining"})


@dataclasses.dataclass(frozen=True, slots=True)
class Silent:
    """A worker that did not answer: its sessions are in no list."""

    slot: int
    pid: int
    why: str


@dataclasses.dataclass(slots=True)
class Found:
    """What all workers together said."""

    entries: list[tuple[int, SessionEntry]] = dataclasses.field(default_factory=list)
    """(slot of the worker, session)"""
    fit: int = 0
    total: int = 0
    silent: list[Silent] = dataclasses.field(default_factory=list)


class _Link:
    """One worker's connection."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.connection = connection
        self.pid = pid
        self.bad = ""
        """Why it is not asked any more."""
        self.waiting: dict[int, asyncio.Queue[FromWorker | None]] = {}
        self.owed = 0
        """Records that it may still say: as many as its answers to all that it was asked can have."""


class Workers:
    """From run() until it is cancelled.

    listing  asks master for the processes there are; raises Refused
    """

    def __init__(
        self, listener: socket.socket, listing: Callable[[], Awaitable[Sequence[ProcessStatus]]]
    ) -> None:
        self._listener = listener
        self._listing = listing
        self._links: dict[int, _Link] = {}
        self._n = 0

    async def run(self) -> None:
        """Accept workers, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listener)
                pid = Peer.of(connection).pid
            except OSError as error:
                log.overload(what="workers' socket", detail=str(error))
                await asyncio.sleep(0.1)
                continue
            if pid <= 0 or pid in self._links:
                connection.close()  # one that is bad already, or opens a second one
                continue
            self._links[pid] = link = _Link(connection, pid)
            loop.add_reader(connection.fileno(), self._readable, link)

    def close(self) -> None:
        """Let go of all of them."""
        for link in tuple(self._links.values()):
            self._lost(link)

    async def sessions(self, wanted: SessionFilter, sort: Sort, limit: int) -> Found:
        """At most `limit` sessions of each worker, the first in that order. Raises Refused."""
        found = Found()

        async def ask(process: ProcessStatus) -> None:
            entries: list[SessionEntry] = []

            def take(answer: FromWorker) -> bool:
                if not isinstance(answer, Sessions):
                    raise _Bad(f"{type(answer).__name__} where sessions were asked for")
                if not all(is_of(entry.id, process.slot) for entry in answer.entries):
                    raise _Bad("a session of another worker")
                entries.extend(answer.entries)
                if len(entries) > limit:
                    raise _Bad("more sessions than it was asked for")
                if answer.more and not answer.entries:
                    raise _Bad("a page with nothing on it")
                if answer.more:
                    return False
                found.fit += answer.fit
                found.total += answer.total
                found.entries += [(process.slot, entry) for entry in entries]
                return True

            # A page has an entry at least, the last one may have none.
            await self._ask(
                process,
                lambda n: AskSessions(n=n, filter=wanted, sort=sort, limit=limit),
                take,
                records=limit + 1,
            )

        await self._ask_all(ask, found.silent)
        return found

    async def kick(self, ids: Sequence[str]) -> tuple[set[str], list[Silent]]:
        """End these sessions, each worker its own: (those that there were, workers that did not say). Raises
        Refused."""
        done: set[str] = set()
        silent: list[Silent] = []

        async def ask(process: ProcessStatus) -> None:
            own = tuple(each for each in ids if is_of(each, process.slot))

            def take(answer: FromWorker) -> bool:
                if not isinstance(answer, Kicked):
                    raise _Bad(f"{type(answer).__name__} where sessions were to end")
                done.update(frozenset(own).intersection(answer.ids))
                return True

            if own:
                await self._ask(process, lambda n: Kick(n=n, ids=own), take, records=1)

        await self._ask_all(ask, silent)
        return done, silent

    async def _ask_all(self, ask: Callable[[ProcessStatus], Awaitable[None]], silent: list[Silent]) -> None:
        """Ask every worker that master knows of, all at once."""
        processes = await self._listing()
        workers = [each for each in processes if each.role == "worker" and each.state in ALIVE]
        self._forget({each.pid for each in workers})

        async def one(process: ProcessStatus) -> None:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await ask(process)
            except TimeoutError:
                silent.append(Silent(process.slot, process.pid, f"no answer within {ANSWER_S:g} s"))
            except _Silence as silence:
                silent.append(Silent(process.slot, process.pid, str(silence)))

        await asyncio.gather(*(one(process) for process in workers))

    async def _ask(
        self,
        process: ProcessStatus,
        make: Callable[[int], Message],
        take: Callable[[FromWorker], bool],
        *,
        records: int,
    ) -> None:
        """One request; `take` is given its answers, so many `records` at most, until it says that it has all,
        or raises _Bad."""
        link = self._links.get(process.pid)
        if link is None:
            raise _Silence("it is not connected yet")
        if link.bad:
            raise _Silence(link.bad)
        self._n += 1
        n = self._n
        answers = link.waiting[n] = asyncio.Queue()
        try:
            if not channel.try_send(link.connection, make(n)):
                raise _Silence("it does not read its connection")
            link.owed += records
            while (answer := await answers.get()) is not None:
                records -= 1
                if take(answer):
                    link.owed -= records
                    return
            raise _Silence(link.bad or "it ended")
        except _Bad as bad:
            self._bad(link, str(bad))
            raise _Silence(link.bad) from None
        finally:
            link.waiting.pop(n, None)

    def _readable(self, link: _Link) -> None:
        answers: list[FromWorker]
        try:
            answers, ended = channel.drain(link.connection, FromWorker)
        except BadRecord as error:
            self._bad(link, str(error))
            return
        link.owed -= len(answers)
        if link.owed < 0:
            self._bad(link, "more than it was asked for")
            return
        for answer in answers:
            if (queue := link.waiting.get(answer.n)) is not None:
                queue.put_nowait(answer)
        if ended:
            self._lost(link)

    def _bad(self, link: _Link, why: str) -> None:
        """It is not believed any more: not asked, not heard, until master has another one in its place."""
        link.bad = f"it spoke out of protocol: {why}"
        log.service(act="worker_unasked", level="error", pid=link.pid, detail=link.bad)
        self._hang_up(link)

    def _lost(self, link: _Link) -> None:
        self._links.pop(link.pid, None)
        self._hang_up(link)

    def _hang_up(self, link: _Link) -> None:
        if link.connection.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(link.connection.fileno())
            link.connection.close()
        for queue in link.waiting.values():
            queue.put_nowait(None)

    def _forget(self, pids: set[int]) -> None:
        """Who is no worker of master's, or not any more, has no business here."""
        for link in tuple(self._links.values()):
            if link.pid not in pids:
                self._lost(link)


class _Silence(Exception):  # noqa: N818 - a state of the world
    """Why a worker's answer is missing."""


class _Bad(Exception):  # noqa: N818
    """What it did that no worker does."""
