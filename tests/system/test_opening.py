"""Before the greeting: delay and early talkers, names, rates over all workers, wire per client network."""

from __future__ import annotations

import email
import socket
import time

import pytest

from tests.support.daemon import Daemon
from tests.support.nameserver import NameServer
from tests.support.waiting import wait_for

from .conftest import Make

NOBODY_TRUSTED = "[networks]\ntrusted = []\n"


def connect(daemon: Daemon, source: str = "127.0.0.1") -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", daemon.port), timeout=30, source_address=(source, 0))
    daemon.clients.append(peer)
    return peer


def first_words(daemon: Daemon, source: str = "127.0.0.1") -> bytes:
    return connect(daemon, source).recv(1000)


def mail(daemon: Daemon, source: str, recipients: int = 1) -> list[bytes]:
    """The codes and first words of the replies to a mail's commands, greeting and EHLO left out."""
    peer = connect(daemon, source)
    file = peer.makefile("rb")
    file.readline()
    peer.sendall(b"HELO client.example\r\n")
    file.readline()
    said = []
    for command in (
        b"MAIL FROM:<a@example.org>",
        *[b"RCPT TO:<user%d@test.local>" % number for number in range(recipients)],
        b"RSET",
    ):
        peer.sendall(command + b"\r\n")
        said.append(file.readline()[:9])
    peer.close()
    return said


# --- the greeting delay ---------------------------------------------------------------------------------


def test_who_talks_before_the_greeting_has_554_at_once(make_daemon: Make):
    """listener.greeting_delay: a bot that does not wait is told so, and does not hold its place for the
    whole delay."""
    daemon = make_daemon(config=NOBODY_TRUSTED, listener='greeting_delay = "1m"')
    peer = connect(daemon)
    peer.sendall(b"EHLO bot.example\r\n")
    assert peer.recv(1000).startswith(b"554 5.5.1")
    assert peer.recv(1000) == b""
    (event,) = wait_for(lambda: daemon.events("session"))
    assert event["reason"] == "early talker"
    assert event["last_reply"].startswith("554 5.5.1")


def test_a_handshake_before_the_greeting_is_told_apart(make_daemon: Make):
    """TLS clients speak at once: not an early talker's text, which would help nobody."""
    daemon = make_daemon(config=NOBODY_TRUSTED, listener='greeting_delay = "1m"')
    peer = connect(daemon)
    peer.sendall(b"\x16\x03\x01\x02\0")
    assert peer.recv(1000).startswith(b"421 4.7.0 TLS")
    assert peer.recv(1000) == b""
    (event,) = daemon.told("session")
    assert event["reason"] == "tls"
    assert event["last_reply"].startswith("421 4.7.0 TLS")
    assert len(daemon.events("tls_failure")) == 1


def test_who_waits_is_greeted_after_the_delay_and_trusted_clients_at_once(make_daemon: Make):
    """Two clients at the same time: the trusted one is served while the other one waits."""
    config = '[networks]\ntrusted = ["127.0.0.2/32"]\n'
    daemon = make_daemon(config=config, listener='greeting_delay = "1s"')
    polite = connect(daemon)
    began = time.monotonic()
    assert first_words(daemon, "127.0.0.2").startswith(b"220")
    assert polite.recv(1000).startswith(b"220")
    assert time.monotonic() - began > 0.9
    polite.sendall(b"QUIT\r\n")
    assert polite.recv(1000).startswith(b"221")


def test_an_early_talker_is_served_where_the_admin_allows_it(make_daemon: Make):
    """early_talker = "ignore": the delay is waited for all the same, then everything is answered."""
    listener = 'greeting_delay = "1s"\nearly_talker = "ignore"'
    daemon = make_daemon(config=NOBODY_TRUSTED, listener=listener)
    peer = connect(daemon)
    file = peer.makefile("rb")
    peer.sendall(b"HELO bot.example\r\nQUIT\r\n")
    began = time.monotonic()
    assert [file.readline()[:3] for _ in range(3)] == [b"220", b"250", b"221"]
    assert time.monotonic() - began > 0.5


def test_a_client_that_goes_away_in_the_delay_leaves_nothing(make_daemon: Make):
    daemon = make_daemon(config=NOBODY_TRUSTED, listener='greeting_delay = "1m"')
    connect(daemon).close()
    (event,) = wait_for(lambda: daemon.events("session"))
    assert event["reason"] == "lost"
    assert not daemon.events("bug")


# --- names ----------------------------------------------------------------------------------------------


PROXIES = '[networks]\nproxy = ["127.0.0.1/32"]\n'


def greeted_as(daemon: Daemon, address: str) -> socket.socket:
    """A client with that address, behind a proxy; it has been greeted."""
    peer = connect(daemon)
    peer.sendall(f"PROXY TCP4 {address} 198.51.100.1 40000 25\r\n".encode())
    assert peer.recv(1000).startswith(b"220")
    return peer


def test_a_name_that_proves_right_stands_in_the_trace(make_daemon: Make):
    """Pointer record with forward check; a name that lies, and none at all, are not shown."""
    with NameServer() as server:
        server.host("192.0.2.7", "mail.client.example")
        server.pointer("192.0.2.8", "mail.client.example")
        config = f'{PROXIES}[names]\nservers = ["{server.address}"]\n'
        daemon = make_daemon(listener="proxy = true", config=config)
        for user, address, shown in (
            ("proven", "192.0.2.7", "(mail.client.example [192.0.2.7])"),
            ("lying", "192.0.2.8", "([192.0.2.8])"),
            ("without", "192.0.2.9", "([192.0.2.9])"),
        ):
            peer = greeted_as(daemon, address)
            file = peer.makefile("rb")
            for command in (
                "HELO c.example",
                "MAIL FROM:<a@example.org>",
                f"RCPT TO:<{user}@test.local>",
                "DATA",
                "Subject: x\r\n\r\nhello\r\n.",
            ):
                peer.sendall(command.encode() + b"\r\n")
                assert file.readline()[:1] in b"23"
            (path,) = wait_for(lambda user=user: daemon.mailbox(user), timeout_s=20)
            received = email.message_from_bytes(path.read_bytes())["Received"]
            assert shown in " ".join(received.split())


@pytest.mark.slow
def test_a_dead_resolver_delays_a_greeting_by_its_timeout_at_most(make_daemon: Make):
    """names.timeout; after a few silent lookups nobody is delayed any more, until it answers again."""
    with NameServer() as server:
        server.answer = server.silent
        config = f'{PROXIES}[names]\nservers = ["{server.address}"]\ntimeout = "1s"\n'
        daemon = make_daemon(listener="proxy = true", config=config, server="workers = 1\n")
        for last in range(3):
            greeted_as(daemon, f"192.0.2.{last}").close()
        wait_for(lambda: [e for e in daemon.events("service") if e["act"] == "resolver_silent"])
        # Ten seconds if each of them were looked up; the socket's timeout is 30.
        began = time.monotonic()
        for last in range(10, 20):
            greeted_as(daemon, f"192.0.2.{last}").close()
        assert time.monotonic() - began < 5
        server.answer = server.from_records
        wait_for(
            lambda: [e for e in daemon.events("service") if e["act"] == "resolver_answers"], timeout_s=30
        )


# --- limits and rates -----------------------------------------------------------------------------------


def test_rates_hold_over_both_workers(make_daemon: Make):
    """anvil counts for all: whichever worker the kernel gives a connection to, the limit is one. Each client
    address is its own; each /24 of them has one more limit."""
    config = (
        f"{NOBODY_TRUSTED}[limits]\nconnections_per_minute = 8\nmessages_per_minute = 4\n"
        "recipients_per_minute = 5\n"
    )
    daemon = make_daemon(config=config, server="workers = 2\n")
    connections = [first_words(daemon, "127.0.0.3")[:9] for _ in range(10)]
    assert connections == [b"220 " + connections[0][4:]] * 8 + [b"421 4.7.0"] * 2
    messages = [mail(daemon, "127.0.0.4")[0] for _ in range(6)]
    assert messages == [b"250 2.1.0"] * 4 + [b"450 4.7.1"] * 2
    recipients = mail(daemon, "127.0.0.5", recipients=3)[1:-1] + mail(daemon, "127.0.0.5", recipients=4)[1:-1]
    assert recipients == [b"250 2.1.5"] * 5 + [b"452 4.7.1"] * 2
    assert mail(daemon, "127.0.0.6") == [b"250 2.1.0", b"250 2.1.5", b"250 2.0.0"]
    refused = [event["reply"] for event in daemon.events("refused")]
    assert len(refused) == 4


def test_rates_and_sessions_of_a_network(make_daemon: Make):
    """limits.…_network: the clients of one network together, those of another one on their own."""
    config = (
        f"{NOBODY_TRUSTED}[limits]\nsessions_per_network = 2\nmessages_per_minute_network = 3\n"
        "network_prefix_v4 = 24\n"
    )
    daemon = make_daemon(config=config, server="workers = 2\n")
    one, two = connect(daemon, "127.0.1.1"), connect(daemon, "127.0.1.2")
    assert one.recv(1000).startswith(b"220")
    assert two.recv(1000).startswith(b"220")
    assert first_words(daemon, "127.0.1.3").startswith(b"421 4.7.0")
    assert first_words(daemon, "127.0.2.1").startswith(b"220")
    messages = [mail(daemon, f"127.0.3.{last}")[0] for last in (1, 2, 3, 4)]
    assert messages == [b"250 2.1.0"] * 3 + [b"450 4.7.1"]
    one.close()
    wait_for(lambda: first_words(daemon, "127.0.1.3").startswith(b"220"))


def test_trusted_clients_have_no_rates(make_daemon: Make):
    """networks.trusted: loopback by default."""
    daemon = make_daemon(
        config="[limits]\nconnections_per_minute = 1\nmessages_per_minute = 1\nsessions_per_client = 1\n"
    )
    kept = [connect(daemon) for _ in range(4)]
    assert all(peer.recv(1000).startswith(b"220") for peer in kept)
    assert [mail(daemon, "127.0.0.1")[0] for _ in range(3)] == [b"250 2.1.0"] * 3


# --- wire -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["normalize", "reject"])
def test_bare_line_ends_are_met_as_the_clients_network_has_it(make_daemon: Make, listener: str):
    """networks.wire_reject, wire_normalize: the narrower one wins, both win over listener.wire."""
    config = (
        '[networks]\nwire_reject = ["127.0.1.0/24"]\nwire_normalize = ["127.0.1.128/25", "127.0.2.0/24"]\n'
    )
    daemon = make_daemon(config=config, listener=f'wire = "{listener}"')

    def end_of_data(source: str) -> bytes:
        peer = connect(daemon, source)
        file = peer.makefile("rb")
        file.readline()
        for command in (b"HELO c.example", b"MAIL FROM:<>", b"RCPT TO:<user@test.local>", b"DATA"):
            peer.sendall(command + b"\r\n")
            file.readline()
        peer.sendall(b"Subject: x\r\n\r\nbare\nline\r\n.\r\n")
        return file.readline()[:9]

    assert end_of_data("127.0.0.1") == (b"250 2.0.0" if listener == "normalize" else b"550 5.6.0")
    assert end_of_data("127.0.1.1") == b"550 5.6.0"
    assert end_of_data("127.0.1.200") == b"250 2.0.0"
    assert end_of_data("127.0.2.1") == b"250 2.0.0"
