"""Records that carry descriptors: from master to a worker."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.rpc import channel, passing
from forkd.rpc.messages import Certificate, Stop, ToRole


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = channel.pair()
    yield ends
    for end in ends:
        end.close()


def memory(octets: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, octets)
    return descriptor


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_descriptors_come_with_their_record(pair):
    """In order, each record with its own; closed on exec; those without have none."""
    ours, theirs = pair
    one, two = memory(b"one"), memory(b"two")
    assert passing.try_send(ours, Certificate(name="a"), [one, two])
    assert channel.try_send(ours, Stop(deadline_s=None))
    assert passing.try_send(ours, Certificate(name="b"), [two])
    os.close(one)
    os.close(two)
    messages, ended = passing.drain(theirs, ToRole)
    assert not ended
    assert [type(message) for message, _ in messages] == [Certificate, Stop, Certificate]
    assert [len(descriptors) for _, descriptors in messages] == [2, 0, 1]
    got = [descriptor for _, descriptors in messages for descriptor in descriptors]
    assert [os.pread(descriptor, 10, 0) for descriptor in got] == [b"one", b"two", b"two"]
    for descriptor in got:
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)


def test_a_bad_record_leaves_nothing_open(pair):
    """Its descriptors and those of the records before it are closed."""
    ours, theirs = pair
    one = memory(b"one")
    before = open_descriptors()
    passing.try_send(ours, Certificate(name="a"), [one])
    socket.send_fds(ours, [b"\xc1"], [one])
    with pytest.raises(channel.BadRecord):
        passing.drain(theirs, ToRole)
    assert open_descriptors() == before
    os.close(one)


def test_who_does_not_receive_descriptors_has_none(pair):
    """channel.drain(): the kernel drops them, the message is heard."""
    ours, theirs = pair
    one = memory(b"one")
    before = open_descriptors()
    passing.try_send(ours, Certificate(name="a"), [one])
    assert channel.drain(theirs, ToRole) == ([Certificate(name="a")], False)
    assert open_descriptors() == before
    os.close(one)


def test_a_peer_that_is_gone_is_told_apart_by_reading(pair):
    """try_send() says false, drain() says ended."""
    ours, theirs = pair
    theirs.close()
    assert not passing.try_send(ours, Certificate(name="a"), [0])
    assert passing.drain(ours, ToRole) == ([], True)


def test_a_full_socket_takes_nothing(pair):
    """At once, and later again."""
    ours, theirs = pair
    one = memory(b"one")
    sent = 0
    while passing.try_send(ours, Certificate(name="a"), [one]):
        sent += 1
    assert sent
    messages, _ = passing.drain(theirs, ToRole, at_most=sent + 1)
    assert len(messages) == sent
    for _, descriptors in messages:
        for descriptor in descriptors:
            os.close(descriptor)
    os.close(one)
