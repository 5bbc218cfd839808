"""Work of 20 ms off the loop, and never too much of it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from forkd.auth.pool import Overloaded, Pool


def test_work_runs_in_threads_and_the_loop_goes_on():
    """While one check runs, the loop answers others."""

    async def run() -> None:
        pool, gate = Pool(threads=1, waiting=1), threading.Event()
        task = asyncio.create_task(pool.run(gate.wait, 30))
        await asyncio.sleep(0)
        gate.set()
        assert await task
        pool.close()

    asyncio.run(run())


def test_the_queue_is_bounded():
    """One too many is refused at once, before it costs anything; a place is free when one is done."""

    async def run() -> None:
        pool, gate = Pool(threads=1, waiting=1), threading.Event()
        tasks = [asyncio.create_task(pool.run(gate.wait, 30)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await pool.run(gate.wait, 30)
        gate.set()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)
        assert await pool.run(int, "7") == 7
        pool.close()

    asyncio.run(run())


def test_who_goes_away_gives_his_place_back():
    """A client that hangs up while its check waits in the queue."""

    async def run() -> None:
        pool, gate = Pool(threads=1, waiting=1), threading.Event()
        first = asyncio.create_task(pool.run(gate.wait, 30))
        second = asyncio.create_task(pool.run(gate.wait, 30))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.sleep(0)
        third = asyncio.create_task(pool.run(int, "3"))
        gate.set()
        assert await third == 3
        await first
        pool.close()

    asyncio.run(run())


def test_what_the_work_raises_comes_back():
    """As if it had been called."""

    async def run() -> None:
        pool = Pool()
        with pytest.raises(ValueError, match="invalid literal"):
            await pool.run(int, "x")
        pool.close()

    asyncio.run(run())
