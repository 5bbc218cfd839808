"""Deliveries on the event loop (qmgr/network.py): its bounds, our own bugs, clients that wait, the stop."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd import log
from forkd.deliver.transport import Delivery, Result, Target
from forkd.qmgr.lanes import Pass
from forkd.qmgr.network import ROOM, THREADS, Recording
from forkd.qmgr.schedule import Entry
from forkd.queue import state, stored
from forkd.queue.commit import finish_uncommitted
from forkd.queue.format import Damaged
from forkd.queue.spool import Spool
from tests.support.scripted_hops import Act, Answer, Driven, NextHops, hangs, hop_config, results, takes
from tests.support.spooling import MAIL, a_spool, an_envelope, queued
from tests.support.waiting import wait_for


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path / "spool", durable=False)


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was logged."""
    path = tmp_path / "log"
    with path.open("w") as file:
        log.setup("json", "info", os.dup(file.fileno()))
    try:
        yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    finally:
        log.setup()


def started(tmp_path: Path, hops: NextHops) -> Driven:
    return Driven(hop_config(tmp_path, durability="none"), hops)


def send(spool: Spool, *recipients: str) -> str:
    return queued(spool, *recipients, received_at=time.time())


def a_temporary(spool: Spool, *recipients: str) -> tuple[str, str]:
    """As a worker leaves it for a client that waits: slot and name."""
    file = spool.begin()
    file.write(MAIL)
    finish_uncommitted(file, an_envelope(*recipients, received_at=time.time()))
    return Path(spool.new).name, Path(file.path).name


async def raises(delivery: Delivery) -> Answer:
    raise LookupError(delivery.message.id)


async def says_too_little(delivery: Delivery) -> Answer:
    return results(delivery, "delivered")[:-1]


async def cancels_itself(delivery: Delivery) -> Answer:
    raise asyncio.CancelledError


@pytest.mark.parametrize("act", [raises, says_too_little, cancels_itself])
def test_our_own_bug_defers_one_message_and_no_other(
    tmp_path: Path, spool: Spool, events: Callable[[], list[dict[str, Any]]], act: Act
) -> None:
    """Logged with where it was; the message is there, and tried again in its time."""
    hops = NextHops()
    hops.acts["bug.test"] = act
    bad, good = send(spool, "a@bug.test", "b@bug.test"), send(spool, "c@good.test")
    it = started(tmp_path, hops)
    it.settle()
    it.stop()
    log.flush()
    assert good not in it.manager.schedule
    entry = it.manager.schedule.get(bad)
    assert entry is not None
    assert entry.due > time.time() + 200
    assert {o.text for o in state.load(f"{spool.new}/{bad}").last.values()} == {"internal error"}
    assert [e["where"] for e in events() if e["event"] == "bug"] == ["transport smtp"]
    assert hops.tried["bug.test"] == 1


def test_a_message_found_damaged_on_the_way_goes_to_bad(tmp_path: Path, spool: Spool) -> None:
    """Also where another of its destinations had it already."""

    async def meets_damage(delivery: Delivery) -> Answer:
        return Damaged("message does not match its checksum")

    hops = NextHops()
    hops.acts["x.test"] = meets_damage
    queue_id = send(spool, "a@x.test", "b@y.test")
    it = started(tmp_path, hops)
    it.settle()
    it.stop()
    assert len(it.manager.schedule) == 0
    assert (tmp_path / "spool/bad" / queue_id).exists()


def test_one_loop_carries_all_up_to_its_connections(tmp_path: Path, spool: Spool) -> None:
    """Over all destinations; in one thread."""
    hops = NextHops(connections=7)
    for number in range(40):
        hops.acts[f"d{number}.test"] = hangs
        send(spool, f"u@d{number}.test")
    it = started(tmp_path, hops)
    it.until(lambda: hops.running == 7)
    assert not it.turn()
    it.stop()
    assert hops.most == 7
    assert hops.threads == {"network"}
    assert "network" not in {thread.name for thread in threading.enumerate() if not thread.daemon}


def test_clients_that_wait_go_first(tmp_path: Path, spool: Spool) -> None:
    """One connection, busy with a client's mail; queued mail is put behind it; then more clients: they are
    next, one at a time."""
    hops = NextHops(connections=1)
    hops.acts["busy.test"] = hops.busy
    it = started(tmp_path, hops)
    told: list[Pass] = []

    def a_client(domain: str) -> str:
        slot, name = a_temporary(spool, f"w@{domain}")
        assert it.manager.deliver_now(slot, name, told.append, time.time()) == ""
        return name.partition(".")[0]

    clients = [a_client("busy.test")]
    it.until(lambda: hops.running == 1)
    queued_one = send(spool, "a@other.test")
    it.poke(queued_one)
    it.until(lambda: it.manager.active == 2)
    clients += [a_client("waits.test") for _ in range(3)]
    assert hops.running == 1
    hops.free()
    it.until(lambda: len(told) == 4 and not len(it.manager.schedule))
    it.stop()
    assert hops.order == [*clients, queued_one]
    assert hops.most == 1
    assert {result.status for attempt in told for _, result in attempt.results} == {"delivered"}


def test_at_the_stop_what_runs_is_cancelled_and_what_was_said_is_recorded(
    tmp_path: Path, spool: Spool
) -> None:
    """One part of a message has been delivered, another hangs; a restart brings the rest alone."""
    hops = NextHops()
    hops.acts["slow.test"] = hangs
    both = send(spool, "a@quick.test", "b@slow.test")
    more = [send(spool, f"u{number}@slow.test") for number in range(10)]
    it = started(tmp_path, hops)
    it.until(lambda: hops.tried["quick.test"] == 1 and hops.running == 5)
    it.stop()
    assert hops.running == 0
    assert hops.closed
    assert {i: o.status for i, o in state.load(f"{spool.new}/{both}").last.items()} == {0: "delivered"}
    assert not any(state.load(f"{spool.new}/{queue_id}").lines for queue_id in more)
    hops.acts["slow.test"] = takes
    again = started(tmp_path, hops)
    again.until(lambda: not len(again.manager.schedule))
    again.stop()
    assert hops.tried["quick.test"] == 1


def test_at_the_stop_who_has_it_is_recorded_in_the_middle_of_a_delivery(tmp_path: Path, spool: Spool) -> None:
    """Many recipients go in several transactions: the others are brought it after the restart, alone."""

    async def half(delivery: Delivery) -> Answer:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return results(delivery, "delivered")[:1]
        raise AssertionError

    hops = NextHops()
    hops.acts["slow.test"] = half
    queue_id = send(spool, "a@slow.test", "b@slow.test")
    it = started(tmp_path, hops)
    it.until(lambda: hops.running == 1)
    it.stop()
    known = state.load(f"{spool.new}/{queue_id}")
    assert {i: o.status for i, o in known.last.items()} == {0: "delivered"}


def test_a_stop_lets_what_runs_end_before_its_time(tmp_path: Path, spool: Spool) -> None:
    """Nothing new begins, what has begun is delivered."""
    hops = NextHops()
    hops.acts["busy.test"] = hops.busy
    for number in range(9):
        send(spool, f"u{number}@busy.test")
    it = started(tmp_path, hops)
    it.until(lambda: hops.running == 5)
    it.manager.stop_starting()
    hops.free()
    it.stop(at_once=False)
    assert (hops.tried["busy.test"], len(it.manager.schedule)) == (5, 4)


def a_pass(spool: Spool) -> Pass:
    message = stored.load(f"{spool.new}/{(queue_id := send(spool, 'a@x.test'))}", queue_id)
    return Pass(Entry(queue_id, "w0", 0.0, has_state=False), message, state.State(), 0.0)


def a_deferred_pass(spool: Spool) -> Pass:
    """Recording it takes a sync."""
    attempt = a_pass(spool)
    target = Target(0, "a@x.test", "a", "x.test")
    attempt.results.append(("smtp", Result(target, "deferred", "4.2.0", "greylisted")))
    return attempt


def test_lines_are_written_by_several_threads_at_once(spool: Spool) -> None:
    """None waits for another's sync, and what needs none goes by; each is recorded once."""
    here, calls = threading.Barrier(THREADS), itertools.count()
    settled: list[Pass] = []

    def settle(together: list[Pass]) -> None:
        if together[0].results and next(calls) < THREADS:
            here.wait(30)
        settled.extend(together)

    recording = Recording(settle, lambda _: None)
    before = threading.active_count()
    slow = [a_deferred_pass(spool) for _ in range(3 * THREADS)]
    for attempt in slow[: THREADS - 1]:
        recording.put(attempt)
    quick = a_pass(spool)
    recording.put(quick)
    wait_for(lambda: settled == [quick])
    for attempt in slow[THREADS - 1 :]:
        recording.put(attempt)
    wait_for(lambda: recording.room == ROOM, timeout_s=30)
    assert not here.broken, "all of them were there at once"
    assert sorted(map(id, settled)) == sorted(map(id, (quick, *slow)))
    assert threading.active_count() == before + THREADS + 1
    recording.close()
    wait_for(lambda: threading.active_count() == before)


def test_what_is_complete_is_not_recorded_beside_a_note_of_it(spool: Spool) -> None:
    """Two threads would write into one file."""
    attempt, other = a_deferred_pass(spool), a_deferred_pass(spool)
    noting, go = threading.Event(), threading.Event()
    told: list[object] = []

    def note(_: Pass) -> None:
        noting.set()
        assert go.wait(30)
        told.append("noted")

    recording = Recording(told.extend, note)
    attempt.open = 1
    recording.put(attempt, complete=False)
    assert noting.wait(30)
    attempt.open = 0
    recording.put(attempt)
    recording.put(other)
    # The second thread has begun with the one before it, if it is a third one's.
    wait_for(lambda: told == [other])
    go.set()
    wait_for(lambda: recording.room == ROOM)
    assert told == [other, "noted", attempt]
    recording.close()


def test_a_pass_that_has_come_to_its_end_is_not_noted_any_more(spool: Spool) -> None:
    """Its own record may be there, or the message gone: a line behind that would belong to nobody."""
    attempt = a_pass(spool)
    noted: list[Pass] = []
    settled: list[Pass] = []
    done = threading.Event()

    def settle(passes: list[Pass]) -> None:
        settled.extend(passes)
        done.set()

    recording = Recording(settle, noted.append)
    attempt.open = 1
    recording.put(attempt, complete=False)
    recording.put(attempt)
    assert done.wait(30)
    assert (len(noted), len(settled)) == (1, 1)
    done.clear()
    attempt.open = 0
    recording.put(attempt, complete=False)
    recording.put(attempt)
    assert done.wait(30)
    assert (len(noted), len(settled)) == (1, 2)
