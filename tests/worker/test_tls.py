"""TLS in a worker: which certificate, what is told of the client, and a handshake that takes too long."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from forkd.config.schema import Config, Listener, Tls
from forkd.worker import tls
from forkd.worker.tls import Certificates, TlsFacts
from tests.support.pki import Authority, Pair

CONFIG = Config(listener={"default": Listener(), "ask": Listener(client_certificates="ask")})


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


def loaded(pairs: dict[str, Pair], config: Config = CONFIG, **more: Any) -> Certificates:
    return Certificates(config, {n: (opened(p.chain), opened(p.key)) for n, p in pairs.items()}, **more)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (None, "mx.one.example"),
        ("", "mx.one.example"),
        ("mx.one.example", "mx.one.example"),
        ("MX.Two.example.", "MX.two.example"),
        ("x.wild.example", "*.wild.example"),
        ("exact.wild.example", "exact.wild.example"),
        ("wild.example", "mx.one.example"),
        ("a.b.wild.example", "mx.one.example"),
        ("*.wild.example", "*.wild.example"),
        ("other.example", "mx.one.example"),
    ],
)
def test_the_name_chooses(authority: Authority, asked: str | None, given: str):
    """Exact before wildcard, wildcard for one label, the first table for the rest; without case."""
    pair = authority.pair("any.example")
    names = ("mx.one.example", "MX.two.example", "*.wild.example", "exact.wild.example")
    certificates = loaded(dict.fromkeys(names, pair))
    assert certificates.name_for(asked) == given
    certificates.close()


def test_the_policy(authority: Authority):
    """1.2 at least, no compression, no renegotiation; ciphers as configured."""
    config = Config(listener={"default": Listener()}, tls=Tls(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"))
    certificates = loaded({"a": authority.pair("a.example")}, config)
    context = certificates.context("default")
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.verify_mode == ssl.CERT_NONE
    old_style = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert old_style == ["ECDHE-ECDSA-AES256-GCM-SHA384"]
    assert loaded({}).context if not loaded({}) else False
    certificates.close()


def test_only_asking_listeners_ask(authority: Authority):
    """Two listeners, one pair, two ways."""
    certificates = loaded({"a": authority.pair("a.example")}, client_ca=opened(authority.file))
    assert certificates.context("default").verify_mode == ssl.CERT_NONE
    assert certificates.context("ask").verify_mode == ssl.CERT_OPTIONAL
    assert certificates.context("ask").get_ca_certs()
    certificates.close()


def test_a_pair_that_does_not_load_leaves_the_old_one(authority: Authority):
    """And none of its descriptors."""
    one, two = authority.pair("one.example"), authority.pair("two.example")
    certificates = loaded({"one.example": one})
    before = certificates.context("default")
    count = len(list(Path("/proc/self/fd").iterdir()))
    certificates.replace("one.example", [opened(one.chain), opened(two.key)])
    assert certificates.context("default") is before
    assert len(list(Path("/proc/self/fd").iterdir())) == count
    certificates.replace("one.example", [opened(two.chain), opened(two.key)])
    assert certificates.context("default") is not before
    assert len(list(Path("/proc/self/fd").iterdir())) == count
    certificates.close()


# --- the client's certificate -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "shown"),
    [
        (None, ""),
        ({}, ""),
        ({"issuer": ()}, "no subject"),
        (
            {"subject": ((("countryName", "DE"),), (("organizationName", "A, B"),), (("commonName", "mx"),))},
            r"CN=mx,O=A\, B,C=DE",
        ),
        ({"subject": ((("commonName", "b\u00fccher\r\nX: y"),),)}, r"CN=b\C3\BCcher\0D\0AX: y"),
        ({"subject": ((("commonName", "a"), ("emailAddress", "b@c")),)}, "CN=a,emailAddress=b@c"),
    ],
)
def test_a_subject_is_printable(certificate: dict[str, Any] | None, shown: str):
    """RFC 4514, and never a line end: it goes into headers and the log."""
    assert tls.subject(certificate) == shown


# --- the handshake ------------------------------------------------------------------------------------------


class Peer(asyncio.Protocol):
    """What start_tls() needs of a session."""

    def __init__(self, certificates: Certificates) -> None:
        counters = types.SimpleNamespace(tls=0, tls_failures=0)
        self.services = types.SimpleNamespace(certificates=certificates, counters=counters)
        self.listener, self.id, self.peer, self.reason = "default", "s1", ("192.0.2.1", 1), ""
        self.tls: TlsFacts | None = None
        self.got = bytearray()
        self.lost = asyncio.get_running_loop().create_future()
        self.made = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)


def serve(certificates: Certificates, client: Callable[[socket.socket, Peer], Any]) -> Any:
    """A connection on a uvloop, its server end wrapped in a Peer; `client` is a coroutine function."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        _, peer = await loop.connect_accepted_socket(lambda: Peer(certificates), ours)
        await peer.made
        try:
            return await client(theirs, peer)
        finally:
            peer.transport.abort()
            theirs.close()
            await peer.lost

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def test_a_handshake_that_takes_too_long_ends(authority: Authority):
    """Logged, counted, the session told that its connection is gone: nothing waits for ever."""
    certificates = loaded({"a": authority.pair("a.example")}, handshake_s=0.05)

    async def silent(_theirs: socket.socket, peer: Peer) -> None:
        assert await tls.start_tls(cast(Any, peer)) is None
        assert peer.reason == "tls"
        assert peer.services.counters.tls_failures == 1
        await peer.lost

    serve(certificates, silent)
    certificates.close()


@pytest.mark.parametrize("early", [0, 1, 100, 10_000])
def test_octets_read_before_belong_to_the_handshake(authority: Authority, early: int):
    """What came in one segment with a PROXY header: the ClientHello, or a part of it."""
    certificates = loaded({"a": authority.pair("a.example")})
    context = ssl.create_default_context(cafile=str(authority.file))

    async def hello(theirs: socket.socket, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        first = outgoing.read()
        peer.transport.pause_reading()  # as the session does: nothing is read before the handshake
        handshake = asyncio.ensure_future(tls.start_tls(cast(Any, peer), first[:early]))
        await loop.sock_sendall(theirs, first[early:])
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(await loop.sock_recv(theirs, 65_536))
        client.write(b"inside")
        await loop.sock_sendall(theirs, outgoing.read())
        facts = await handshake
        assert facts is not None
        assert (facts.version, facts.bits, facts.certificate) == ("TLSv1.3", 256, "")
        assert peer.tls == facts
        while peer.got != b"inside":
            await asyncio.sleep(0)

    serve(certificates, hello)
    certificates.close()
