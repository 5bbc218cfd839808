"""How does a sandbox get to the broker? The worker makes its channel, and gives the other end away here.

One connection to the broker, made when the first session needs it and again after the broker went away. The
broker's listening socket is master's: while the broker is being restarted, what is given waits there, and
a sandbox's request waits in its channel. Nothing here ever waits; what cannot be given now is closed,
and that sandbox sees Unavailable.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time

from forkd.rpc import passing
from forkd.rpc.channel import RECONNECT_S, try_send
from forkd.rpc.messages import SandboxChannel, SandboxSession

Token = tuple[int, int]
"""A channel that was given: which connection to the broker, which number there."""


class Brokering:
    """A worker's connection to the broker; path "" where there is none."""

    __slots__ = ("_age", "_loop", "_n", "_path", "_retry_at", "_socket")

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self._loop = loop
        self._path = path
        self._socket: socket.socket | None = None
        self._age = 0
        """Connections that have ended."""
        self._n = 0
        self._retry_at = 0.0

    def give(self, plugin: str, session: str, end: int) -> Token | None:
        """Give the broker its end of a sandbox's channel; None: it has none, and `end` is closed anyhow."""
        try:
            connection = self._socket or self._connect()
            if connection is None:
                return None
            self._n += 1
            message = SandboxChannel(id=self._n, plugin=plugin, session=session)
            return (self._age, self._n) if passing.try_send(connection, message, [end]) else None
        finally:
            os.close(end)

    def renew(self, token: Token | None, plugin: str, session: str) -> bool:
        """The sandbox at that channel serves another session; False: the broker was not told."""
        if not self.has(token) or token is None or self._socket is None:
            return False
        return try_send(self._socket, SandboxSession(id=token[1], plugin=plugin, session=session))

    def has(self, token: Token | None) -> bool:
        """The broker that was given this channel lives, as far as is known."""
        return token is not None and token[0] == self._age

    def close(self) -> None:
        """End the connection, and with it every channel that was given."""
        connection, self._socket = self._socket, None
        if connection is not None:
            self._age += 1
            self._loop.remove_reader(connection.fileno())
            connection.close()

    def _connect(self) -> socket.socket | None:
        now = time.monotonic()
        if not self._path or now < self._retry_at:
            return None
        connection: socket.socket | None = None
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # EMFILE is one way to fail
            connection.setblocking(False)
            # A unix socket connects at once or not at all (EAGAIN: backlog full).
            connection.connect(self._path)
            # The broker says nothing to workers: whatever can be read is its end.
            self._loop.add_reader(connection.fileno(), self.close)
        except OSError:
            if connection is not None:
                connection.close()
            self._retry_at = now + RECONNECT_S
            return None
        self._socket = connection
        return connection
