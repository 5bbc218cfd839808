"""How does a worker ask a zygote for sandboxes, and hear of their ends? One connection per plugin.

Requests are batched (several forks per request cost a fifth less each) and never block: what the
socket does not take now waits for it. The listening socket lives in master, so a zygote that is being
restarted is a queue, not an error.
"""

from __future__ import annotations

import _socket
import array
import os
import socket
from collections.abc import Sequence
from typing import Protocol

from forkd.sandbox import wire
from forkd.sandbox.wire import Death

SO_PASSRIGHTS = 83
"""Linux 6.16: with 0 the kernel refuses descriptors sent to us. Before it, a plain recv() drops them."""

_MSG_DONTWAIT = int(socket.MSG_DONTWAIT)


class Birth(Protocol):
    """A sandbox that waits to be forked."""

    id: int
    theirs: tuple[int, ...]
    """The sandbox's ends: channel, leash, output, and that to the broker where it has one; closed once they
    are sent."""


class Link:
    """The worker's connection to one zygote."""

    __slots__ = ("_path", "_socket", "_waiting")

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: _socket.socket | None = None
        self._waiting: list[Birth] = []

    @property
    def fd(self) -> int:
        """The connection, for epoll; -1 while there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def waiting(self) -> int:
        """Births not sent yet."""
        return len(self._waiting)

    def unsent(self) -> set[int]:
        """Ids of the sandboxes that no zygote was asked for yet."""
        return {birth.id for birth in self._waiting}

    def ask(self, birth: Birth) -> None:
        """Queue one; flush() sends."""
        self._waiting.append(birth)

    def flush(self) -> bool:
        """Send what waits; False: the socket is full, come again when it can be written.

        Connects first where there is no connection. Raises OSError when the zygote cannot be reached; what
        waited is still there: take it with abandon().
        """
        while self._waiting:
            batch = self._waiting[: wire.MAX_FORKS]
            descriptors = [fd for birth in batch for fd in birth.theirs]
            if not self.send(wire.pack_fork([birth.id for birth in batch]), descriptors):
                return False
            del self._waiting[: len(batch)]
            for fd in descriptors:
                os.close(fd)
        return True

    def send(self, record: bytes, descriptors: Sequence[int]) -> bool:
        """Send one request now; False: the socket is full. The descriptors stay ours.

        Connects first where there is no connection. Raises OSError when the zygote cannot be reached.
        """
        if self._socket is None:
            self._socket = self._connect()
        rights = array.array("i", descriptors)
        try:
            self._socket.sendmsg([record], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], _MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def abandon(self) -> list[Birth]:
        """Give up what waits; its descriptors are closed, so that each channel reads end of file."""
        given_up, self._waiting = self._waiting, []
        for birth in given_up:
            for fd in birth.theirs:
                os.close(fd)
        return given_up

    def receive(self) -> list[Death] | None:
        """Deaths reported now, [] when none is there; None: the connection is over, or broke the protocol."""
        if self._socket is None:
            return None
        try:
            record = self._socket.recv(wire.MAX_RECORD_BYTES + 1, _MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        try:
            return wire.unpack_deaths(record) if record else None
        except wire.WireError:
            return None

    def drop(self) -> None:
        """Close the connection; the next flush() makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> _socket.socket:
        connection = _socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC, 0)
        try:
            refuse_descriptors(connection)
            connection.setblocking(False)
            connection.connect(self._path)
            connection.setblocking(True)  # every call says MSG_DONTWAIT itself
        except OSError:
            connection.close()
            raise
        return connection


def refuse_descriptors(end: _socket.socket) -> None:
    """Where the kernel can, make sending us descriptors an error of the sender."""
    global _can_refuse  # noqa: PLW0603 - asked once per process, on the first socket
    if not _can_refuse:
        return
    try:
        end.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        _can_refuse = False


_can_refuse = True
