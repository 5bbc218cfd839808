"""May this client connect now?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from forkd.config.schema import Config, Limits, Networks
from forkd.rpc.messages import ClientConnect, ClientCounts, ClientDisconnect
from forkd.smtp import replies
from forkd.worker.admission import Admission
from forkd.worker.clients import Client, Clients
from tests.support.fake_anvil import fake_anvil, nobody


def config(**limits: int) -> Config:
    return msgspec.structs.replace(
        Config(), limits=msgspec.structs.replace(Limits(), **limits), networks=Networks()
    )


def client(address: str = "192.0.2.7", **limits: int) -> Client:
    return Clients(config(**limits)).find(address)


async def ask(folder: Path, counts: ClientCounts, **limits: int) -> object:
    async with fake_anvil(folder) as (anvil, way):
        anvil.counts = counts
        admission = Admission(config(**limits), workers=2, anvil=way)
        assert admission.enter(client()) is None
        return await admission.ask(client())


COUNTS = ClientCounts(n=0, sessions=1, connections_last_minute=1)


@pytest.mark.parametrize(
    ("count", "limits", "refused"),
    [
        ({"sessions": 51}, {}, True),
        ({"sessions": 50, "connections_last_minute": 1000}, {}, False),
        ({"connections_last_minute": 31}, {"connections_per_minute": 30}, True),
        ({"connections_last_minute": 30}, {"connections_per_minute": 30}, False),
        ({"network_sessions": 11}, {"sessions_per_network": 10}, True),
        ({"network_sessions": 10}, {"sessions_per_network": 10}, False),
        ({"network_connections_last_minute": 6}, {"connections_per_minute_network": 5}, True),
        ({"network_connections_last_minute": 5}, {"connections_per_minute_network": 5}, False),
    ],
)
def test_the_limits_hold_over_all_workers(tmp_path: Path, count, limits, refused: bool):
    """Sessions and connections in a minute, per client and per network, counted by anvil; 0 is no limit."""
    reply = asyncio.run(ask(tmp_path, msgspec.structs.replace(COUNTS, **count), **limits))
    rate = any(name.startswith("connections") for name in limits)
    wanted = replies.CONNECTION_RATE if rate else replies.TOO_MANY_CONNECTIONS
    assert reply is (wanted if refused else None)


def test_a_network_is_told_of_only_where_it_is_limited(tmp_path: Path):
    """An unused limit costs nothing."""

    async def said(**limits: int) -> list[object]:
        folder = tmp_path / str(len(limits))
        folder.mkdir()
        async with fake_anvil(folder) as (anvil, way):
            admission = Admission(config(**limits), workers=1, anvil=way)
            who = client()
            admission.enter(who)
            await admission.ask(who)
            admission.leave(who)
            while len(anvil.said) < 2:
                await asyncio.sleep(0.001)
            return anvil.said

    assert asyncio.run(said()) == [
        ClientConnect(n=1, client="192.0.2.7"),
        ClientDisconnect(client="192.0.2.7"),
    ]
    assert asyncio.run(said(sessions_per_network=5, connections_per_minute=3)) == [
        ClientConnect(n=1, client="192.0.2.7", network="network 192.0.2.0/24", most=3),
        ClientDisconnect(client="192.0.2.7", network="network 192.0.2.0/24"),
    ]


@pytest.mark.parametrize(
    "limits",
    [{"sessions_per_client": 4}, {"connections_per_minute": 4}, {"sessions_per_network": 4}],
    ids=lambda limits: next(iter(limits)),
)
def test_without_anvil_each_worker_applies_its_share(tmp_path: Path, limits: dict[str, int]):
    """README, Processes: when anvil is down, each worker applies limit / workers."""

    async def scenario() -> list[object]:
        admission = Admission(config(**limits), workers=2, anvil=nobody(tmp_path))
        answers = []
        for _ in range(3):
            assert admission.enter(client(**limits)) is None
            answers.append(await admission.ask(client(**limits)))
        return answers

    rate = "connections_per_minute" in limits
    refusal = replies.CONNECTION_RATE if rate else replies.TOO_MANY_CONNECTIONS
    assert asyncio.run(scenario()) == [None, None, refusal]


def test_trusted_clients_are_not_asked_about(tmp_path: Path):
    """networks.trusted: exempt from limits per address; anvil never hears of them."""

    async def scenario() -> list[object]:
        async with fake_anvil(tmp_path) as (anvil, way):
            admission = Admission(config(sessions_per_client=1), workers=1, anvil=way)
            for _ in range(5):
                local = client("127.0.0.1")
                assert admission.enter(local) is None
                assert await admission.ask(local) is None
                admission.leave(local)
            return anvil.said

    assert asyncio.run(scenario()) == []


def test_a_full_worker_refuses_even_trusted_clients_until_one_leaves(tmp_path: Path):
    """limits.sessions: each needs a descriptor and memory."""

    async def scenario() -> None:
        admission = Admission(config(sessions=1), workers=1, anvil=nobody(tmp_path))
        local = client("127.0.0.1")
        assert admission.enter(local) is None
        assert admission.enter(local) is replies.OVERLOAD_CLOSE
        admission.leave(local)
        assert admission.enter(local) is None

    asyncio.run(scenario())


def test_a_session_that_turns_out_to_be_somebody_elses_counts_for_him(tmp_path: Path):
    """XCLIENT: the address before it is free again, the new one is counted."""

    async def scenario() -> None:
        limits = {"sessions_per_client": 1}
        admission = Admission(config(**limits), workers=1, anvil=nobody(tmp_path))
        proxy, other = client("192.0.2.1"), client("192.0.2.2")
        assert admission.enter(proxy) is None
        admission.changed(proxy, other)
        assert admission.enter(proxy) is None
        assert await admission.ask(proxy) is None
        assert admission.enter(other) is None
        assert await admission.ask(other) is replies.TOO_MANY_CONNECTIONS

    asyncio.run(scenario())
