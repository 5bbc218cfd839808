"""forkd/broker/sqlite_store.py and sqlite_file.py: the store on a real file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from forkd import log
from forkd.broker import sqlite_file
from forkd.broker.protocol import Add, Delete, Get, Incr, Set
from forkd.broker.sqlite_store import SqliteStore
from forkd.broker.state import StateError, StoreUnavailable


class Clock:
    """Wall time that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())


@contextlib.asynccontextmanager
async def store(path: Path, **settings: Any) -> AsyncIterator[SqliteStore]:
    given: dict[str, Any] = {"max_keys": 1000, "max_value": 100, "on_trouble": pytest.fail} | settings
    made = SqliteStore(path, asyncio.get_running_loop(), **given)
    try:
        yield made
    finally:
        await made.close()


def test_what_each_request_does(tmp_path: Path):
    """The SDK's contract, request by request."""

    async def body() -> None:
        async with store(tmp_path / "s.db") as s:
            assert await s.ask("p", Get(1, "k")) is None
            assert await s.ask("p", Set(1, "k", "v")) is True
            assert await s.ask("p", Get(1, "k")) == "v"
            assert await s.ask("p", Set(1, "k", -(1 << 63))) is True
            assert await s.ask("p", Get(1, "k")) == -(1 << 63)
            assert await s.ask("p", Add(1, "k", 1)) is False
            assert await s.ask("p", Add(1, "new", "")) is True
            assert await s.ask("p", Get(1, "new")) == ""
            assert await s.ask("p", Delete(1, "new")) is True
            assert await s.ask("p", Delete(1, "new")) is False
            assert [await s.ask("p", Incr(1, "n", by)) for by in (1, 5, -2)] == [1, 6, 4]
            for wrong in (Incr(1, "k", -1), Set(1, "k", "x" * 101), Get(1, "\u00e9" * 200)):
                with pytest.raises(StateError):
                    await s.ask("p", wrong)
            await s.ask("p", Set(1, "text", "x"))
            with pytest.raises(StateError, match="text"):
                await s.ask("p", Incr(1, "text"))

    run(body)


def test_namespaces_do_not_meet(tmp_path: Path):
    """plugins.md: a namespace of its own, whatever stands in the key."""
    keys = ["../q", "q\x00k", "k", "' OR 1=1 --", "%", "\ufffd", "q/k"]

    async def body() -> None:
        async with store(tmp_path / "s.db") as s:
            for key in keys:
                await s.ask("p", Set(1, key, key))
            for key in keys:
                assert await s.ask("q", Get(1, key)) is None
                assert await s.ask("p", Get(1, key)) == key
                assert await s.ask("q", Delete(1, key)) is False

    run(body)


def test_a_key_is_gone_when_its_time_is_over(tmp_path: Path):
    """ttl counts from the key's creation for incr, from the last set otherwise; add sees no expired key."""
    clock = Clock()

    async def body() -> None:
        async with store(tmp_path / "s.db", clock=clock) as s:
            await s.ask("p", Incr(1, "n", 1, 10.0))
            await s.ask("p", Set(1, "k", "v", 10.0))
            clock.now += 6
            assert await s.ask("p", Incr(1, "n", 1, 10.0)) == 2
            await s.ask("p", Set(1, "k", "v", 10.0))
            clock.now += 6
            assert await s.ask("p", Incr(1, "n", 1, 10.0)) == 1
            assert await s.ask("p", Get(1, "k")) == "v"
            clock.now += 6
            assert await s.ask("p", Delete(1, "k")) is False
            assert await s.ask("p", Add(1, "k", "w", 1.0)) is True
            assert await s.ask("p", Set(1, "k", "for ever")) is True
            clock.now += 1e9
            assert await s.ask("p", Get(1, "k")) == "for ever"

    run(body)


def test_a_full_namespace_takes_no_new_key_until_some_expire(tmp_path: Path):
    """[state] max_keys: of one plugin; others go on."""
    clock = Clock()

    async def body() -> None:
        async with store(tmp_path / "s.db", max_keys=3, clock=clock) as s:
            for n in range(3):
                await s.ask("p", Set(1, f"k{n}", n, 5.0))
            with pytest.raises(StateError, match=r"state\.max_keys"):
                await s.ask("p", Add(1, "more", 1))
            assert await s.ask("p", Set(1, "k0", 9, 5.0)) is True
            assert await s.ask("q", Set(1, "k", 1)) is True
            clock.now += 6
            assert await s.ask("p", Add(1, "more", 1)) is True
            assert s.info() == {"keys": "2"}

    run(body)


def test_of_many_that_add_at_once_one_wins(tmp_path: Path):
    """Atomic: increments add up, and a new key has one maker."""

    async def body() -> None:
        async with store(tmp_path / "s.db") as s:
            added = await asyncio.gather(*[s.ask("p", Add(1, "k", n)) for n in range(500)])
            assert sum(map(bool, added)) == 1
            counts = await asyncio.gather(*[s.ask("p", Incr(1, "n")) for _ in range(500)])
            assert sorted(counts) == list(range(1, 501))

    run(body)


def test_it_is_all_there_after_a_restart_and_after_sigkill_but_for_the_last_second(tmp_path: Path):
    """What was committed survives; a killed broker leaves a whole file."""
    path = tmp_path / "s.db"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:

        async def killed() -> None:
            async with store(path, on_trouble=lambda _: None) as s:
                await s.ask("p", Set(1, "k", "kept"))
                with sqlite3.connect(path, isolation_level=None) as other:
                    while not other.execute("SELECT COUNT(*) FROM state").fetchone()[0]:
                        await asyncio.sleep(0.01)
                await s.ask("p", Set(1, "later", "not committed yet"))
                os.write(writer, b".")
                await asyncio.sleep(60)

        run(killed)
        os._exit(0)
    assert os.read(reader, 1) == b"."
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)

    async def body() -> None:
        async with store(path) as s:
            assert await s.ask("p", Get(1, "k")) == "kept"
            assert await s.ask("p", Set(1, "k2", "closed")) is True
        async with store(path) as s:
            assert await s.ask("p", Get(1, "k2")) == "closed"

    run(body)


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says" * 100)


def _torn(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(sqlite_file.TABLES)
        database.executemany(
            "INSERT INTO state VALUES ('p', ?, ?, NULL)", [(b"%d" % n, "x" * 90) for n in range(900)]
        )
        database.commit()
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(30_000))


def _newer(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("damage", [_garbage, _torn, _newer, _folder])
def test_a_file_that_cannot_be_used_is_told_once_and_answers_are_unavailable(
    tmp_path: Path, damage: Callable[[Path], None]
):
    """A clear error at start, "unavailable" later, never a crash; what was there is not touched."""
    path = tmp_path / "s.db"
    damage(path)
    before = path.read_bytes() if path.is_file() else b""
    said: list[str] = []

    async def body() -> None:
        async with store(path, on_trouble=said.append) as s:
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await s.ask("p", Get(1, "k"))
            assert s.info() == {"keys": "0"}

    run(body)
    assert len(said) == 1
    assert str(path) in said[0]
    assert not before or path.read_bytes()[100:] == before[100:]


def test_a_disk_that_is_full_makes_it_unavailable_and_it_comes_back(tmp_path: Path):
    """Tried again after RETRY_S; nobody has to restart anything, and what was committed is there."""
    said: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def body() -> None:
        async with store(tmp_path / "s.db", on_trouble=said.append, max_value=1 << 20) as s:
            await s.ask("p", Set(1, "k", "v"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # a write beyond it fails
            try:
                async with asyncio.timeout(20):
                    while not said:
                        with contextlib.suppress(StoreUnavailable):
                            # Another text each time: the same one would write nothing.
                            await s.ask("p", Set(1, "big", os.urandom(500_000).hex()))
                with pytest.raises(StoreUnavailable):
                    await s.ask("p", Get(1, "k"))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            s._retry_at = 0.0  # it is later now
            assert await s.ask("p", Set(1, "k2", "again")) is True
            assert await s.ask("p", Get(1, "k")) in ("v", None)  # the last second may be lost
            async with asyncio.timeout(20):
                while len(said) < 2:
                    await asyncio.sleep(0.01)

    run(body)
    assert [bool(text) for text in said] == [True, False]


def test_what_nobody_expected_is_a_bug_and_ends_no_thread(tmp_path: Path):
    """Logged with its traceback, answered "unavailable"; what comes after it is answered as ever."""
    said: list[str] = []
    path = tmp_path / "s.db"

    async def body() -> None:
        async with store(path, on_trouble=said.append) as s:
            await s.ask("p", Set(1, "k", 1))
        with contextlib.closing(sqlite3.connect(path)) as by_hand:
            by_hand.execute("UPDATE state SET value = x'00'")
            by_hand.commit()
        async with store(path, on_trouble=said.append) as s, asyncio.timeout(20):
            first, second = s.ask("p", Incr(1, "k")), s.ask("p", Get(1, "other"))
            for each in (first, second):
                with pytest.raises(StoreUnavailable):
                    await each
            s._retry_at = 0.0  # it is later now
            assert await s.ask("p", Set(1, "k", 2)) is True
            assert await s.ask("p", Incr(1, "k")) == 3

    with (tmp_path / "log").open("wb") as file:
        log.setup("logfmt", "info", file.fileno())
        try:
            run(body)
            log.flush()
        finally:
            log.setup()
    assert [bool(text) for text in said] == [True, False]
    (line,) = [line for line in (tmp_path / "log").read_text().splitlines() if "event=bug" in line]
    assert "where=state" in line
    assert "TypeError" in line


def test_the_loop_never_waits_for_the_file(tmp_path: Path):
    """Another process that holds the file's lock stops the store's thread, and nothing else."""
    path = tmp_path / "s.db"

    async def body() -> None:
        async with store(path, on_trouble=lambda _: None) as s:
            await s.ask("p", Set(1, "k", "v"))
            await asyncio.sleep(0)
            with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                waiting = s.ask("p", Set(1, "k", "w"))
                turns = 0
                while turns < 100:
                    await asyncio.sleep(0)
                    turns += 1
                assert not waiting.done()
                other.execute("ROLLBACK")
            assert await waiting is True

    run(body)


def test_two_brokers_have_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As after a reload: each change counts, and so does each key, whoever made it."""
    monkeypatch.setattr(sqlite_file, "COMMIT_S", 0.01)

    async def body() -> None:
        async with store(tmp_path / "s.db", max_keys=3) as old, store(tmp_path / "s.db", max_keys=3) as new:
            for _ in range(20):
                await asyncio.gather(*(each.ask("p", Incr(1, "k")) for each in (old, new)))
            assert await new.ask("p", Incr(1, "k", by=0)) == 40
            assert await old.ask("p", Add(1, "by", "old")) is True
            assert await new.ask("p", Add(1, "by", "new")) is False
            assert await new.ask("p", Set(1, "third", 3)) is True
            with pytest.raises(StateError):
                await old.ask("p", Set(1, "fourth", 4))
            assert await new.ask("other", Set(1, "k", 1)) is True
            assert await old.ask("other", Delete(1, "k")) is True

    run(body)
