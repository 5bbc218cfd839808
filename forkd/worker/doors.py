"""Where do connections come in? The listening sockets, shut while there is room elsewhere and none here.

All workers listen on the same sockets, so a connection that one of them does not accept is another's, or
waits a moment for one that is being started: nobody is turned away. Where no other has room, a full worker
accepts all the same: then the longest idle give way (room.py), or the newcomer hears why not.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from typing import cast

from forkd import log
from forkd.rpc import hush

LEAVE_S = 1.0
"""For all that were accepted to be sessions: two turns of the loop, as a rule."""


class Doors:
    """Of one worker. `elsewhere` is what master said last (rpc.messages_pool.Room).

    listeners  by name; each with its backlog, since listening anew sets it anew
    welcome    makes the protocol of a connection to that listener
    full       has this worker as many sessions as it may, with so many more that are on their way in?
    on_shut    called when they are shut because of that
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: Mapping[str, tuple[socket.socket, int]],
        *,
        welcome: Callable[[str], asyncio.Protocol],
        full: Callable[[int], bool],
        on_shut: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._welcome = welcome
        self._full = full
        self._on_shut = on_shut
        self._servers: dict[str, asyncio.Server] = {}
        self._moving: asyncio.Task[None] | None = None
        self.coming = 0
        """Connections that were accepted, and are no sessions yet."""
        self._closed = False
        self._troubled = False
        self.elsewhere = False

    @property
    def open(self) -> bool:
        """Are connections accepted, on every listener?"""
        return len(self._servers) == len(self._listeners)

    async def begin(self) -> None:
        """Accept connections. Raises OSError: on one of them that cannot be, and look() tries again."""
        for name, (sock, backlog) in self._listeners.items():
            if name in self._servers:
                continue
            copy = sock.dup()  # the server closes what it was given
            try:
                # The backlog once more: it calls listen() again, and would set its own 100.
                self._servers[name] = await self._loop.create_server(
                    lambda name=name: self._let_in(name),  # type: ignore[misc]
                    sock=copy,
                    backlog=backlog,
                )
            except BaseException:
                copy.close()
                raise

    def look(self) -> None:
        """Once a second, and when something was said of room elsewhere: should they be open or shut?"""
        if self._closed or self._moving is not None:
            return
        if self._servers and self._must_shut():
            self._shut()
            self._on_shut()
        elif not self.open and not self._must_shut():
            self._moving = self._loop.create_task(self._reopen())

    async def leave(self) -> bool:
        """For good: nothing comes in here any more. Whoever was accepted is a session when this is over, and
        whom the kernel has for a socket that ends with us too. True: there was such a socket, and hush.lift()
        must be done to sessions."""
        self._closed = True
        if self._moving is not None:
            self._moving.cancel()
        by = time.monotonic() + LEAVE_S
        while self.coming and time.monotonic() < by:
            # Who is no session yet would be cut off with the server that accepted him. Where clients come
            # faster than the loop goes round there is always one; then _came_late() finds the moment.
            await asyncio.sleep(0)
        self._shut()
        ending = False
        for name, (sock, _) in self._listeners.items():
            if hush.hushed(sock):
                ending = True
                await self._let_in_by_hand(name, sock)
            sock.close()
        return ending

    def _must_shut(self) -> bool:
        return self.elsewhere and self._full(self.coming)

    def _let_in(self, name: str) -> asyncio.Protocol:
        # Called in the middle of accepting; connection_made() comes a turn of the loop later, so those on
        # their way are counted here. Nor can a server be closed here: this connection would be lost. So what
        # the kernel had queued when the last place was taken comes in with it, and goes by room.py.
        self.coming += 1
        if self._closed:
            return _Late(lambda: self._welcome(name), self._came_late)
        self._loop.call_soon(self._loop.call_soon, self._came)
        if self._must_shut():
            self._loop.call_soon(self.look)
        return self._welcome(name)

    def _came(self) -> None:
        self.coming -= 1

    def _came_late(self) -> None:
        self.coming -= 1
        if not self.coming:
            self._shut()  # all are sessions, and the kernel was not asked for more since

    async def _let_in_by_hand(self, name: str, sock: socket.socket) -> None:
        while True:
            try:
                connection, _ = sock.accept()
            except ConnectionError:
                continue  # he has gone again
            except OSError:
                return  # nobody is left; or no descriptor
            try:
                await self._loop.connect_accepted_socket(lambda: self._welcome(name), connection)
            except OSError:
                connection.close()

    def _shut(self) -> None:
        servers, self._servers = self._servers, {}
        for server in servers.values():
            server.close()

    async def _reopen(self) -> None:
        try:
            await self.begin()
            self._troubled = False
        except OSError as error:
            if not self._troubled:
                log.overload(what="listening again", detail=str(error))
            self._troubled = True
        finally:
            self._moving = None
        if self._closed:
            self._shut()


class _Late(asyncio.Protocol):
    """Somebody who was accepted while the doors close: `came` is called when he is a session."""

    def __init__(self, welcome: Callable[[], asyncio.Protocol], came: Callable[[], None]) -> None:
        self._welcome = welcome
        self._came = came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        session = self._welcome()
        cast(asyncio.Transport, transport).set_protocol(session)
        try:
            session.connection_made(transport)
        finally:
            self._came()
