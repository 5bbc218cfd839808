"""Clients that are slow, gone, or half closed: limits hold, and nothing of them is left."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import STOCK, Make
from .test_faults import misbehave

FAST = '[timeouts]\ncommand = "2s"\ndata_block = "2s"\n'
UNPROBED = "[probe]\nenabled = false\n"
"""For those that count descriptors: a worker that is probed for the first time has more."""


def begin_data(daemon: Daemon, user: str = "user") -> socket.socket:
    """A connection behind 354."""
    peer = daemon.connect()
    file = peer.makefile("rb")
    assert file.readline().startswith(b"220")
    for command, code in (
        (b"HELO client.example\r\n", b"250"),
        (b"MAIL FROM:<a@example.org>\r\n", b"250"),
        (f"RCPT TO:<{user}@test.local>\r\n".encode(), b"250"),
        (b"DATA\r\n", b"354"),
    ):
        peer.sendall(command)
        assert file.readline().startswith(code)
    return peer


def temporary(daemon: Daemon) -> list[Path]:
    return list((daemon.var / "spool" / "tmp").rglob("*/*"))


def open_files(daemon: Daemon) -> int:
    """Descriptors of all workers."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in daemon.role("worker"))


def test_a_client_that_says_nothing_gets_421_and_is_closed(make_daemon: Make):
    """RFC 5321 4.5.3.2.7; 421 before every close that we decide."""
    daemon = make_daemon(config=FAST)
    peer = daemon.connect()
    assert peer.recv(1000).startswith(b"220")
    assert peer.recv(1000).startswith(b"421 4.4.2")
    assert peer.recv(1000) == b""
    wait_for(lambda: [e for e in daemon.events("session") if e["reason"] == "timeout"])


@pytest.mark.slow
def test_a_client_that_stops_in_the_message_leaves_no_file(make_daemon: Make):
    """RFC 5321 4.5.3.2.5; the half message is nobody's."""
    daemon = make_daemon(config=FAST + UNPROBED)
    before = open_files(daemon)
    peer = begin_data(daemon)
    peer.sendall(b"Subject: x\r\n\r\n" + b"half a message\r\n" * 20_000)
    wait_for(lambda: temporary(daemon))
    assert peer.recv(1000).startswith(b"421 4.4.2")
    peer.close()
    wait_for(lambda: not temporary(daemon))
    wait_for(lambda: open_files(daemon) <= before)
    assert not daemon.mailbox("user")


@pytest.mark.parametrize("size", [100, 300_000], ids=["in memory", "in a file"])
def test_a_client_that_vanishes_in_the_message_leaves_no_file(make_daemon: Make, size: int):
    """Cut at any byte of the message: nothing is kept, nothing delivered."""
    daemon = make_daemon(config=UNPROBED)
    before = open_files(daemon)
    peer = begin_data(daemon)
    peer.sendall(b"Subject: x\r\n\r\n" + b"x" * size)
    peer.close()
    wait_for(lambda: [e for e in daemon.events("session") if e["reason"] == "lost"])
    wait_for(lambda: not temporary(daemon))
    wait_for(lambda: open_files(daemon) <= before)
    assert not daemon.mailbox("user")


def test_a_client_may_close_its_side_behind_a_whole_pipelined_dialogue(daemon: Daemon):
    """RFC 2920: what was sent whole is served, though the client reads only afterwards."""
    peer = daemon.connect()
    file = peer.makefile("rb")
    file.readline()
    peer.sendall(b"EHLO client.example\r\n")
    while file.readline()[3:4] != b" ":
        pass
    peer.sendall(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<user@test.local>\r\nDATA\r\n")
    replies = [file.readline()[:3] for _ in range(3)]
    peer.sendall(b"Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n")
    peer.shutdown(socket.SHUT_WR)
    replies += [line[:3] for line in file]
    assert replies == [b"250", b"250", b"354", b"250", b"221"]
    wait_for(lambda: daemon.mailbox("user"), timeout_s=20)


@pytest.mark.slow
def test_a_client_that_never_reads_does_not_fill_the_worker(make_daemon: Make):
    """Replies stop where nobody takes them, and so does the parsing of commands."""
    daemon = make_daemon(config=FAST)
    peer = daemon.connect()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.settimeout(5)
    # It waits where it must: else it is refused for that, and nothing is seen of what is tested here.
    assert peer.recv(200).startswith(b"220")
    peer.sendall(b"HELO client.example\r\n")
    assert peer.recv(200).startswith(b"250")
    sent = 0
    with pytest.raises((TimeoutError, ConnectionError)):
        while sent < 256 << 20:
            sent += peer.send(b"RSET\r\n" * 10_000)
    assert sent < 64 << 20
    with daemon.smtp() as other:
        assert other.noop()[0] == 250


def test_a_plugin_that_fails_at_disconnect_is_logged_and_hurts_nobody(make_daemon: Make):
    """The session is over: there is nobody to tell but the log."""
    daemon = make_daemon(plugins=misbehave(), copy=("misbehave",))
    for act in ("segv", "raise", "sleep"):
        with daemon.smtp() as client:
            client.ehlo(f"disconnect-{act}.bad.example")
            client.sendmail("a@example.org", ["user@test.local"], "Subject: x\r\n\r\nhello\r\n")
    wait_for(lambda: [e["hook"] for e in daemon.events("plugin_failure")] == ["disconnect"] * 3)


def test_a_session_cut_at_any_byte_leaves_the_next_one_alone(make_daemon: Make):
    """Every prefix of a dialogue, then gone."""
    daemon = make_daemon(plugins=STOCK)
    dialogue = (
        b"EHLO c.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<cut@test.local>\r\nDATA\r\n"
        b"Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n"
    )
    for cut in range(1, len(dialogue), 3):
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as peer:
            peer.sendall(dialogue[:cut])
    with daemon.smtp() as client:
        client.sendmail("a@example.org", ["after@test.local"], "Subject: x\r\n\r\nhello\r\n")
    wait_for(lambda: daemon.mailbox("after"), timeout_s=20)
    assert not daemon.events("bug")
