"""A process tells admin what its log is told, waits for nobody, says what it could not (rpc/tracing.py)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from forkd.probe import configured
from forkd.rpc import tracing
from forkd.rpc.channel import MAX_RECORD_BYTES, decode
from forkd.rpc.messages_trace import Event, Traces
from forkd.rpc.tracing import Tracer

SESSION, OTHER, MESSAGE = "HOFUBH6H4VPC93W1", "HOFUBH6H4VPD93W1", "HOFUBH6KNL8A9EW1"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    reads, writes = tracing.pair()
    with reads, writes:
        yield reads, writes


def records(reads: socket.socket) -> list[Traces]:
    found: list[Traces] = []
    while True:
        try:
            found.append(decode(reads.recv(MAX_RECORD_BYTES + 1, socket.MSG_DONTWAIT), Traces))
        except BlockingIOError:
            return found


def events(traces: Traces) -> dict[str, list[Event]]:
    return {story.key: msgspec.msgpack.decode(story.events, type=list[Event]) for story in traces.stories}


def test_what_happened_to_one_session_leaves_together(ends):
    """One story per session and record; a message's id is told once, for who asks by it."""
    reads, writes = ends
    tracer = Tracer(writes, "worker.0")
    tracer("connected", {"session": SESSION, "client": "192.0.2.1:1"})
    tracer("connected", {"session": OTHER})
    tracer("message", {"session": SESSION, "id": MESSAGE, "recipients": ["a@example.org"]})
    tracer("delivery", {"id": MESSAGE, "status": "delivered"})
    tracer("config", {"note": "is about neither"})
    assert tracer.flush()
    [traces] = records(reads)
    assert (traces.writer, traces.before, traces.count, traces.dropped) == ("worker.0", 0, 4, 0)
    told = events(traces)
    assert [name for _, name, _ in told[SESSION]] == ["connected", "message"]
    assert told[SESSION][1][2]["recipients"] == ["a@example.org"]
    assert {story.key: (story.ids, story.begins) for story in traces.stories} == {
        SESSION: ((MESSAGE,), True),
        OTHER: ((), True),
        MESSAGE: ((), False),
    }


def test_of_forkds_own_probe_nothing_is_told(ends):
    """It asks every few seconds: who looks for a client's session would find little else."""
    reads, writes = ends
    tracer = Tracer(writes, "worker.0")
    tracer("connected", {"session": SESSION, "listener": configured.NAME})
    tracer("plugin_call", {"session": SESSION, "plugin": configured.NAME})
    tracer("debug", {"session": SESSION, "text": "a probe's session ended"})
    tracer.finish()
    assert [traces.count for traces in records(reads)] == [0, 0]


def test_a_message_that_was_refused_has_no_id(ends):
    """The log writes `-` there."""
    reads, writes = ends
    tracer = Tracer(writes, "worker.0")
    tracer("message", {"session": SESSION, "id": "-"})
    tracer.flush()
    [traces] = records(reads)
    assert traces.stories[0].ids == ()


def test_who_is_not_read_keeps_much_then_drops_and_says_how_much(ends):
    """Nobody waits for admin; what is kept comes later, what is not is a number in the next record."""
    reads, writes = ends
    tracer = Tracer(writes, "worker.0")
    told = 0
    while tracer.flush():
        tracer("refused", {"session": SESSION, "reply": "x" * 2000})
        told += 1
    for _ in range(tracing.KEPT + 50):
        tracer("refused", {"session": SESSION, "reply": "x"})
        told += 1
    got: list[Traces] = []
    while not tracer.flush():
        got += records(reads)
    got += records(reads)
    counted = 0
    for traces in got:
        assert traces.before == counted
        counted += traces.count
    assert counted + sum(traces.dropped for traces in got) == told
    assert sum(traces.dropped for traces in got) >= 50


def test_the_end_in_order_is_told(ends):
    """Else somebody killed it."""
    reads, writes = ends
    tracer = Tracer(writes, "worker.0")
    tracer("connected", {"session": SESSION})
    tracer.finish()
    first, last = records(reads)
    assert (first.count, first.ended, last.before, last.ended) == (1, False, 1, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"recipients": ["r" * 300] * 2000},
        {"text": "x" * 100_000},
        {f"key{n}": "x" * 5000 for n in range(20)},
        {"text": "half a pair \ud800"},
        {"error": ValueError("no value")},
        {"number": 1 << 70},
    ],
    ids=["list", "text", "many", "surrogate", "object", "large"],
)
def test_whatever_the_log_is_told_fits_a_record(ends, fields: dict[str, Any]):
    """Strangers choose what stands in it."""
    reads, writes = ends
    tracer = Tracer(writes, "worker.0")
    for _ in range(20):
        tracer("refused", {"session": SESSION, **fields})
    tracer.flush()
    got = records(reads)
    assert sum(traces.count for traces in got) == 20
    assert sum(len(events(traces)[SESSION]) for traces in got) == 20


def test_the_kernel_says_who_wrote(ends):
    """A record does not claim a pid; a child's is the child's."""
    reads, writes = ends
    child = os.fork()
    if child == 0:
        writes.send(b"x")
        os._exit(0)
    os.waitpid(child, 0)
    _, beside, _, _ = reads.recvmsg(10, tracing.BESIDE_BYTES)
    assert tracing.pid_of(beside) == child


def test_many_threads_lose_nothing(ends):
    """qmgr's threads log what they delivered while its loop flushes."""
    import threading

    reads, writes = ends
    tracer = Tracer(writes, "qmgr.0")
    threads = [
        threading.Thread(target=lambda: [tracer("delivery", {"id": MESSAGE}) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    got: list[Traces] = []
    while any(thread.is_alive() for thread in threads):
        tracer.flush()
        got += records(reads)
    tracer.flush()
    got += records(reads)
    assert sum(traces.count for traces in got) == 800
