"""What master itself goes by changes by a reload: listeners, certificates, the log, how long a stop takes."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import time

import pytest

from tests.support.daemon import Daemon, free_port
from tests.support.pki import Authority, Pair, serial_of
from tests.support.waiting import wait_for

from .conftest import Make
from .test_reload import change, greeting, reloaded, say

pytestmark = pytest.mark.slow

NAME = "mx.example"


def add(daemon: Daemon, text: str) -> dict:
    """More tables; what `forkd reload` says."""
    change(daemon, "[listener.default]", f"{text}\n[listener.default]")
    return reloaded(daemon)


def serial(daemon: Daemon) -> int:
    """Of the certificate that a new session is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client:
        client.starttls(context=context)
        assert isinstance(client.sock, ssl.SSLSocket)
        der = client.sock.getpeercert(binary_form=True)
        assert der is not None
        return serial_of(der)


def refuses(port: int) -> bool:
    try:
        greeting(port)
    except ConnectionRefusedError:
        return True
    return False


def test_a_listener_comes_and_goes(make_daemon: Make):
    """It serves when the report says so; when it is gone it refuses, and whoever came by it is served on."""
    daemon, port = make_daemon(), free_port()
    text = f'[listener.more]\naddress = "127.0.0.1:{port}"'
    assert {each["key"].split(".")[1] for each in add(daemon, text)["applied"]} == {"more"}
    assert greeting(port).startswith(b"220 ")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as old:
        assert old.recv(1000).startswith(b"220 ")
        change(daemon, text, "")
        reloaded(daemon)
        wait_for(lambda: refuses(port), timeout_s=20)
        assert say(old, b"NOOP").startswith(b"250")
    assert greeting(daemon.port).startswith(b"220 ")
    assert daemon.stop() == 0


def test_a_certificate_that_a_reload_brought_is_looked_at(make_daemon: Make):
    """It is shown when the report says so; the next one that is put in its place is, without a reload."""
    daemon = make_daemon()
    authority = Authority(daemon.folder)

    def issue() -> Pair:
        pair = authority.pair(NAME)
        os.chown(pair.key, daemon.folder.stat().st_uid, -1)
        return pair

    pair = issue()
    first = pair.serial()
    add(daemon, f'[tls]\nreread = "1s"\n{pair.table(NAME)}')
    assert serial(daemon) == first
    second = issue().serial()
    wait_for(lambda: {serial(daemon) for _ in range(8)} == {second}, timeout_s=30)
    assert second != first
    assert daemon.stop() == 0


def test_the_log_is_written_as_the_file_says_now(make_daemon: Make):
    """By all that start anew, and by master."""
    daemon = make_daemon()
    change(daemon, 'format = "json"', 'format = "logfmt"\nlevel = "warning"')
    reloaded(daemon)
    before = len(daemon.log_text())
    assert greeting(daemon.port).startswith(b"220 ")
    assert daemon.forkd("reload", "--config", "nowhere.toml").returncode != 0
    change(daemon, "[listener.default]", "[listeners.default]")
    assert daemon.forkd("reload", "--data-dir", "var").returncode != 0
    wait_for(lambda: "act=not_reloaded" in daemon.log_text()[before:], timeout_s=20)
    assert "event=service act=reloading" not in daemon.log_text()[before:], "that is said at info"
    assert "event=session" not in daemon.log_text()[before:]
    assert daemon.stop() == 0


@pytest.mark.parametrize(("old", "new", "begins"), [("json", "logfmt", "time="), ("logfmt", "json", "{")])
def test_who_starts_anew_writes_the_log_as_the_file_says_now(
    make_daemon: Make, old: str, new: str, begins: str
):
    """Workers are forked before the configuration is in force."""
    daemon = make_daemon()
    change(daemon, 'format = "json"', f'format = "{old}"')
    reloaded(daemon)
    change(daemon, f'format = "{old}"', f'format = "{new}"')
    reloaded(daemon)
    before = len(daemon.log_text())
    assert greeting(daemon.port).startswith(b"220 ")

    def ended() -> list[str]:
        lines = daemon.log_text()[before:].splitlines()
        return [line for line in lines if "process=worker" in line or '"process":"worker' in line]

    wait_for(ended, timeout_s=20)
    assert all(line.startswith(begins) for line in ended()), ended()
    assert daemon.stop() == 0


def test_anvil_which_is_kept_writes_the_log_so_too(make_daemon: Make):
    """It writes of nothing but a worker that breaks the protocol."""
    daemon = make_daemon()
    (pid,) = daemon.role("anvil")
    change(daemon, 'format = "json"', 'format = "logfmt"')
    reloaded(daemon)
    before = len(daemon.log_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        worker.connect(str(daemon.var / "run" / "anvil.sock"))
        worker.send(b"no record")
        wait_for(lambda: "out of protocol" in daemon.log_text()[before:], timeout_s=20)
    assert "process=anvil.0 event=overload" in daemon.log_text()[before:]
    assert daemon.role("anvil") == [pid]
    assert daemon.stop() == 0


def test_a_stop_takes_as_long_as_the_file_says_now(make_daemon: Make):
    """A client in the middle of its message had an hour, and has two seconds."""
    daemon = make_daemon(server='stop_timeout = "1h"')
    change(daemon, '"1h"', '"2s"')
    reloaded(daemon)
    peer = daemon.connect()
    assert peer.recv(1000).startswith(b"220 ")
    for line in (b"HELO c.example", b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@test.local>", b"DATA"):
        assert say(peer, line)[:1] in b"23"
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 40
