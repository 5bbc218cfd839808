"""How does a record carry descriptors? From master to a worker, from a worker to the broker, from qmgr to the
launcher; one way only.

A descriptor that comes with a record is the receiver's own from then on: it closes it. Everywhere else
(channel.py) descriptors that a peer attaches are dropped by the kernel; here too they are taken from
those alone whom the kernel names: master holds the other end of the pair since the fork, and only workers'
user may connect to the broker's socket, only qmgr's to the launcher's.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import Any, TypeVar

from forkd.rpc import channel
from forkd.rpc.message import Message

MAX_PASSED = 4
"""Descriptors in one record: a chain and its key; a program's 0, 1, 2 and 6."""

T = TypeVar("T")


def try_send(sock: socket.socket, message: Message, descriptors: Sequence[int]) -> bool:
    """Send one record with copies of `descriptors` or nothing, at once; false as channel.try_send()."""
    assert len(descriptors) <= MAX_PASSED
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    try:
        sock.sendmsg([channel.encode(message)], passed, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def drain(
    sock: socket.socket, kind: type[T] | Any, *, at_most: int = 64
) -> tuple[list[tuple[T, list[int]]], bool]:
    """([(message, its descriptors)], ended), otherwise as channel.drain().

    Raises BadRecord; the descriptors of the bad record are closed, those before it with it.
    """
    messages: list[tuple[T, list[int]]] = []
    try:
        for _ in range(at_most):
            try:
                record, ancillary, _flags, _address = sock.recvmsg(
                    channel.MAX_RECORD_BYTES + 1,
                    socket.CMSG_SPACE(MAX_PASSED * array.array("i").itemsize),
                    socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
                )
            except BlockingIOError:
                return messages, False
            except ConnectionError:
                return messages, True
            descriptors = _descriptors(ancillary)
            if not record:
                return messages, True
            try:
                messages.append((channel.decode(record, kind), descriptors))
            except channel.BadRecord:
                _close(descriptors)
                raise
    except channel.BadRecord:
        for _, descriptors in messages:
            _close(descriptors)
        raise
    return messages, False


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
