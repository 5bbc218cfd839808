"""What is told is kept, whatever befalls the file or whoever tells (admin/traces.py)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkd.admin import traces
from forkd.admin.trace_file import TraceFile
from forkd.admin.traces import TraceStore, Unavailable
from forkd.rpc import tracing
from forkd.rpc.channel import BadRecord, decode
from forkd.rpc.messages_trace import MOST_IDS, Traces
from forkd.rpc.tracing import Tracer

SESSION = "HOFUBH6H4VPC93W1"


@contextlib.asynccontextmanager
async def store(path: Path) -> AsyncIterator[tuple[TraceStore, socket.socket]]:
    """One that reads, and the write end."""
    reads, writes = tracing.pair()
    file = TraceFile(path, keep_s=1e6, sessions=1000, max_bytes=1 << 30)
    with reads, writes:
        opened = TraceStore(reads, file, asyncio.get_running_loop())
        opened.open()
        try:
            yield opened, writes
        finally:
            await opened.close()


async def known(opened: TraceStore, key: str) -> list[dict[str, Any]]:
    return list((await opened.find(key, since=0))["events"])


def test_what_was_told_before_the_question_is_in_the_answer(tmp_path):
    """Whoever asks right after a reply gets what is there."""

    async def ask() -> None:
        async with store(tmp_path / "trace.db") as (opened, writes):
            tracer = Tracer(writes, "worker.0")
            for n in range(50):
                tracer("refused", {"session": SESSION, "n": n})
                tracer.flush()
                assert len(await known(opened, SESSION)) == n + 1

    asyncio.run(ask())


def test_who_speaks_out_of_protocol_is_passed_over(tmp_path):
    """A process that was taken over hurts nobody's traces but its own."""

    async def ask() -> None:
        async with store(tmp_path / "trace.db") as (opened, writes):
            tracer = Tracer(writes, "worker.0")
            for junk in (b"x", b"\xc1" * 60_000, b"\x81\xa1t\xa6traces", b"\xff" * 65_537):
                writes.send(junk)
                tracer("refused", {"session": SESSION})
                tracer.flush()
            assert len(await known(opened, SESSION)) == 4

    asyncio.run(ask())


def bad(**changed: Any) -> bytes:
    """A record that a process of ours does not send."""
    story = {"key": SESSION, "ids": [], "at": 1.0, "begins": False, "events": []}
    told = {"t": "traces", "writer": "worker.0", "since": 1.0, "before": 0, "count": 0}
    story |= {name: value for name, value in changed.items() if name in story}
    told |= {name: value for name, value in changed.items() if name not in story}
    return msgspec.msgpack.encode({**told, "stories": [list(story.values())]})


@pytest.mark.parametrize(
    "changed",
    [
        {"since": float("nan")},
        {"since": -1.0},
        {"at": float("nan")},
        {"at": 1e300},
        {"before": (1 << 64) - 1},
        {"count": -1},
        {"dropped": 1 << 60},
        {"writer": "worker.0\x1b[2J"},
        {"writer": "worker.0\n"},
        {"key": "../../etc"},
        {"key": SESSION + "\n"},
        {"ids": ["\x1b" * 16]},
        {"ids": [SESSION] * (MOST_IDS + 1)},
    ],
    ids="-".join,
)
def test_a_record_that_would_harm_the_store_is_refused(tmp_path, changed):
    """Whole, and with it nobody else's: the file goes on, what others told stays in it."""
    assert decode(bad(), Traces)
    with pytest.raises(BadRecord):
        decode(bad(**changed), Traces)

    async def ask() -> None:
        async with store(tmp_path / "trace.db") as (opened, writes):
            tracer = Tracer(writes, "worker.0")
            for _ in range(3):
                tracer("refused", {"session": SESSION})
                tracer.flush()
                writes.send(bad(**changed))
            found = await opened.find(SESSION, since=0)
            assert (len(found["events"]), found["gaps"], opened.info().get("trace_trouble")) == (3, [], None)

    asyncio.run(ask())


def test_what_was_told_is_written_at_the_end(tmp_path):
    """Workers end before admin: their last words are in the socket."""
    path = tmp_path / "trace.db"

    async def tell() -> None:
        async with store(path) as (_, writes):
            tracer = Tracer(writes, "worker.0")
            for _ in range(20):
                tracer("refused", {"session": SESSION})
                tracer.flush()

    asyncio.run(tell())
    file = TraceFile(path, keep_s=1e6, sessions=1000, max_bytes=1 << 30)
    file.open_to_read()
    assert len(file.find(SESSION, since=0, now=0.0)["events"]) == 20
    file.drop()


def test_a_file_that_cannot_be_used_is_said_and_tried_again(tmp_path, monkeypatch):
    """No room, no permission: mail goes on, and what was told meanwhile is known to be missing."""
    monkeypatch.setattr(traces, "RETRY_S", 0.0)
    path = tmp_path / "away" / "trace.db"

    async def ask() -> None:
        async with store(path) as (opened, writes):
            tracer = Tracer(writes, "worker.0")
            tracer("refused", {"session": SESSION})
            tracer.flush()
            with pytest.raises(Unavailable, match="unable to open"):
                await opened.find(SESSION, since=0)
            assert "unable to open" in opened.info()["trace_trouble"]
            path.parent.mkdir()
            tracer("refused", {"session": SESSION})
            tracer.flush()
            found = await opened.find(SESSION, since=0)
            assert (len(found["events"]), [gap["events"] for gap in found["gaps"]]) == (1, [1])
            assert "trace_trouble" not in opened.info()

    asyncio.run(ask())


def test_a_damaged_file_is_put_aside_and_a_new_one_begun(tmp_path):
    """What is in it is nowhere needed."""
    path = tmp_path / "trace.db"
    path.write_bytes(b"no database" * 1000)

    async def ask() -> None:
        async with store(path) as (opened, writes):
            tracer = Tracer(writes, "worker.0")
            tracer("refused", {"session": SESSION})
            tracer.flush()
            assert len(await known(opened, SESSION)) == 1

    asyncio.run(ask())
    assert (tmp_path / "trace.bad").exists()
    assert sqlite3.connect(path).execute("SELECT COUNT(*) FROM piece").fetchone() == (1,)
