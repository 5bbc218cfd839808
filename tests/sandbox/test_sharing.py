"""forkd/sandbox/kennel.py: fair sharing of real sandboxes between sessions and client networks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from forkd.rpc.calls import Overloaded
from forkd.sandbox.host import Sandbox
from forkd.sandbox.shares import IDLE_S, KEPT
from tests.support.sandboxes import MODES, Stage, failure_of, greet, mail, stage, text_of

ECHO = "def attack(said): return said\n"
SLOW = "def attack(said):\n    time.sleep(float(said))\n    return said\n"
SHELF = 16
"""Sandboxes of the tests: a network's share is two."""


def network_of(number: int) -> str:
    """One of their own for as many as strangers may fill, trusted beyond: together they fill the shelf."""
    return f"n{number}" if number < SHELF - SHELF // KEPT else ""


class Client:
    """A session as a worker has it: asked to give way, it closes its sandbox in its own time."""

    def __init__(self, st: Stage, name: str, network: str = "", *, willing: bool = True) -> None:
        self.st, self.name, self.network, self.willing = st, name, network, willing
        self.sandbox: Sandbox | None = None
        self.asked = 0

    async def take(self) -> Client:
        self.sandbox = await self.st.host.take("plugin", self.name, network=self.network, evict=self.evict)
        return self

    def evict(self) -> bool:
        self.asked += 1
        if self.willing:
            asyncio.get_running_loop().call_soon(self.leave)
        return self.willing

    def leave(self) -> None:
        assert self.sandbox is not None
        self.sandbox.close()


def in_stage(scenario: Callable[[Stage], object], source: str = ECHO, **host: object) -> None:
    limits = {"sandboxes": SHELF, "spare": 0, "overload_wait_s": 2.0} | host
    with stage(MODES[0]) as st:
        st.start(source)
        st.run(scenario, **limits)  # type: ignore[arg-type]


def test_a_network_cannot_hold_more_than_its_share():
    """An eighth of sixteen: the third sandbox of one network waits, another network's does not."""

    async def scenario(st: Stage) -> None:
        first, second = await Client(st, "1", "greedy").take(), await Client(st, "2", "greedy").take()
        third = asyncio.ensure_future(Client(st, "3", "greedy").take())
        other = await Client(st, "4", "other").take()
        assert not third.done()
        assert first.sandbox is not None
        first.sandbox.close()
        await third
        assert second.asked == other.asked == 0

    in_stage(scenario)


def test_waiting_ends_in_overload():
    """sandbox.overload_wait: then 451 4.3.2, with the figures for the log."""

    async def scenario(st: Stage) -> None:
        held = [await Client(st, str(n), "greedy", willing=False).take() for n in range(2)]
        started = time.monotonic()
        with pytest.raises(Overloaded, match=r"2 of 16 .* 2 of 2 by network greedy"):
            await Client(st, "3", "greedy").take()
        assert time.monotonic() - started > 0.25
        assert len(held) == 2

    in_stage(scenario, overload_wait_s=0.3)


def test_the_longest_idle_session_gives_way():
    """When all is taken, the one idle longest is asked, and only as many as are needed."""

    async def scenario(st: Stage) -> None:
        clients = [await Client(st, str(n), network_of(n)).take() for n in range(SHELF)]
        await asyncio.sleep(0)
        for client in clients[1:]:
            assert client.sandbox is not None
            await greet(client.sandbox, 1)  # all but the first have done something since
        await Client(st, "new", "new").take()
        assert [client.asked for client in clients] == [1] + [0] * (SHELF - 1)

    in_stage(scenario)


def test_a_session_in_work_is_never_asked():
    """A call in flight, or one that ended a moment ago: a flood of new sessions does not evict it."""

    async def scenario(st: Stage) -> None:
        working = [await Client(st, str(n), network_of(n)).take() for n in range(SHELF)]
        calls = [
            asyncio.ensure_future(mail(client.sandbox, "1.2"))  # type: ignore[arg-type]
            for client in working
        ]
        flood = [Client(st, f"f{n}", f"f{n}") for n in range(40)]
        refused = await asyncio.gather(*[each.take() for each in flood], return_exceptions=True)
        assert {type(each) for each in refused} == {Overloaded}
        assert [text_of(answer) for answer in await asyncio.gather(*calls)] == ["1.2"] * SHELF
        assert sum(client.asked for client in working) == 0

    in_stage(scenario, SLOW, overload_wait_s=IDLE_S + 0.2)


def test_who_refuses_to_give_way_keeps_it_and_the_next_is_asked():
    """evict() says no while a message is being committed."""

    async def scenario(st: Stage) -> None:
        clients = [await Client(st, str(n), network_of(n), willing=n > 0).take() for n in range(SHELF)]
        await Client(st, "new", "new").take()
        assert (clients[0].asked, clients[1].asked) == (1, 1)
        await greet(clients[0].sandbox, 1)  # type: ignore[arg-type]

    in_stage(scenario)


def test_a_session_that_waits_itself_is_not_asked():
    """It holds a sandbox of another plugin, and looks idle there: it is in the middle of a command."""

    async def scenario(st: Stage) -> None:
        held = [await Client(st, str(n), network_of(n), willing=False).take() for n in range(SHELF - 1)]
        own = await Client(st, "asking").take()
        with pytest.raises(Overloaded):
            await Client(st, "asking", "m").take()
        assert own.asked == 0
        assert len(held) == SHELF - 1

    in_stage(scenario, overload_wait_s=IDLE_S + 0.3)


def test_who_goes_away_while_waiting_takes_nothing():
    """Cancelled before and in the same turn in which a place was given: the place is there for the next."""

    async def scenario(st: Stage) -> None:
        clients = [await Client(st, str(n), network_of(n), willing=False).take() for n in range(SHELF)]
        gone = asyncio.ensure_future(Client(st, "gone", "a").take())
        gone_late = asyncio.ensure_future(Client(st, "gone late", "b").take())
        there = asyncio.ensure_future(Client(st, "there", "c").take())
        await asyncio.sleep(0.01)  # they wait, and whom they asked has refused; sooner is another case
        gone.cancel()
        assert clients[0].sandbox is not None
        clients[0].sandbox.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone_late.cancel()
        assert (await there).sandbox is not None
        for task in (gone, gone_late):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert st.host.alive("plugin") == SHELF

    in_stage(scenario)


def test_a_worker_that_stops_lets_nobody_wait():
    """close() while sessions wait: they hear it at their own deadline at the latest, nothing is left."""

    async def scenario(st: Stage) -> None:
        held = [await Client(st, str(n)).take() for n in range(SHELF)]
        waiting = asyncio.ensure_future(Client(st, "x").take())
        await asyncio.sleep(0)
        await st.host.close()
        with pytest.raises(Overloaded):
            await waiting
        assert (await failure_of(mail(held[0].sandbox))).cause == "unavailable"  # type: ignore[arg-type]

    with stage(MODES[0]) as st:
        st.start(ECHO)

        async def whole() -> None:
            from forkd.sandbox.host import Host, HostPlugin

            plugin = HostPlugin(name="plugin", socket_path=st.path, sandboxes=SHELF, spare=0)
            st.host = Host(asyncio.get_running_loop(), [plugin], overload_wait_s=0.3)
            await scenario(st)

        asyncio.run(whole())
