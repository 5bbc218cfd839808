"""How does one record get from one of our processes to another?

One SOCK_SEQPACKET record is one message (messages.py, PROTOCOL.md): borders are kept by the kernel,
a record is whole or absent, and end of file tells that the other side is gone. Nothing here receives
descriptors: any that a peer attaches are dropped by the kernel.

Blocking:      send(), receive().
Poll loops:    try_send(), drain() on non-blocking sockets.
asyncio:       RequestClient, numbered requests to a listening socket, reconnecting.
Neither:       Connector, one try at a time to reach such a socket.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from forkd.rpc.message import Message

MAX_RECORD_BYTES = 65_536
"""Far below the default send buffer (net.core.wmem_default, 208 KiB), so that one record always fits."""

MAX_ERROR = 200
"""Characters of what is wrong with a record: a field's name may be as long as the record."""

RECONNECT_S = 0.5
"""After a failed try of a Connector to reach its peer: the next one fails without a try."""

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


class BadRecord(Exception):  # noqa: N818 - a state of the world
    """The peer sent what PROTOCOL.md does not have: end the connection, say who it was."""


class Unavailable(Exception):  # noqa: N818
    """The peer is not there, does not read, or did not answer in time: do without it."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, blocking, closed on exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@functools.cache
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def encode(message: Message) -> bytes:
    """The record. Raises ValueError when it is larger than MAX_RECORD_BYTES: page what can grow."""
    record = _encoder.encode(message)
    if len(record) > MAX_RECORD_BYTES:
        raise ValueError(f"{type(message).__name__}: record of {len(record)} octets")
    return record


def decode(record: bytes, kind: type[T] | Any) -> T:
    """The message, one of `kind` (a struct, or a union of structs). Raises BadRecord for anything else."""
    if len(record) > MAX_RECORD_BYTES:
        raise BadRecord(f"longer than {MAX_RECORD_BYTES} octets")
    try:
        message: T = _decoder(cast(Hashable, kind)).decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        # The error names what it does not know, as the peer wrote it: whoever reads this is not to obey it.
        said = str(error)[:MAX_ERROR].encode("unicode_escape").decode()
        raise BadRecord(f"{said} in {record[:60]!r}") from error
    return message


def send(sock: socket.socket, message: Message) -> None:
    """Send one record; waits while the peer does not read (blocking socket).

    Raises OSError (BrokenPipeError, ConnectionResetError) when the peer is gone; BlockingIOError on a
    non-blocking socket that is full.
    """
    sock.send(encode(message), socket.MSG_NOSIGNAL)


def try_send(sock: socket.socket, message: Message) -> bool:
    """Send one record or nothing, at once; false when the peer does not read or is gone.

    A peer that is gone is noticed by reading (end of file), so both mean the same here.
    """
    try:
        sock.send(encode(message), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def receive(sock: socket.socket, kind: type[T] | Any) -> T | None:
    """The next message; None at end of file (or a reset, which means the same).

    Raises BadRecord; BlockingIOError when a non-blocking socket has nothing.
    """
    try:
        record = sock.recv(MAX_RECORD_BYTES + 1)
    except ConnectionError:
        return None
    return decode(record, kind) if record else None


def drain(sock: socket.socket, kind: type[T] | Any, *, at_most: int = 64) -> tuple[list[T], bool]:
    """(messages, ended): what is there now, at most `at_most`, so that one peer cannot hold the loop.

    Never waits, whatever the socket's mode. Raises BadRecord; messages before the bad one are lost with
    it, since the peer is not to be believed any more.
    """
    messages: list[T] = []
    for _ in range(at_most):
        try:
            record = sock.recv(MAX_RECORD_BYTES + 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return messages, False
        except ConnectionError:
            return messages, True
        if not record:
            return messages, True
        messages.append(decode(record, kind))
    return messages, False


class Connector:
    """The way to a peer of ours that listens on a SEQPACKET socket, for whoever must not wait for it."""

    __slots__ = ("_path", "_retry_at")

    def __init__(self, path: str) -> None:
        self._path = path
        self._retry_at = 0.0

    def connect(self) -> socket.socket | None:
        """A connection, non-blocking; None: it cannot be had now (for RECONNECT_S it is not even tried)."""
        now = time.monotonic()
        if now < self._retry_at:
            return None
        connection: socket.socket | None = None
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # EMFILE is one way to fail
            connection.setblocking(False)
            # A unix socket connects at once or not at all (EAGAIN: backlog full).
            connection.connect(self._path)
        except OSError:
            if connection is not None:
                connection.close()
            self._retry_at = now + RECONNECT_S
            return None
        return connection


class RequestClient:
    """Numbered requests to a peer of ours that listens on a SEQPACKET socket; one per loop and peer.

    Connects on first use and again after the peer went away; what was under
    way then fails with Unavailable. Never waits for the peer but in the future that request() returns.
    Works on asyncio's and uvloop's loop. Every answer type has a field `n`.

    path     the peer's socket
    answer   struct or union of the answers
    on_lost  called when the connection ends, so that the caller can forget what the peer knew
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str | Path,
        answer: Any,
        *,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._path = str(path)
        self._answer = answer
        self._on_lost = on_lost
        self._connector = Connector(self._path)
        self._socket: socket.socket | None = None
        self._n = 0
        self._waiting: dict[int, tuple[asyncio.Future[Any], asyncio.TimerHandle]] = {}
        self._closed = False

    @property
    def connected(self) -> bool:
        """A connection stands (the peer may have died since; reading will tell)."""
        return self._socket is not None

    def request(self, make: Callable[[int], Message], *, timeout_s: float) -> asyncio.Future[Any]:
        """Send `make(n)` and return the future of its answer.

        The future fails with Unavailable: at once when the peer is not there or does not read, after
        `timeout_s` without an answer, or when the connection ends. Cancelling it is fine.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._n += 1
        n = self._n
        if not self.post(make(n)):
            future.set_exception(Unavailable(self._path))
            return future
        timer = self._loop.call_later(timeout_s, self._late, n)
        self._waiting[n] = (future, timer)
        return future

    def post(self, message: Message) -> bool:
        """Send a message that has no answer; false when it could not be sent now."""
        connection = self._socket or self._connect()
        if connection is None:
            return False
        try:
            connection.send(encode(message), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self._lost()
            return False
        return True

    def close(self) -> None:
        """End the connection; whoever waits gets Unavailable."""
        self._closed = True
        self._lost()

    def _connect(self) -> socket.socket | None:
        connection = None if self._closed else self._connector.connect()
        if connection is not None:
            self._socket = connection
            self._loop.add_reader(connection.fileno(), self._readable)
        return connection

    def _readable(self) -> None:
        if self._socket is None:
            return
        try:
            answers, ended = drain(self._socket, self._answer)
        except BadRecord:
            self._lost()
            return
        for answer in answers:
            waiting = self._waiting.pop(answer.n, None)
            if waiting is not None:
                waiting[1].cancel()
                if not waiting[0].done():
                    waiting[0].set_result(answer)
        if ended:
            self._lost()

    def _late(self, n: int) -> None:
        waiting = self._waiting.pop(n, None)
        if waiting is not None and not waiting[0].done():
            waiting[0].set_exception(Unavailable(f"{self._path}: no answer in time"))

    def _lost(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            self._loop.remove_reader(connection.fileno())
            connection.close()
        waiting, self._waiting = self._waiting, {}
        for future, timer in waiting.values():
            timer.cancel()
            if not future.done():
                future.set_exception(Unavailable(self._path))
        if connection is not None and self._on_lost is not None:
            self._on_lost()
