"""Who has many recipients waits (limits.tarpit_count), on a real daemon: not for ever, at no other's cost."""

from __future__ import annotations

import socket

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import Make

NOBODY_TRUSTED = "[networks]\ntrusted = []\n"
DOMAIN = '[domain."test.local"]\n'


def all_at_once(daemon: Daemon, source: str = "127.0.0.1", recipients: int = 100):
    """A client that pipelines its recipients."""
    sock = socket.create_connection(("127.0.0.1", daemon.port), 60, source_address=(source, 0))
    daemon.clients.append(sock)
    file = sock.makefile("rwb")
    assert file.readline().startswith(b"220 ")
    rows = "".join(f"RCPT TO:<u{number}@test.local>\r\n" for number in range(recipients))
    file.write(b"EHLO c.example\r\n")
    file.flush()
    while file.readline()[3:4] == b"-":
        pass
    file.write(f"MAIL FROM:<a@example.org>\r\n{rows}".encode())
    file.flush()
    assert file.readline()[:4] == b"250 "
    return file


@pytest.mark.slow
def test_a_tarpit_ends_with_the_session(make_daemon: Make):
    """idle_session: a thousand recipients at 5 s each would hold it for more than an hour."""
    config = 'tarpit_count = 2\ntarpit_delay = "1500ms"\n[timeouts]\ncommand = "3s"\nidle_session = "4s"\n'
    daemon = make_daemon(config=f"[limits]\n{config}{NOBODY_TRUSTED}{DOMAIN}")
    replies = all_at_once(daemon).read().splitlines()
    assert replies[-1].startswith(b"421 4.4.2 ")
    assert [reply[:4] for reply in replies[:-1]] == [b"250 "] * 3, "at once, 1.5 s, 3 s; then 4 s are over"
    (ended,) = daemon.told("session")
    assert ended["reason"] == "timeout"


def test_a_tarpitted_session_gives_way(make_daemon: Make):
    """Its sandbox does nothing: when others need one, it ends (421 4.3.2), and not they."""
    limits = "[limits]\nspare = 0\nsandboxes = 16\n"
    entry = f'plugin = "block_senders"\n{limits}[settings]\nsenders = ["x@x.example"]\n'
    daemon = make_daemon(
        server='workers = 1\nstop_timeout = "1s"\n',
        config=f'[limits]\ntarpit_count = 1\ntarpit_delay = "30s"\n{NOBODY_TRUSTED}{DOMAIN}',
        plugins={"10-block_senders.toml": entry},
    )
    # Two sandboxes are what one network may hold.
    slow = [all_at_once(daemon, f"127.0.9.{host}") for host in (1, 2)]
    third = all_at_once(daemon, "127.0.9.3", 0)
    assert slow[0].read().splitlines()[-1].startswith(b"421 4.3.2 ")
    third.write(b"QUIT\r\n")
    third.flush()
    assert third.readline().startswith(b"221 ")
    assert wait_for(lambda: [event for event in daemon.events("session") if event["reason"] == "evicted"])
    assert daemon.stop() == 0
    assert not daemon.events("bug")
