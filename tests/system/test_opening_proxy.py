"""Behind a proxy: who the client is comes in a PROXY header, from networks.proxy and nobody else."""

from __future__ import annotations

import contextlib
import email
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.worker.proxy import SIGNATURE
from tests.support.daemon import Daemon, free_port, swaks
from tests.support.pki import Authority
from tests.support.waiting import wait_for

from .conftest import Make

PROXIES = '[networks]\nproxy = ["127.0.0.0/8"]\n'


def trace(daemon: Daemon, user: str) -> str:
    """The Received field of the one mail that `user` got."""
    (path,) = wait_for(lambda: daemon.mailbox(user), timeout_s=20)
    return " ".join(email.message_from_bytes(path.read_bytes())["Received"].split())


@contextlib.contextmanager
def haproxy(folder: Path, backend: str) -> Iterator[int]:
    """A real HAProxy in front of `backend` (its server line); the port it listens on."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n"
        f"listen smtp\n  bind 127.0.0.1:{port}\n  server forkd {backend}\n"
    )
    process = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:

        def up() -> bool:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True

        wait_for(up)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def through(port: int, arguments: str) -> subprocess.CompletedProcess[str]:
    return swaks(Daemon(Path(), port=port), arguments)


def test_haproxy_in_front_tells_who_the_client_is(make_daemon: Make, tmp_path: Path):
    """send-proxy and send-proxy-v2, TLVs and health checks (LOCAL) included: mail comes from the client's
    address and port, not from HAProxy's."""
    daemon = make_daemon(listener="proxy = true", config=PROXIES)
    address = f"127.0.0.1:{daemon.port}"
    options = {
        "v1": "send-proxy",
        "v2": "send-proxy-v2 check inter 200ms check-send-proxy",
        "tlvs": "send-proxy-v2 proxy-v2-options crc32c",
    }
    for name, option in options.items():
        with haproxy(tmp_path, f"{address} {option}") as port:
            # The client is 127.0.0.9 to HAProxy; only the header can tell forkd so.
            done = through(port, f"--local-interface 127.0.0.9 --to {name}@test.local --from a@example.org")
            assert done.returncode == 0, done.stdout
        assert "[127.0.0.9]" in trace(daemon, name)
    clients = {event["client"].partition(":")[0] for event in daemon.told("message", len(options))}
    assert clients == {"127.0.0.9"}
    assert not daemon.events("bug")


ADDRESSES_4 = (
    "--proxy-source 192.0.2.7 --proxy-source-port 4711 --proxy-dest 198.51.100.1 --proxy-dest-port 25"
)
ADDRESSES_6 = (
    "--proxy-source 2001:db8::7 --proxy-source-port 4711 --proxy-dest 2001:db8::1 --proxy-dest-port 25"
)
SWAKS = {
    f"--proxy-version 1 --proxy-family TCP4 {ADDRESSES_4}": "192.0.2.7:4711",
    f"--proxy-version 1 --proxy-family TCP6 {ADDRESSES_6}": "2001:db8::7:4711",
    f"--proxy-family TCP4 {ADDRESSES_4}": "192.0.2.7:4711",
    f"--proxy-version 2 --proxy-family AF_INET {ADDRESSES_4}": "192.0.2.7:4711",
    f"--proxy-version 2 --proxy-family AF_INET6 {ADDRESSES_6} --proxy-protocol STREAM"
    " --proxy-command PROXY": "2001:db8::7:4711",
    # The connection's own address counts.
    "--proxy-version 1 --proxy UNKNOWN": "127.0.0.1:",
}


def test_every_proxy_option_of_swaks_is_understood(proxied: Daemon):
    """Both versions, both families, UNKNOWN."""
    for number, (arguments, client) in enumerate(SWAKS.items(), start=1):
        done = swaks(proxied, f"{arguments} --from a@example.org --to user@test.local")
        assert done.returncode == 0, done.stdout
        events = wait_for(lambda count=number: len(found := proxied.events("message")) == count and found)
        assert events[-1]["client"].startswith(client), arguments


@pytest.mark.slow
def test_what_swaks_sends_malformed_is_cut_off(proxied: Daemon):
    """--proxy and a family that is none; datagrams over a stream; and its LOCAL, which is command 2 (not 0)
    and an octet too short (swaks 20201014)."""
    for arguments in (
        f"--proxy-version 2 --proxy-family AF_INET {ADDRESSES_4} --proxy-command LOCAL",
        "--proxy 'TCP9 192.0.2.7'",
        f"--proxy-version 2 --proxy-family AF_INET {ADDRESSES_4} --proxy-protocol DGRAM",
    ):
        assert swaks(proxied, f"{arguments} --quit-after BANNER --to user@test.local").returncode != 0
    wait_for(lambda: len(refusals(proxied)) == 3)


def refusals(daemon: Daemon) -> list[dict]:
    return [event for event in daemon.events("service") if event["act"] == "proxy_refused"]


@pytest.fixture
def proxied(make_daemon: Make) -> Daemon:
    return make_daemon(listener="proxy = true", config=PROXIES + "[names]\nresolve = false\n")


def test_who_is_no_proxy_is_not_believed(make_daemon: Make):
    """Only networks.proxy; a direct client is told that this is no place for it, and the log says who."""
    daemon = make_daemon(listener="proxy = true", config='[networks]\nproxy = ["127.0.0.2/32"]\n')
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as peer:
        peer.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n")
        assert peer.recv(1000).startswith(b"421 4.7.0")
        with contextlib.suppress(ConnectionResetError):  # what it sent is not read any more
            assert peer.recv(1000) == b""
    event = wait_for(lambda: refusals(daemon))[0]
    assert event["client"].startswith("127.0.0.1:")
    with socket.create_connection(
        ("127.0.0.1", daemon.port), timeout=30, source_address=("127.0.0.2", 0)
    ) as peer:
        peer.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n")
        assert peer.recv(1000).startswith(b"220")


def test_a_header_is_nothing_where_it_was_not_agreed_on(make_daemon: Make):
    """proxy = false: whoever sends one is a client that talks nonsense, wherever it comes from."""
    daemon = make_daemon(config=PROXIES)
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as peer:
        file = peer.makefile("rb")
        assert file.readline().startswith(b"220")
        peer.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n")
        assert file.readline().startswith(b"500")


@pytest.mark.slow
def test_what_is_no_header_is_cut_off_without_a_word(proxied: Daemon):
    """proxy-protocol.txt section 2: the receiver must not guess; silence is cut off in a few seconds."""
    for octets in (
        b"EHLO client.example\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        SIGNATURE + b"\x31\x11\0\x0c" + b"x" * 12,
        b"\x16\x03\x01\x02\0",
        b"",
    ):
        with socket.create_connection(("127.0.0.1", proxied.port), timeout=60) as peer:
            peer.sendall(octets)
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1000) == b""
    wait_for(lambda: [e["reason"] for e in proxied.events("session")] == ["proxy"] * 5)
    assert len(refusals(proxied)) == 5
    assert not proxied.events("bug")


def test_limits_and_trust_follow_the_client_not_the_proxy(make_daemon: Make):
    """The proxy may be trusted; its clients are not for that, and one of them cannot use up the others'
    sessions."""
    config = PROXIES + "[limits]\nsessions_per_client = 1\n[names]\nresolve = false\n"
    daemon = make_daemon(listener="proxy = true", config=config)

    def client(address: str) -> tuple[socket.socket, bytes]:
        peer = daemon.connect()
        peer.sendall(f"PROXY TCP4 {address} 198.51.100.1 40000 25\r\n".encode())
        return peer, peer.recv(1000)

    first, greeting = client("192.0.2.7")
    assert greeting.startswith(b"220")
    assert client("192.0.2.7")[1].startswith(b"421 4.7.0")
    assert client("192.0.2.8")[1].startswith(b"220")
    first.close()
    wait_for(lambda: client("192.0.2.7")[1].startswith(b"220"))


def test_smtp_sent_together_with_the_header_is_early_talk(proxied: Daemon):
    """What stands behind the header came before the greeting all the same."""
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=30) as peer:
        peer.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\nEHLO client.example\r\n")
        assert peer.recv(1000).startswith(b"554 5.5.1")


def test_tls_behind_the_header_of_a_listener_in_the_clear_is_told_apart(proxied: Daemon):
    """The first octets of the client are those behind the header."""
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=30) as peer:
        file = peer.makefile("rb")
        peer.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n\x16\x03\x01\x02\0")
        assert file.readline().startswith(b"421 4.7.0 TLS")
        assert file.read() == b""
    assert proxied.told("session")[0]["reason"] == "tls"
    (failure,) = proxied.events("tls_failure")
    assert failure["client"] == "192.0.2.7:40000"


def test_tls_begins_behind_the_header(make_daemon: Make, who, tmp_path: Path):
    """Implicit TLS behind HAProxy: header and handshake may come in one piece."""
    daemon = make_daemon(listener='proxy = true\ntls = "implicit"', config=PROXIES, start=False)
    daemon.config += Authority(daemon.folder).pair("mx.test.local").table("mx.test.local")
    daemon.write_config()
    for path in daemon.folder.iterdir():
        os.chown(path, who.uid, -1)
    daemon.start()
    for number, option in enumerate(("send-proxy", "send-proxy-v2")):
        with haproxy(tmp_path, f"127.0.0.1:{daemon.port} {option}") as port:
            user = f"user{number}"
            done = through(
                port,
                f"--tls-on-connect --local-interface 127.0.0.9 --to {user}@test.local --from a@example.org",
            )
            assert done.returncode == 0, done.stdout
        received = trace(daemon, user)
        assert "[127.0.0.9]" in received
        assert "with ESMTPS" in received
