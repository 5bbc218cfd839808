"""May this peer connect now?"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path

import msgspec
import pytest

from forkd.config.schema import Config, Limits, Networks
from forkd.rpc import channel
from forkd.rpc.messages import ClientConnect, ClientCounts, ClientDisconnect
from forkd.smtp import replies
from forkd.worker import admission

CLIENT = ipaddress.ip_address("192.0.2.7")


def config(**limits: int) -> Config:
    return msgspec.structs.replace(
        Config(), limits=msgspec.structs.replace(Limits(), **limits), networks=Networks()
    )


def test_an_ipv4_mapped_address_counts_as_the_ipv4_address():
    """RFC 4291 2.5.5.2: ::ffff:192.0.2.7 is 192.0.2.7, in limits, logs and for plugins."""
    assert admission.peer_address("::ffff:192.0.2.7") == CLIENT


def test_a_scope_is_no_part_of_an_address():
    assert admission.peer_address("fe80::1%eth0") == ipaddress.ip_address("fe80::1")


@pytest.mark.parametrize(
    ("address", "key"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64")],
)
def test_limits_count_an_ipv4_address_or_an_ipv6_64(address: str, key: str):
    assert admission.client_key(ipaddress.ip_address(address)) == key


class Anvil:
    """A peer that speaks anvil's side of PROTOCOL.md with counts the test chooses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.setblocking(False)
        self.said: list[object] = []
        self.counts = ClientCounts(n=0, sessions=1, connections_last_minute=1)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        peer, _ = await loop.sock_accept(self.listener)
        with peer:
            peer.setblocking(False)
            while record := await loop.sock_recv(peer, channel.MAX_RECORD_BYTES):
                message = channel.decode(record, ClientConnect | ClientDisconnect)
                self.said.append(message)
                if isinstance(message, ClientConnect):
                    answer = msgspec.structs.replace(self.counts, n=message.n)
                    await loop.sock_sendall(peer, channel.encode(answer))


async def ask(tmp_path: Path, counts: ClientCounts, **limits: int) -> object:
    anvil = Anvil(tmp_path / "anvil.sock")
    anvil.counts = counts
    serving = asyncio.create_task(anvil.serve())
    client = channel.RequestClient(asyncio.get_running_loop(), str(anvil.path), ClientCounts)
    here = admission.Admission(config(**limits), workers=2, anvil=client)
    try:
        key = here.enter(CLIENT)
        assert isinstance(key, str)
        return await here.ask(key)
    finally:
        client.close()
        serving.cancel()
        anvil.listener.close()


def test_the_limit_holds_over_all_workers(tmp_path: Path):
    counts = ClientCounts(n=0, sessions=51, connections_last_minute=1)
    assert asyncio.run(ask(tmp_path, counts)) is replies.TOO_MANY_CONNECTIONS


def test_a_client_at_its_limit_is_welcome(tmp_path: Path):
    counts = ClientCounts(n=0, sessions=50, connections_last_minute=1000)
    assert asyncio.run(ask(tmp_path, counts)) is None


def test_the_rate_of_connections_is_limited_where_set(tmp_path: Path):
    counts = ClientCounts(n=0, sessions=1, connections_last_minute=31)
    assert asyncio.run(ask(tmp_path, counts, connections_per_minute=30)) is replies.TOO_MANY_CONNECTIONS


def test_without_anvil_each_worker_applies_its_share(tmp_path: Path):
    """README, Processes: when anvil is down, each worker applies limit / workers."""

    async def scenario() -> list[object]:
        client = channel.RequestClient(asyncio.get_running_loop(), str(tmp_path / "nobody"), ClientCounts)
        here = admission.Admission(config(sessions_per_client=4), workers=2, anvil=client)
        answers = []
        for _ in range(3):
            key = here.enter(CLIENT)
            assert isinstance(key, str)
            answers.append(await here.ask(key))
        return answers

    assert asyncio.run(scenario()) == [None, None, replies.TOO_MANY_CONNECTIONS]


def test_trusted_networks_are_not_counted_per_client(tmp_path: Path):
    async def scenario() -> None:
        client = channel.RequestClient(asyncio.get_running_loop(), str(tmp_path / "nobody"), ClientCounts)
        here = admission.Admission(config(), workers=1, anvil=client)
        assert here.enter(ipaddress.ip_address("127.0.0.1")) is None

    asyncio.run(scenario())


def test_a_full_worker_refuses_even_trusted_clients_until_one_leaves(tmp_path: Path):
    async def scenario() -> None:
        client = channel.RequestClient(asyncio.get_running_loop(), str(tmp_path / "nobody"), ClientCounts)
        here = admission.Admission(config(sessions=1), workers=1, anvil=client)
        local = ipaddress.ip_address("127.0.0.1")
        assert here.enter(local) is None
        assert here.enter(local) is replies.OVERLOAD_CLOSE
        here.leave(None)
        assert here.enter(local) is None

    asyncio.run(scenario())


def test_networks_know_their_addresses():
    networks = admission.Networks(["192.0.2.0/24", "2001:db8::/32"])
    assert CLIENT in networks
    assert CLIENT in networks  # the remembered answer too
    assert ipaddress.ip_address("198.51.100.1") not in networks
    assert ipaddress.ip_address("2001:db8::1") in networks
