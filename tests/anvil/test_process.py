"""A real anvil process, asked over its socket as workers do."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from forkd.rpc import channel
from forkd.rpc.messages import ClientConnect, ClientCounts, ClientDisconnect, Happened, LastMinute
from tests.support.trivial import Trivial
from tests.support.waiting import wait_for


@pytest.fixture
def forkd(tmp_path):
    with Trivial(tmp_path, "good,anvil") as forkd:
        yield forkd


class Worker:
    """One worker's connection."""

    def __init__(self, forkd: Trivial) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(10)
        self.sock.connect(str(forkd.run / "anvil.sock"))

    def connect(self, client: str, n: int = 1) -> int:
        channel.send(self.sock, ClientConnect(n=n, client=client))
        answer = channel.receive(self.sock, ClientCounts)
        assert answer is not None and answer.n == n
        return answer.sessions

    def counts(self, client: str, network: str, most: int = 0) -> ClientCounts:
        channel.send(self.sock, ClientConnect(n=7, client=client, network=network, most=most))
        answer = channel.receive(self.sock, ClientCounts)
        assert answer is not None
        return answer

    def happened(self, what: str, *keys: str, times: int = 1, most: tuple[int, ...] = ()) -> tuple[int, ...]:
        channel.send(self.sock, Happened(n=9, what=what, keys=keys, times=times, most=most))
        answer = channel.receive(self.sock, LastMinute)
        assert answer is not None and answer.n == 9
        return answer.times

    def disconnect(self, client: str) -> None:
        channel.send(self.sock, ClientDisconnect(client=client))


def test_clients_are_counted_over_workers(forkd):
    """One limit for the machine."""
    one, two = Worker(forkd), Worker(forkd)
    assert one.connect("a") == 1
    assert two.connect("a") == 2
    one.disconnect("a")
    assert one.connect("a") == 2
    one.sock.close()
    two.sock.close()


def test_networks_are_counted_over_their_clients(forkd):
    """limits.sessions_per_network and connections_per_minute_network."""
    one, two = Worker(forkd), Worker(forkd)
    one.counts("a", "net")
    one.counts("b", "net")
    counts = two.counts("c", "net")
    assert (counts.sessions, counts.network_sessions) == (1, 3)
    channel.send(one.sock, ClientDisconnect(client="a", network="net"))
    counts = one.counts("a", "net")
    assert (counts.network_sessions, counts.network_connections_last_minute) == (3, 4)
    one.sock.close()
    two.sock.close()


def test_what_happened_is_counted_for_each_key_over_workers(forkd):
    """Rates of messages, recipients and failed AUTH; asking alone counts nothing."""
    one, two = Worker(forkd), Worker(forkd)
    assert one.happened("message", "a", "net") == (1, 1)
    assert two.happened("message", "b", "net") == (1, 2)
    assert two.happened("recipient", "a", times=3) == (3,)
    channel.send(one.sock, Happened(n=0, what="auth_failure", keys=("a", "account x")))
    assert one.happened("auth_failure", "a", "account x", "nobody", times=0) == (1, 1, 0)
    assert one.happened("auth_failure", "a", times=0) == (1,)
    one.sock.close()
    two.sock.close()


def test_what_a_client_is_refused_is_not_its_networks(forkd):
    """Else one client uses up what all of its network may do."""
    worker = Worker(forkd)
    for _ in range(9):
        told = worker.happened("message", "a", "net", most=(3, 50))
        counts = worker.counts("a", "net", most=3)
    assert told == (9, 3)
    assert (counts.connections_last_minute, counts.network_connections_last_minute) == (9, 3)
    assert worker.happened("message", "b", "net", most=(3, 50)) == (1, 4)
    worker.sock.close()


def test_a_dead_workers_clients_are_forgotten(forkd):
    """End of file clears what it had (prototype of kill -9)."""
    one, two = Worker(forkd), Worker(forkd)
    for _ in range(5):
        one.connect("a")
    one.sock.close()

    def forgotten() -> bool:
        sessions = two.connect("a")
        two.disconnect("a")
        return sessions == 1

    wait_for(forgotten)
    two.sock.close()


def test_a_worker_out_of_protocol_is_dropped_and_the_others_are_not(forkd):
    """A bad record ends one connection."""
    good, bad = Worker(forkd), Worker(forkd)
    assert good.connect("a") == 1
    bad.sock.send(b"\xc1")
    assert bad.sock.recv(10) == b""
    assert good.connect("a") == 2
    good.sock.close()
    bad.sock.close()


def test_a_killed_anvil_begins_again_on_the_same_socket(forkd):
    """The socket is master's, so a worker that connects again is served."""
    worker = Worker(forkd)
    assert worker.connect("a") == 1
    (pid,) = (pid for pid, title in forkd.titles().items() if "anvil" in title)
    os.kill(pid, signal.SIGKILL)
    assert worker.sock.recv(10) == b""
    again = Worker(forkd)
    assert again.connect("a") == 1
    worker.sock.close()
    again.sock.close()
