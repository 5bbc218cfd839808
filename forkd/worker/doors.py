"""Where do connections come in? The listening sockets, shut while there is room elsewhere and none here.

All workers listen on the same sockets, so a connection that one of them does not accept is another's, or
waits a moment for one that is being started: nobody is turned away. Where no other has room, a full worker
accepts all the same: then the longest idle give way (room.py), or the newcomer hears why not.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping


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
        self._servers: list[asyncio.Server] = []
        self._moving: asyncio.Task[None] | None = None
        self.coming = 0
        """Connections that were accepted, and are no sessions yet."""
        self._closed = False
        self.elsewhere = False

    @property
    def open(self) -> bool:
        """Are connections accepted?"""
        return bool(self._servers)

    async def begin(self) -> None:
        """Accept connections."""
        self._servers = [
            # Of a copy: the server closes what it was given. The backlog once more: it calls listen() again,
            # and would set its own 100.
            await self._loop.create_server(
                lambda name=name: self._let_in(name),  # type: ignore[misc]
                sock=sock.dup(),
                backlog=backlog,
            )
            for name, (sock, backlog) in self._listeners.items()
        ]

    def look(self) -> None:
        """Once a second, and when something was said of room elsewhere: should they be open or shut?"""
        if self._closed or self._moving is not None:
            return
        if self.open and self._must_shut():
            self._shut()
            self._on_shut()
        elif not self.open and not self._must_shut():
            self._moving = self._loop.create_task(self._reopen())

    def close(self) -> None:
        """For good: nothing comes in here any more, and a socket that only we have is gone."""
        self._closed = True
        self._shut()
        for sock, _ in self._listeners.values():
            sock.close()

    def _must_shut(self) -> bool:
        return self.elsewhere and self._full(self.coming)

    def _let_in(self, name: str) -> asyncio.Protocol:
        # Called in the middle of accepting; connection_made() comes a turn of the loop later, so those on
        # their way are counted here. Nor can a server be closed here: this connection would be lost. So what
        # the kernel had queued when the last place was taken comes in with it, and goes by room.py.
        self.coming += 1
        self._loop.call_soon(self._loop.call_soon, self._came)
        if self._must_shut():
            self._loop.call_soon(self.look)
        return self._welcome(name)

    def _came(self) -> None:
        self.coming -= 1

    def _shut(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()

    async def _reopen(self) -> None:
        try:
            await self.begin()
        finally:
            self._moving = None
        if self._closed:
            self._shut()
