"""How does a sandbox get to the broker? The worker makes its channel, and gives the other end away here.

One connection to the broker, made when the first session needs it and again after the broker went away. The
broker's listening socket is master's: while the broker is being restarted, what is given waits there, and
a sandbox's request waits in its channel. Nothing here ever waits; what cannot be given now is closed,
and that sandbox sees Unavailable.
"""

from __future__ import annotations

import _socket
import asyncio
import os
import socket

from forkd.rpc import passing
from forkd.rpc.channel import Connector, try_send
from forkd.rpc.messages import SandboxChannel, SandboxSession
from forkd.sandbox.link import refuse_descriptors

_SHUT_RDWR = int(socket.SHUT_RDWR)

Token = tuple[int, int]
"""A channel that was given: which connection to the broker, which number there."""


class Brokering:
    """A worker's connection to the broker; path "" where there is none."""

    __slots__ = ("_age", "_connector", "_loop", "_n", "_socket")

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str) -> None:
        self._loop = loop
        self._connector = Connector(path) if path else None
        self._socket: socket.socket | None = None
        self._age = 0
        """Connections that have ended."""
        self._n = 0

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
        """The sandbox at that channel serves another session; False: the broker was not told, and takes what
        it asks for the session before."""
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
        connection = None if self._connector is None else self._connector.connect()
        if connection is not None:
            # The broker says nothing to workers: whatever can be read is its end.
            self._loop.add_reader(connection.fileno(), self.close)
            self._socket = connection
        return connection


class Asking:
    """One sandbox's channel to the broker, for as long as it lives.

    theirs   the sandbox's end, for its zygote; whoever sends it closes it. A copy stays here: whoever else
             has one (a hostile zygote keeps what it likes), what we shut down is shut for all.
    Raises OSError when it cannot be made; then nothing is left open.
    """

    __slots__ = ("_brokering", "_copy", "_given", "_ours", "theirs")

    def __init__(self, brokering: Brokering) -> None:
        self._brokering = brokering
        ours, self._copy = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0)
        try:
            refuse_descriptors(ours)
            self.theirs = os.dup(self._copy.fileno())
        except OSError:
            ours.close()
            self._copy.close()
            raise
        self._ours = ours.detach()
        """The broker's end; -1: given away."""
        self._given: Token | None = None

    def begin(self, plugin: str, session: str) -> None:
        """Who asks there from now on. A spare is nobody's, and the broker is not told of it."""
        if self._ours >= 0:
            end, self._ours = self._ours, -1
            self._given = self._brokering.give(plugin, session, end)
        elif not self._brokering.renew(self._given, plugin, session):
            self._shut()

    def lives(self) -> bool:
        """The broker has the other end, as far as is known."""
        return self._brokering.has(self._given)

    def close(self) -> None:
        """The sandbox is at its end, or about to be: nothing is asked on it any more."""
        self._shut()
        self._copy.close()
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1

    def _shut(self) -> None:
        self._given = None
        self._copy.shutdown(_SHUT_RDWR)
