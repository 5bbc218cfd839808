"""Rates per minute over all workers: messages, recipients, failed AUTH."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import msgspec
import pytest

from forkd.config.schema import Config, Limits, Networks
from forkd.rpc.messages import Happened
from forkd.worker.clients import Clients
from forkd.worker.rates import Rates
from tests.support.fake_anvil import fake_anvil, nobody

CLIENTS = Clients(msgspec.structs.replace(Config(), networks=Networks()))
CLIENT = CLIENTS.find("192.0.2.7")
LOCAL = CLIENTS.find("127.0.0.1")
NETWORK = "network 192.0.2.0/24"


def limits(**given: int) -> Limits:
    return msgspec.structs.replace(Limits(), **given)


def test_a_rate_that_is_not_set_is_not_asked_for():
    """An unused limit costs no round trip."""
    rates = Rates(limits(), workers=1, anvil=None)  # type: ignore[arg-type]
    assert not rates.counts("message") and not rates.counts("recipient")
    assert Rates(limits(messages_per_minute=5), workers=1, anvil=None).counts("message")  # type: ignore[arg-type]
    assert Rates(limits(recipients_per_minute_network=5), workers=1, anvil=None).counts("recipient")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("times", "allowed"),
    [({}, True), ({"192.0.2.7": 5, NETWORK: 20}, True), ({"192.0.2.7": 6}, False), ({NETWORK: 21}, False)],
)
def test_a_client_and_its_network_have_a_rate_each(tmp_path: Path, times: dict[str, int], allowed: bool):
    """limits.messages_per_minute, messages_per_minute_network."""

    async def scenario() -> None:
        async with fake_anvil(tmp_path) as (anvil, way):
            anvil.times = times
            given = limits(messages_per_minute=5, messages_per_minute_network=20)
            assert await Rates(given, workers=2, anvil=way).message(CLIENT) is allowed
            assert anvil.said == [Happened(n=1, what="message", keys=("192.0.2.7", NETWORK), most=(5, 20))]

    asyncio.run(scenario())


def test_trusted_clients_have_no_rate(tmp_path: Path):
    async def scenario() -> None:
        rates = Rates(
            limits(messages_per_minute=1, recipients_per_minute=1), workers=1, anvil=nobody(tmp_path)
        )
        for _ in range(5):
            assert await rates.message(LOCAL)
            assert await rates.recipient(LOCAL)

    asyncio.run(scenario())


def test_without_anvil_each_worker_applies_its_share(tmp_path: Path):
    """README, Processes: when anvil is down, each worker applies limit / workers."""

    async def scenario() -> None:
        rates = Rates(limits(recipients_per_minute=6), workers=2, anvil=nobody(tmp_path))
        assert [await rates.recipient(CLIENT) for _ in range(4)] == [True, True, True, False]

    asyncio.run(scenario())


def test_without_anvil_too_a_refused_client_costs_its_network_nothing(tmp_path: Path):
    """What is beyond a client's own limit is none of the others'."""

    async def scenario() -> None:
        given = limits(messages_per_minute=3, messages_per_minute_network=4)
        rates = Rates(given, workers=1, anvil=nobody(tmp_path))
        assert [await rates.message(CLIENT) for _ in range(9)] == [True] * 3 + [False] * 6
        neighbour = dataclasses.replace(CLIENT, key="192.0.2.8")
        assert [await rates.message(neighbour) for _ in range(2)] == [True, False]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("times", "allowed"),
    [({"192.0.2.7": 9}, True), ({"192.0.2.7": 10}, False), ({"account anna": 10}, False)],
)
def test_who_has_failed_too_often_is_not_asked_for_a_password(
    tmp_path: Path, times: dict[str, int], allowed: bool
):
    """limits.auth_failures_per_minute, account_failures_per_minute; the question counts nothing."""

    async def scenario() -> None:
        async with fake_anvil(tmp_path) as (anvil, way):
            anvil.times = times
            rates = Rates(limits(), workers=1, anvil=way)
            assert await rates.may_authenticate(CLIENT, "Anna") is allowed
            keys = ("192.0.2.7", "account anna")
            asked = Happened(n=1, what="auth_failure", keys=keys, times=0, most=(10, 10))
            assert anvil.said == [asked]

    asyncio.run(scenario())


def test_an_account_is_protected_from_trusted_clients_too(tmp_path: Path):
    """Trusted networks are exempt from limits per address, not from those per account."""

    async def scenario() -> None:
        async with fake_anvil(tmp_path) as (anvil, way):
            anvil.times = {"account anna": 10}
            rates = Rates(limits(), workers=1, anvil=way)
            assert not await rates.may_authenticate(LOCAL, "anna")
            assert await rates.may_authenticate(LOCAL, "")

    asyncio.run(scenario())


def test_a_failure_counts_for_client_and_account(tmp_path: Path):
    async def scenario() -> None:
        async with fake_anvil(tmp_path) as (anvil, way):
            Rates(limits(), workers=1, anvil=way).auth_failed(CLIENT, "x" * 1000)
            while not anvil.said:
                await asyncio.sleep(0.001)
            (said,) = anvil.said
            assert isinstance(said, Happened)
            assert (said.n, said.times, said.keys[0]) == (0, 1, "192.0.2.7")
            assert len(said.keys[1]) < 300

    asyncio.run(scenario())


def test_failures_are_limited_without_anvil_too(tmp_path: Path):
    async def scenario() -> None:
        rates = Rates(limits(auth_failures_per_minute=4), workers=2, anvil=nobody(tmp_path))
        answers = []
        for _ in range(4):
            answers.append(await rates.may_authenticate(CLIENT, ""))
            rates.auth_failed(CLIENT, "")
        assert answers == [True, True, False, False]

    asyncio.run(scenario())
