"""What does a plugin hold of a connection to a target? A stream socket with a timeout, and no ioctl.

A sandbox may not make a socket non-blocking, so each call waits by poll and then acts with MSG_DONTWAIT.
"""

from __future__ import annotations

import _socket
import select
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONNECTION_TIMEOUT_S = 30.0
"""Default of Connection.timeout."""

_AF_UNIX, _SOCK_STREAM, _SHUT_WR = 1, 1, 1
_MSG_DONTWAIT, _MSG_NOSIGNAL = 0x40, 0x4000


class Connection:
    """A connected stream socket.

    timeout  seconds that each of its calls may wait, then TimeoutError. What else goes wrong on the way is
             an OSError, as with any socket.
    """

    __slots__ = ("_poll", "_rest", "_socket", "timeout")

    def __init__(self, connected: Any) -> None:
        self.timeout: float = CONNECTION_TIMEOUT_S
        self._socket = connected
        self._poll = select.poll()
        self._rest = b""
        """Read behind the separator of recv_until()."""

    @classmethod
    def of(cls, fd: int) -> Connection:
        """Of a connected socket's descriptor, which is the connection's from now on."""
        return cls(_socket.socket(_AF_UNIX, _SOCK_STREAM, 0, fd))

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        rest = memoryview(data)
        until = monotonic() + self.timeout
        while rest:
            try:
                rest = rest[self._socket.send(rest, _MSG_DONTWAIT | _MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, until)

    def recv(self, n: int) -> bytes:
        """What is there, up to n octets; waits for the first of them. Empty: the other side has finished."""
        if self._rest:
            piece, self._rest = self._rest[:n], self._rest[n:]
            return piece
        return self._recv(n, monotonic() + self.timeout)

    def recv_until(self, separator: bytes, limit: int) -> bytes:
        """Everything up to the separator and with it; without it when the other side finished before.

        Raises ValueError when it is not among the first `limit` octets.
        """
        until = monotonic() + self.timeout
        found, self._rest = self._rest, b""
        while True:
            end = found.find(separator)
            if end >= 0:
                end += len(separator)
                found, self._rest = found[:end], found[end:]
            if end > limit or (end < 0 and len(found) >= limit):
                raise ValueError(f"no {separator!r} within {limit} octets")
            if end >= 0:
                return found
            piece = self._recv(limit - len(found), until)
            if not piece:
                return found
            found += piece

    def shutdown_write(self) -> None:
        """Say that nothing more will be sent."""
        self._socket.shutdown(_SHUT_WR)

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recv(self, n: int, until: float) -> bytes:
        while True:
            try:
                piece: bytes = self._socket.recv(n, _MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(select.POLLIN, until)
            else:
                return piece

    def _wait(self, event: int, until: float) -> None:
        self._poll.register(self._socket.fileno(), event)
        if not self._poll.poll(max(0.0, until - monotonic()) * 1000):
            raise TimeoutError(f"nothing within {self.timeout:g} s")
