"""How does a worker answer admin? Over a connection that it opens itself: which sessions, and: end this one.

Admin is asked for by the worker, since its listening socket is master's and outlives it: whichever of the two
is started anew finds the other again. Nothing here waits for admin: an answer that it does not take is
dropped, with the connection.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from forkd.rpc import channel
from forkd.rpc.channel import BadRecord, Connector
from forkd.rpc.messages_sessions import MAX_ENTRIES, AskSessions, Kick, Kicked, Sessions, ToWorker
from forkd.worker import ending, showing

if TYPE_CHECKING:
    from forkd.worker.services import Services
    from forkd.worker.session import Session

RECORD_BYTES = 48_000
"""Of entries in one record, far below what a record may have."""
TAKE_S = 5.0
"""For admin to take an answer; then it is thought to hang."""


class Control:
    """The worker's end; look() is called once a second, from the loop that does the work."""

    def __init__(
        self, path: str, services: Services, background: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self._services = services
        self._background = background
        self._connector = Connector(path)
        self._socket: socket.socket | None = None

    def look(self) -> None:
        """Connect, where there is no connection."""
        if self._socket is None and (connection := self._connector.connect()) is not None:
            self._socket = connection
            self._services.loop.add_reader(connection.fileno(), self._readable)

    def close(self) -> None:
        """End it."""
        connection, self._socket = self._socket, None
        if connection is not None:
            self._services.loop.remove_reader(connection.fileno())
            connection.close()

    def _readable(self) -> None:
        connection = self._socket
        if connection is None:
            return
        requests: list[ToWorker]
        try:
            requests, ended = channel.drain(connection, ToWorker)
        except BadRecord:
            self.close()
            return
        for request in requests:
            if isinstance(request, Kick):
                self._kick(request)
            else:
                self._background(self._show(request))
        if ended:
            self.close()
            self.look()

    # --- which sessions -------------------------------------------------------------------------------

    async def _show(self, request: AskSessions) -> None:
        """One record after the other; between two of them the loop serves clients."""
        connection, sessions, now = self._socket, self._services.sessions, time.monotonic()
        if connection is None:
            return
        until = now + TAKE_S
        try:
            chosen, fit = showing.choose(sessions, request, now)
        except ValueError:  # no network
            chosen, fit = [], 0
        total, at = len(sessions), 0
        while True:
            entries, at = self._page(chosen, at, now)
            answer = Sessions(
                n=request.n, entries=tuple(entries), fit=fit, total=total, more=at < len(chosen)
            )
            while self._socket is connection and not channel.try_send(connection, answer):
                if time.monotonic() > until:
                    self.close()
                    return
                await asyncio.sleep(0.01)
            if self._socket is not connection or not answer.more:
                return  # another admin has not asked
            await asyncio.sleep(0)

    def _page(self, chosen: list[Session], at: int, now: float) -> tuple[list[Any], int]:
        """(entries of the sessions from `at` on that still live, where the next page begins)."""
        entries: list[Any] = []
        size = 0
        while at < len(chosen) and len(entries) < MAX_ENTRIES and size < RECORD_BYTES:
            session = chosen[at]
            at += 1
            if session in self._services.sessions:
                entry = showing.entry(session, now)
                entries.append(entry)
                # 200 for all numbers and names; a character has four octets at most.
                size += 200 + 4 * sum(map(len, (entry.sender, entry.helo, entry.name, entry.user)))
        return entries, at

    # --- end this one ---------------------------------------------------------------------------------

    def _kick(self, request: Kick) -> None:
        wanted = frozenset(request.ids)
        found = [session for session in self._services.sessions if session.id in wanted]
        for session in found:
            ending.kick(session)
        if self._socket is not None:
            answer = Kicked(n=request.n, ids=tuple(session.id for session in found))
            channel.try_send(self._socket, answer)
