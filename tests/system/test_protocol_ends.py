"""Clients that go away at a bad moment, or never speak TLS: told in the log for what it was, and no bug."""

from __future__ import annotations

import base64
import socket
import struct

from tests.support.waiting import wait_for
from tests.system.conftest import Make
from tests.system.test_auth import SECRET, prepare

HELLO = b"EHLO client.example\r\n"


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def reset(peer: socket.socket) -> None:
    """Close with RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def test_who_leaves_or_speaks_no_tls_is_no_bug(make_daemon: Make, who) -> None:
    """SMTP in the clear to a listener with implicit TLS, sent together with the connection; a password sent
    together with RST, so that the socket has no name any more when the backend is told of it."""
    mail = prepare(make_daemon(start=False), who.uid)
    daemon = mail.daemon
    for _ in range(10):
        with connect(mail.port("smtps")) as peer:
            peer.sendall(HELLO)
            assert peer.recv(100) == b""
    login = b"AUTH PLAIN " + base64.b64encode(f"\0anna\0{SECRET}".encode()) + b"\r\n"
    for _ in range(10):
        peer = connect(mail.port("plain"))
        peer.recv(1000)
        peer.sendall(HELLO)
        peer.recv(1000)
        peer.sendall(login)
        reset(peer)
    ends = wait_for(lambda: found if len(found := daemon.events("session")) >= 20 else [], timeout_s=20)
    assert [end["reason"] for end in ends if end["listener"] == "smtps"] == ["tls"] * 10
    assert [end["reason"] for end in ends if end["listener"] == "plain"] == ["lost"] * 10
    failures = daemon.events("tls_failure")
    assert [failure["reason"] for failure in failures] == ["wrong version number"] * 10
    assert not daemon.events("bug")
    strays = [line for line in daemon.log_text().splitlines() if not line.startswith("{")]
    assert not strays
