"""Clients that cut, drip and stop: nothing of them is left, and the others do not notice."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import STOCK, Make

DIALOGUE = (
    b"EHLO client.example\r\n"
    b"MAIL FROM:<a@example.org> BODY=8BITMIME\r\n"
    b"RCPT TO:<cut@test.local>\r\n"
    b"DATA\r\n"
    b"Subject: x\r\n\r\nhello\r\n..\r\n.\r\n"
    b"MAIL FROM:<b@example.org>\r\n"
    b"RCPT TO:<cut@test.local>\r\n"
    b"BDAT 14\r\nSubject: y\r\n\r\n"
    b"BDAT 7 LAST\r\nhello\r\n"
    b"NOOP\r\n"
    b"QUIT\r\n"
)
FIRST = DIALOGUE.index(b"\r\n.\r\n") + 5
"""So many octets make the first message whole, and so many the second."""
SECOND = DIALOGUE.index(b"hello\r\nNOOP") + 7


def greeted(daemon: Daemon) -> socket.socket:
    peer = daemon.connect()
    assert peer.recv(200).startswith(b"220")
    return peer


def reset(peer: socket.socket) -> None:
    """Close with RST: what lies unread is thrown away, on both sides."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def files(daemon: Daemon, folder: str) -> list[Path]:
    return [path for path in (daemon.var / "spool" / folder).rglob("*") if path.is_file()]


def sessions(daemon: Daemon) -> int:
    return len(daemon.events("session"))


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_session_cut_at_every_byte_of_a_dialogue(how: str, make_daemon: Make):
    """Whole messages are delivered, parts of one never; no session, file or process is left."""
    daemon = make_daemon(plugins=STOCK, listener='early_talker = "ignore"')
    before = daemon.pids()
    whole = 0
    for length in range(len(DIALOGUE) + 1):
        peer = greeted(daemon)
        # All at once, though EHLO and DATA must wait for their replies: the listener says `ignore`.
        peer.sendall(DIALOGUE[:length])
        if how == "end":
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(4096):
                pass
            peer.close()
            whole += (length >= FIRST) + (length >= SECOND)
        else:
            reset(peer)
    wait_for(lambda: sessions(daemon) == len(DIALOGUE) + 1, timeout_s=60)
    assert daemon.events("bug") == []
    wait_for(lambda: not files(daemon, "tmp"), timeout_s=20)
    wait_for(lambda: not files(daemon, "new"), timeout_s=60)
    if how == "end":
        assert len(daemon.mailbox("cut")) == whole
    bodies = {path.read_bytes().partition(b"\n\n")[2] for path in daemon.mailbox("cut")}
    assert bodies <= {b"hello\n.\n", b"hello\n"}
    wait_for(lambda: len(daemon.pids()) <= len(before) + 8, timeout_s=30)
    with daemon.smtp() as client:
        client.sendmail("a@example.org", ["after@test.local"], "Subject: x\n\nhello\n")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_clients_at_one_byte_per_second(make_daemon: Make):
    """They drip for half a minute; others are served meanwhile, and then all of the thousand finish."""
    # Without plugins: their sandboxes are limited by design, and here it is about the wire. A loaded machine
    # may send two octets at once, so that one stands behind EHLO before its reply: hence `ignore`.
    daemon = make_daemon(listener='early_talker = "ignore"')
    drip = b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\n"
    peers = [greeted(daemon) for _ in range(1_000)]
    seconds = 30
    began = time.monotonic()
    for second in range(seconds):
        for peer in peers:
            peer.send(drip[second : second + 1])
        with daemon.smtp() as client:
            client.sendmail("a@example.org", ["meanwhile@test.local"], f"Subject: {second}\n\nhello\n")
        # The rate is what is tested: it is not a wait for something to happen.
        time.sleep(max(0.0, began + second + 1 - time.monotonic()))
    wait_for(lambda: len(daemon.mailbox("meanwhile")) == seconds, timeout_s=30)
    for peer in peers:
        peer.sendall(drip[seconds:])
    for peer in peers:
        said = b""
        while said.count(b"250 ") < 2:
            piece = peer.recv(4096)
            assert piece, said
            said += piece
        peer.sendall(b"QUIT\r\n")
    for peer in peers:
        while peer.recv(4096):
            pass
    wait_for(lambda: sessions(daemon) == 1_000 + seconds, timeout_s=30)
    assert {event["reason"] for event in daemon.events("session")} == {"quit"}
