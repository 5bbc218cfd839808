"""How admin asks master (admin/peers.py); `send` is all that it knows of it."""

from __future__ import annotations

import asyncio

import pytest

from forkd.admin.peers import Master, Refused
from forkd.rpc.message import Message
from forkd.rpc.messages import Done
from forkd.rpc.messages_status import Status


def status(n: int) -> Status:
    return Status(
        n=n, version="1", state="running", pid=1, started_at=1.0, hostname="h", listeners={},
        durability="sync", processes=(), sandbox={},
    )  # fmt: skip


def test_who_asks_at_the_same_time_is_told_the_same():
    """A crowd of scrapers makes one question to master; the next one is asked anew, also after a refusal."""
    sent: list[Message] = []

    async def run() -> None:
        master = Master(lambda message: not sent.append(message))

        async def crowd(answer: Status | Done) -> list[object]:
            asking = [asyncio.ensure_future(master.glance()) for _ in range(3)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            asking[0].cancel()  # who hangs up takes it from nobody
            master.answer(answer)
            return (await asyncio.gather(*asking, return_exceptions=True))[1:]

        assert await crowd(status(1)) == [status(1)] * 2
        assert all(isinstance(each, Refused) for each in await crowd(Done(n=2, error="no")))
        assert await crowd(status(3)) == [status(3)] * 2

    asyncio.run(run())
    assert len(sent) == 3


def test_a_master_that_does_not_read_is_said_to():
    with pytest.raises(Refused, match="does not read"):
        asyncio.run(Master(lambda _: False).glance())
