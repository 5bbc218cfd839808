"""Connections to next hops: used again, ended, and asked whether they are still there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from forkd.deliver.hosts import Hop
from forkd.deliver.pool import Pool, PoolLimits
from tests.support.next_hop import DROP, NextHop, Step, keywords
from tests.support.relaying import a_delivery, a_way, delivered, how_to, on_loop


async def several(way, folder: Path, count: int, *, at_once: bool = False) -> list[str]:
    """So many mails; their statuses."""
    deliveries = [a_delivery(folder / str(n), "a@next.test") for n in range(count)]
    if at_once:
        told = await asyncio.gather(*(delivered(way, each) for each in deliveries))
    else:
        told = [await delivered(way, each) for each in deliveries]
    return [each.one.status for each in told]


def test_a_connection_is_used_again(tmp_path: Path) -> None:
    """One mail after the other goes over one, without RSET between; QUIT ends it."""

    async def main() -> None:
        async with NextHop() as server:
            way = a_way(server)
            assert await several(way, tmp_path, 5) == ["delivered"] * 5
            await way.close()
            await server.all_over()
            (dialogue,) = server.dialogues
            assert len(dialogue.mails) == 5
            assert dialogue.verbs() == ["EHLO", *["MAIL", "RCPT", "DATA"] * 5, "QUIT"]

    on_loop(main())


def test_at_once_they_go_over_several(tmp_path: Path) -> None:
    """As many as there are deliveries; then each is used again."""

    async def main() -> None:
        async with NextHop({"DATA": [b"354 go"]}, pause_s=0.01) as server:
            way = a_way(server)
            assert await several(way, tmp_path / "1", 4, at_once=True) == ["delivered"] * 4
            assert await several(way, tmp_path / "2", 4, at_once=True) == ["delivered"] * 4
            assert len(server.dialogues) == 4
            await way.close()

    on_loop(main())


@pytest.mark.parametrize(
    ("most", "ehlo"),
    [(2, keywords("PIPELINING")), (100, keywords("PIPELINING", "LIMITS MAILMAX=2"))],
    ids=["ours", "theirs"],
)
def test_a_connection_has_so_many_mails(tmp_path: Path, most: int, ehlo: Step) -> None:
    """By our setting, or the server's (RFC 9422)."""

    async def main() -> None:
        async with NextHop({"EHLO": [ehlo]}) as server:
            way = a_way(server, limits=PoolLimits(messages_per_connection=most, idle_s=60))
            assert await several(way, tmp_path, 5) == ["delivered"] * 5
            assert [len(dialogue.mails) for dialogue in server.dialogues] == [2, 2, 1]
            await way.close()

    on_loop(main())


def test_an_idle_connection_is_ended(tmp_path: Path) -> None:
    """After its time, with QUIT; with no time at all, at once."""

    async def main() -> None:
        for idle_s in (0.05, 0.0):
            async with NextHop() as server:
                way = a_way(server, limits=PoolLimits(idle_s=idle_s))
                await several(way, tmp_path / str(idle_s), 1)
                await server.all_over()
                assert server.dialogues[0].verbs()[-1] == "QUIT"
                await way.close()

    on_loop(main())


def test_no_more_are_open_than_may_be(tmp_path: Path) -> None:
    """The one that was idle longest makes place for one to another hop."""

    async def main() -> None:
        async with NextHop() as one, NextHop() as two:
            pool = Pool(how_to(), PoolLimits(connections=2, idle_s=60))
            first, second = (Hop("mx", "127.0.0.1", server.port) for server in (one, two))
            taken = [await pool.take(first), await pool.take(first)]
            for connection in taken:
                pool.give(connection, first)
            assert not one.dialogues[0].over
            pool.give(await pool.take(second), second)
            await one.until(lambda: one.dialogues[0].over)
            assert one.dialogues[0].verbs()[-1] == "QUIT"
            assert pool.has_idle(first)
            assert pool.has_idle(second)
            await pool.close()

    on_loop(main())


@pytest.mark.parametrize("end", [b"421 4.4.2 idle too long", DROP], ids=["421", "drop"])
def test_a_connection_that_ended_while_idle_is_not_used(tmp_path: Path, end: Step) -> None:
    """Its server goes away, with a word or without: the next mail has a new one, and knows nothing of it."""

    async def main() -> None:
        async with NextHop() as server:
            way = a_way(server)
            await several(way, tmp_path / "1", 1)
            await server.say(0, end)
            assert await several(way, tmp_path / "2", 1) == ["delivered"]
            assert len(server.dialogues) == 2
            await way.close()

    on_loop(main())


@pytest.mark.parametrize("moment", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("end", [b"421 4.7.0 enough for one connection", DROP], ids=["421", "drop"])
def test_a_used_connection_that_ends_is_tried_again_with_a_new_one(
    tmp_path: Path, moment: str, end: Step
) -> None:
    """A server may count mails and not say so: the same hop, a new connection, once."""

    async def main() -> None:
        yes = b"354 go" if moment == "DATA" else b"250 ok"
        async with NextHop({moment: [yes, end, yes]}) as server, NextHop() as other:
            way = a_way(server, other)
            assert await several(way, tmp_path, 2) == ["delivered"] * 2
            assert [len(dialogue.mails) for dialogue in server.dialogues] == [1, 1]
            assert other.dialogues == []
            await way.close()

    on_loop(main())


@pytest.mark.parametrize("answer", [b"250 ok", b"421 who are you", DROP], ids=["yes", "421", "drop"])
def test_after_a_while_idle_the_server_is_asked_first(tmp_path: Path, answer: Step) -> None:
    """RSET; who does not answer it as he should is left for a new connection."""

    async def main() -> None:
        async with NextHop({"RSET": [answer]}) as server:
            way = a_way(server, limits=PoolLimits(idle_s=60, probe_after_s=0.0))
            assert await several(way, tmp_path, 2) == ["delivered"] * 2
            assert server.dialogues[0].verbs()[4] == "RSET"
            assert len(server.dialogues) == (1 if answer == b"250 ok" else 2)
            await way.close()

    on_loop(main())
