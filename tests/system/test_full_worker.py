"""A worker with as many sessions as it may have (limits.sessions): the longest idle give way."""

from __future__ import annotations

import socket
from typing import BinaryIO

import pytest

from tests.support.daemon import Daemon

from .conftest import Make

FULL = "[limits]\nsessions = 3\n"
TRUSTED = '[networks]\ntrusted = ["127.0.0.2/32"]\n'
ONE = "workers = 1\n"


def connect(daemon: Daemon, source: str = "127.0.0.1") -> tuple[socket.socket, BinaryIO]:
    """A client from that address that has been greeted."""
    peer = socket.create_connection(("127.0.0.1", daemon.port), timeout=30, source_address=(source, 0))
    daemon.clients.append(peer)
    file = peer.makefile("rb")
    assert file.readline().startswith(b"220")
    return peer, file


def say(client: tuple[socket.socket, BinaryIO], command: str) -> bytes:
    peer, file = client
    peer.sendall(command.encode() + b"\r\n")
    return file.readline()


def test_the_longest_idle_gives_way_to_a_newcomer(make_daemon: Make):
    """Issue, item 6. Not the trusted one that is idle longest, nor who is in the middle of mail."""
    daemon = make_daemon(server=ONE, config=FULL + TRUSTED)
    trusted = connect(daemon, "127.0.0.2")
    sender, idle = connect(daemon), connect(daemon)
    assert say(sender, "HELO client.example").startswith(b"250")
    assert say(sender, "MAIL FROM:<a@example.org>").startswith(b"250")
    assert say(idle, "NOOP").startswith(b"250")
    newcomer = connect(daemon)  # waits until one of the three has been idle for a moment
    assert idle[1].readline().startswith(b"421 4.3.2")
    assert idle[1].readline() == b""
    assert say(newcomer, "NOOP").startswith(b"250")
    assert say(trusted, "NOOP").startswith(b"250")
    assert say(sender, "RCPT TO:<user@test.local>").startswith(b"250")
    (ended,) = daemon.told("session")
    assert (ended["reason"], ended["last_reply"][:9]) == ("evicted", "421 4.3.2")


@pytest.mark.slow
def test_where_nobody_is_idle_the_newcomer_hears_it(make_daemon: Make):
    """Transactions are no reason to go: 421, and the client comes again."""
    daemon = make_daemon(server=ONE, config=FULL)
    for _ in range(3):
        sender = connect(daemon)
        assert say(sender, "HELO client.example").startswith(b"250")
        assert say(sender, "MAIL FROM:<a@example.org>").startswith(b"250")
    peer = daemon.connect()
    assert peer.makefile("rb").readline().startswith(b"421 4.3.2")
