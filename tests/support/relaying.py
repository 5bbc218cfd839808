"""Deliveries to next hops, as qmgr's loop makes them: real messages of a spool, the real loop."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from forkd.deliver.client_tls import ClientTls
from forkd.deliver.hosts import Hosts, Settings
from forkd.deliver.lmtp import Lmtp
from forkd.deliver.opening import HowToConnect
from forkd.deliver.pool import PoolLimits
from forkd.deliver.smtp import Smtp
from forkd.deliver.transport import Delivery, Result, Target
from forkd.lookups.resolver import Answer
from forkd.queue import stored
from forkd.queue.format import Damaged
from forkd.smtp.address import split_address
from forkd.smtp.client_phases import TIMEOUT_S, ClientOptions, Phase
from tests.support.next_hop import NextHop
from tests.support.spooling import MAIL, a_spool, queued

T = TypeVar("T")


def on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop as qmgr has it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(work, 120))


def a_delivery(folder: Path, *addresses: str, message: bytes = MAIL, **envelope: Any) -> Delivery:
    """A message of a spool in that folder, and all of its recipients."""
    spool = a_spool(folder / "spool", durable=False)
    queue_id = queued(spool, *addresses, message=message, **envelope)
    loaded = stored.load(f"{spool.new}/{queue_id}", queue_id)
    return Delivery(loaded, targets_of(loaded))


def targets_of(message: stored.StoredMessage) -> tuple[Target, ...]:
    return tuple(
        Target(index, recipient.address, *split_address(recipient.address), original=recipient.original)
        for index, recipient in enumerate(message.envelope.recipients)
    )


class NoLookups:
    """Nobody is asked: the hosts are fixed."""

    async def look(self, name: tuple[str, ...], kind: str) -> Answer:
        raise AssertionError(f"{name} {kind}")


def a_way(
    *hops: NextHop | int,
    tls: ClientTls | None = None,
    limits: PoolLimits | None = None,
    waits: dict[Phase, float] | None = None,
    options: dict[str, Any] | None = None,
    **how: Any,
) -> Smtp:
    """The transport `smtp` to those hops, in that order (or to ports of this machine).

    waits  seconds of phases; all others have a minute
    """
    ports = [hop if isinstance(hop, int) else hop.port for hop in hops]
    fixed = tuple(("127.0.0.1", port) for port in ports)
    return Smtp(
        "out",
        Hosts(Settings(fixed=fixed), NoLookups()),
        how_to(tls, waits, options, **how),
        limits=_few(limits),
    )


def a_store(path: str, *, waits: dict[Phase, float] | None = None, **how: Any) -> Lmtp:
    """The transport `lmtp` to a unix socket."""
    hosts = Hosts(Settings(fixed=((path, 0),)), NoLookups())
    return Lmtp("store", hosts, how_to(None, waits, {"lmtp": True}, **how), limits=_few(None))


def _few(limits: PoolLimits | None) -> PoolLimits:
    return limits or PoolLimits(connections=20, messages_per_connection=100, idle_s=60)


def how_to(
    tls: ClientTls | None = None,
    waits: dict[Phase, float] | None = None,
    options: dict[str, Any] | None = None,
    **how: Any,
) -> HowToConnect:
    """What connections have in common."""
    return HowToConnect(
        options=ClientOptions(**{"hostname": "client.test", **(options or {})}),
        tls=tls or ClientTls("off"),
        timeouts={**dict.fromkeys(TIMEOUT_S, 60.0), **(waits or {})},
        **how,
    )


@dataclasses.dataclass(frozen=True)
class Told:
    """Results of a delivery, by what tests ask of them."""

    results: list[Result]

    @property
    def statuses(self) -> list[str]:
        return [result.status for result in self.results]

    @property
    def codes(self) -> list[str]:
        return [result.enhanced for result in self.results]

    @property
    def away(self) -> list[bool]:
        return [result.away for result in self.results]

    @property
    def one(self) -> Result:
        (result,) = self.results
        return result


async def delivered(way: Smtp | Lmtp, delivery: Delivery) -> Told:
    """Deliver; the results, for each target in order."""
    results = await way.deliver(delivery)
    assert not isinstance(results, Damaged)
    assert [result.target for result in results] == list(delivery.targets)
    return Told(results)
