"""Next hops that do as they are told, as an asynchronous transport; and a manager without a loop."""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from forkd.config import schema
from forkd.deliver.transport import Delivery, Result, Target, Transport
from forkd.fs import REAL, Fs
from forkd.qmgr.manager import Manager
from forkd.qmgr.routing import KINDS
from forkd.queue.format import Damaged
from tests.support.spooling import a_config

Answer = list[Result] | Damaged
Act = Callable[[Delivery], Awaitable[Answer]]


def results(delivery: Delivery, status: Any, text: str = "", **fields: Any) -> list[Result]:
    """The same for every target."""
    enhanced = {"delivered": "2.0.0", "deferred": "4.0.0", "failed": "5.0.0"}[status]
    return [Result(target, status, enhanced, text or status, **fields) for target in delivery.targets]


async def takes(delivery: Delivery) -> Answer:
    return results(delivery, "delivered")


async def defers(delivery: Delivery) -> Answer:
    return results(delivery, "deferred", "greylisted")


async def is_away(delivery: Delivery) -> Answer:
    return results(delivery, "deferred", "connection refused", host="mx.example", away=True)


async def hangs(delivery: Delivery) -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


class NextHops:
    """An AsyncTransport: by domain, what its next hop does; others take the mail."""

    def __init__(self, name: str = "smtp", *, connections: int = 100) -> None:
        self.name = name
        self.connections = connections
        self.acts: dict[str, Act] = {}
        self.tried: collections.Counter[str] = collections.Counter()
        """Deliveries that began, by domain."""
        self.order: list[str] = []
        """Their messages."""
        self.running = 0
        self.most = 0
        self.threads: set[str] = set()
        self.closed = False
        self._gate = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def busy(self, delivery: Delivery) -> Answer:
        """An act: takes the mail once free() was called."""
        await self._gate.wait()
        return results(delivery, "delivered")

    def free(self) -> None:
        """From the test's thread, when a delivery has begun."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._gate.set)

    def destination(self, target: Target) -> str:
        return target.address.rpartition("@")[2]

    async def deliver(self, delivery: Delivery) -> Answer:
        domain = self.destination(delivery.targets[0])
        assert {self.destination(target) for target in delivery.targets} == {domain}
        self._loop = asyncio.get_running_loop()
        self.tried[domain] += 1
        self.order.append(delivery.message.id)
        self.threads.add(threading.current_thread().name)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self.acts.get(domain, takes)(delivery)
        finally:
            self.running -= 1

    async def close(self) -> None:
        self.closed = True


def hop_config(data_dir: Path, **queue: Any) -> schema.Config:
    """test.local to Maildirs; *.test to the next hops."""
    config = a_config(data_dir, **queue)
    return msgspec.structs.replace(
        config,
        domain={**config.domain, "*.test": schema.Domain(transport="smtp")},
        transport={**config.transport, "smtp": schema.Discard()},
    )


class Driven:
    """A manager whose loop is the test: nothing goes on but in `until()`.

    The settings of the transport "smtp" stand for the next hops.
    """

    def __init__(self, config: schema.Config, hops: NextHops | Transport, *, fs: Fs = REAL) -> None:
        self._woken = threading.Event()
        made: Mapping[type, Any] = {
            **KINDS,
            schema.Discard: lambda name, table, around: (
                hops if name == "smtp" else KINDS[schema.Discard](name, table, around)
            ),
        }
        root = str(config.server.data_dir / "spool")
        self.manager = Manager(config, root, self._woken.set, fs=fs, kinds=made)
        self.manager.intake.recover()

    def turn(self, now: float | None = None) -> int:
        """One turn of the loop."""
        self._woken.clear()
        self.manager.take_back()
        return self.manager.pump(time.time() if now is None else now)

    def until(self, holds: Callable[[], bool], *, now: float | None = None, limit_s: float = 60) -> None:
        """Go on until that holds, whatever the time; `now`: it stands still then."""
        end = time.monotonic() + limit_s
        while True:
            looked = self.turn(now)
            if holds():
                return
            assert time.monotonic() < end, "it never came to that"
            if not looked:
                self._woken.wait(0.2)

    def settle(self, *, now: float | None = None) -> None:
        """Until nothing runs, and nothing more can start."""
        self.until(
            lambda: not self.manager.active and not self._woken.is_set() and not self.turn(now), now=now
        )

    def poke(self, *ids: str, slot: str = "w0", now: float | None = None) -> None:
        lines = "".join(f"{slot}/{queue_id}\n" for queue_id in ids)
        self.manager.intake.poked(lines.encode(), time.time() if now is None else now)

    def stop(self, *, at_once: bool = True) -> None:
        """As main does; `at_once`: when the time for it is over."""
        self.manager.stop_starting()
        if at_once:
            self.manager.cut_short()
        end = time.monotonic() + 30
        while self.manager.active:
            self._woken.wait(0.2)
            self._woken.clear()
            self.manager.take_back()
            assert time.monotonic() < end
        self.manager.close(5)
