"""Mail for many next hops: turns, dead-host memory, outcomes and times per recipient (qmgr/manager.py)."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from forkd.config import schema
from forkd.deliver.transport import Delivery, Result, Target
from forkd.fs import Fs
from forkd.qmgr.acts_files import Became
from forkd.qmgr.destination import FIRST_WINDOW
from forkd.qmgr.manager import BITE
from forkd.qmgr.network import ROOM as RECORDED
from forkd.qmgr.requests_look import Candidate
from forkd.qmgr.retry import Retry
from forkd.qmgr.schedule import Standing
from forkd.queue import state
from forkd.queue.format import Damaged
from forkd.queue.outcome import Outcome
from forkd.queue.spool import QMGR_SLOT, Spool
from tests.support.reports import reports
from tests.support.scripted_hops import Answer, Driven, NextHops, defers, hangs, hop_config, is_away, takes
from tests.support.spooling import a_spool, queued

SMTP = "smtp"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path / "spool", durable=False)


@pytest.fixture
def hops() -> NextHops:
    return NextHops()


@contextlib.contextmanager
def driven(data_dir: Path, hops: NextHops, **queue: object) -> Iterator[Driven]:
    it = Driven(hop_config(data_dir, durability="none", **queue), hops)
    try:
        yield it
    finally:
        it.stop()


def send(spool: Spool, *recipients: str, age_s: float = 0.0) -> str:
    return queued(spool, *recipients, received_at=time.time() - age_s)


def known(spool: Spool, queue_id: str) -> state.State:
    return state.load(f"{spool.new}/{queue_id}")


def test_ten_thousand_for_a_slow_destination_delay_no_other(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Its window is all that they have under way; another's mail is delivered at the next look."""
    hops.acts["slow.test"] = hangs
    for number in range(10_000):
        send(spool, f"u{number}@slow.test")
    with driven(tmp_path, hops) as it:
        it.until(lambda: hops.tried["slow.test"] == FIRST_WINDOW)
        quick = [send(spool, f"u{number}@quick.test") for number in range(50)]
        it.poke(*quick)
        it.until(lambda: not any(queue_id in it.manager.schedule for queue_id in quick))
        assert len(it.manager.schedule) == 10_000
        assert hops.tried["slow.test"] == FIRST_WINDOW
        assert it.manager.active == FIRST_WINDOW


def test_no_destination_has_more_at_once_than_its_route_allows(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """queue.concurrency, however many wait."""
    hops.acts["slow.test"] = hangs
    for number in range(20):
        send(spool, f"u{number}@slow.test")
    with driven(tmp_path, hops, concurrency=3) as it:
        it.until(lambda: hops.tried["slow.test"] == 3)
        assert not it.turn()
        assert hops.most == 3


def test_a_dead_destination_is_noticed_once_and_its_mail_waits_together(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """No attempt is made, or counted, for those that only wait; one probe, and all follow."""
    hops.acts["dead.test"] = is_away
    ids = [send(spool, f"u{number}@dead.test") for number in range(200)]
    with driven(tmp_path, hops) as it:
        it.settle()
        tried = hops.tried["dead.test"]
        assert tried <= FIRST_WINDOW
        (at,) = it.manager.destinations()
        assert at.away
        assert at.why is not None
        assert at.why.text == "connection refused"
        asked = [queue_id for queue_id in ids if known(spool, queue_id).attempts]
        assert len(asked) == tried
        assert len([queue_id for queue_id in asked if it.manager.waits_for(queue_id)]) >= 3, "all but two"
        probe_at = it.manager.next_wake()
        assert probe_at is not None
        assert probe_at >= time.time() + 200
        it.settle(now=at.probe_at)
        assert hops.tried["dead.test"] == tried + 1, "one probe"
        hops.acts["dead.test"] = takes
        assert at.probe_at is not None
        it.until(lambda: len(it.manager.schedule) < len(ids) // 2, now=at.probe_at)
        it.until(lambda: not len(it.manager.schedule), now=time.time() + 86_400)


def finds_away(it: Driven, spool: Spool, hops: NextHops) -> None:
    """dead.test is, by ten messages, which wait for it together."""
    hops.acts["dead.test"] = is_away
    for number in range(10):
        send(spool, f"u{number}@dead.test")
    it.manager.intake.walk(1000, time.time())
    it.settle()


def test_what_waits_for_a_dead_destination_is_given_up_in_its_time(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Without an attempt of its own; what it says is what the destination said."""
    with driven(tmp_path, hops) as it:
        finds_away(it, spool, hops)
        tried = hops.tried["dead.test"]
        old = send(spool, "old@dead.test", age_s=6 * 86_400)
        it.poke(old)
        it.settle()
        assert hops.tried["dead.test"] == tried
        assert old not in it.manager.schedule, "failed, and its sender was told"


def test_the_sender_of_what_waits_is_told_of_the_delay_once(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Though nobody tried it; no attempt is counted, so it is tried as soon as its destination is back."""
    with driven(tmp_path, hops) as it:
        finds_away(it, spool, hops)
        waits = send(spool, "w@dead.test", age_s=5 * 3600)
        it.poke(waits)
        it.settle()
        told = known(spool, waits)
        assert (told.warned, told.attempts, told.tries) == (True, 0, {})
        assert [at.name for at in it.manager.waits_for(waits)] == ["dead.test"]
        it.settle(now=time.time() + 60)
        assert known(spool, waits).lines == told.lines
    with driven(tmp_path, hops) as it:
        it.until(lambda: hops.tried["dead.test"] > 5)
        assert known(spool, waits).warned


class _NoRoomForReports(Fs):
    """The spool's disk is full, but for lines of `.state`."""

    full = True

    def create(self, path: str, mode: int = 0o660) -> int:
        if self.full and f"/{QMGR_SLOT}/" in path:
            raise OSError(errno.ENOSPC, "full")
        return super().create(path, mode)


def test_a_warning_that_could_not_be_written_is_written_when_there_is_room(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Not days later, when the message is given up."""
    hops.acts["dead.test"] = is_away
    fs = _NoRoomForReports()
    it = Driven(hop_config(tmp_path, durability="none"), hops, fs=fs)
    it.poke(*(send(spool, f"u{number}@dead.test") for number in range(10)))
    it.settle()
    waits = queued(spool, "w@dead.test", sender="me@test.local", received_at=time.time() - 5 * 3600)
    it.poke(waits)
    it.settle()
    assert not known(spool, waits).warned
    fs.full = False
    it.settle(now=time.time() + 61)
    it.stop()
    assert (known(spool, waits).warned, known(spool, waits).attempts) == (True, 0)


def test_when_what_waits_must_be_looked_at(tmp_path: Path, spool: Spool, hops: NextHops) -> None:
    """A destination that is away hides nobody's give-up: 5 days after it came, at the latest."""
    with driven(tmp_path, hops) as it:
        finds_away(it, spool, hops)
        waits = send(spool, "w@dead.test", age_s=4 * 86_400)
        it.poke(waits)
        it.settle()
        entry = it.manager.schedule.get(waits)
        assert entry is not None
        assert entry.standing is Standing.WAITING
        assert entry.due == pytest.approx(time.time() + 86_400, abs=600)
        assert [at.name for at in it.manager.waits_for(waits)] == ["dead.test"]


def test_an_attempt_of_a_wrong_clock_delays_no_mail_for_years(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Its records say that it was tried in years to come."""
    queue_id, years = send(spool, "a@slow.test"), time.time() + 1e8
    hops.acts["slow.test"] = hangs
    line = state.Attempt(at=years, next_try_at=years + 300, outcomes=(Outcome(0, "deferred", "4", "x"),))
    state.append(f"{spool.new}/{queue_id}", line, state.State())
    with driven(tmp_path, hops) as it:
        it.settle()
        assert hops.tried["slow.test"] == 0, "no delay is longer than a day"
        it.until(lambda: hops.tried["slow.test"] == 1, now=time.time() + 86_401)


def test_a_clock_that_is_set_back_delays_neither_mail_nor_probes(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """While qmgr runs: what waits is due when it would have been."""
    hops.acts |= {"dead.test": is_away, "grey.test": defers}
    for number in range(10):
        send(spool, f"u{number}@dead.test")
    grey = send(spool, "a@grey.test")
    with driven(tmp_path, hops) as it:
        it.settle()
        (dead,) = [at for at in it.manager.destinations() if at.name == "dead.test"]
        entry = it.manager.schedule.get(grey)
        assert entry is not None
        assert dead.probe_at is not None
        before = entry.due, dead.probe_at
        it.manager.clock_set_back(1e8)
        assert (entry.due, dead.probe_at) == pytest.approx((before[0] - 1e8, before[1] - 1e8), abs=0.001)
        tried = hops.tried.copy()
        it.settle(now=before[0] - 1e8 + 100)
        assert hops.tried["grey.test"] == tried["grey.test"] + 1, "its record is of the old clock"
        assert hops.tried["dead.test"] == tried["dead.test"] + 1, "one probe"


class _Stuck(Fs):
    """Lines for `.state` wait for free()."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def append(self, path: str, mode: int = 0o640) -> int:
        assert self.go.wait(60)
        return super().append(path, mode)


@pytest.mark.slow
def test_no_more_is_delivered_than_a_slow_disk_can_take_down(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Next hops are quicker: what waits to be recorded is in memory, and is bounded."""
    hops.connections = 20
    for number in range(RECORDED + 100):
        hops.acts[f"d{number}.test"] = defers
        send(spool, f"u@d{number}.test")
    fs = _Stuck()
    it = Driven(hop_config(tmp_path, durability="none"), hops, fs=fs)
    it.until(lambda: it.manager.active == sum(hops.tried.values()) and not (hops.running or it.turn()))
    assert RECORDED <= it.manager.active <= RECORDED + 2 * hops.connections
    fs.go.set()
    it.until(lambda: len(hops.tried) == RECORDED + 100 and not it.manager.active)
    it.stop()


def test_no_more_is_warned_of_at_once_than_a_slow_disk_can_take_down(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """A dead destination's mail is late all at once; the rest waits unloaded, and is not forgotten."""
    hops.acts["dead.test"] = is_away
    fs = _Stuck()
    fs.go.set()
    it = Driven(hop_config(tmp_path, durability="none"), hops, fs=fs)
    it.poke(*(send(spool, f"u{number}@dead.test") for number in range(10)))
    it.settle()
    fs.go.clear()
    late = [
        queued(spool, f"u{number}@dead.test", received_at=time.time() - 5 * 3600, sender="")
        for number in range(2 * RECORDED)
    ]
    it.poke(*late)
    it.until(lambda: it.manager.active >= RECORDED)
    for _ in range(50):
        it.turn()
    assert it.manager.active == RECORDED
    fs.go.set()
    it.settle()
    it.stop()
    assert all(known(spool, queue_id).warned for queue_id in late)


class _Stumbling(Fs):
    """Our own bug, once, where a line for `.state` is written."""

    def __init__(self) -> None:
        self.bugs = 0

    def append(self, path: str, mode: int = 0o640) -> int:
        if not self.bugs:
            self.bugs += 1
            raise LookupError(path)
        return super().append(path, mode)


def test_our_own_bug_in_recording_gives_nobody_the_mail_twice(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Who has it is remembered, and written down the next time."""
    hops.acts["grey.test"] = defers
    both, fs = send(spool, "a@quick.test", "b@grey.test"), _Stumbling()
    it = Driven(hop_config(tmp_path, durability="none"), hops, fs=fs)
    it.settle()
    assert (fs.bugs, known(spool, both).lines) == (1, 0)
    it.settle(now=time.time() + 100)
    it.stop()
    assert hops.tried == {"quick.test": 1, "grey.test": 2}
    assert {i: outcome.status for i, outcome in known(spool, both).last.items()} == {
        0: "delivered", 1: "deferred"
    }  # fmt: skip


def test_our_own_bug_in_a_note_stops_no_recording(tmp_path: Path, spool: Spool, hops: NextHops) -> None:
    """One destination hangs, the other's outcome cannot be noted: other mail is recorded and goes."""
    hops.acts["slow.test"] = hangs
    send(spool, "a@quick.test", "b@slow.test")
    fs = _Stumbling()
    it = Driven(hop_config(tmp_path, durability="none"), hops, fs=fs)
    it.until(lambda: bool(fs.bugs))
    more = send(spool, "c@quick.test")
    it.poke(more)
    it.until(lambda: more not in it.manager.schedule)
    it.stop()


class _SaysNothing:
    """A transport of this machine, with a bug: it forgets a recipient."""

    name = "smtp"
    parallel = batch = 4

    def destination(self, target: Target) -> str:
        return ""

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        return [[] for _ in deliveries]


def test_a_recipient_that_a_transport_forgets_is_deferred(tmp_path: Path, spool: Spool) -> None:
    """Our bug: not tried again at once, for ever."""
    queue_id = send(spool, "a@x.test")
    it = Driven(hop_config(tmp_path, durability="none"), _SaysNothing())
    it.settle()
    it.stop()
    assert known(spool, queue_id).last[0].text == "internal error"


def test_each_recipient_has_its_own_outcome_count_and_time(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Delivered, deferred and away in one message; the times are the same after a restart."""
    hops.acts |= {"grey.test": defers, "dead.test": is_away}
    for number in range(10):
        send(spool, f"u{number}@dead.test")
    with driven(tmp_path, hops) as it:
        it.settle()
        tried = hops.tried["dead.test"]
        mixed = send(spool, "a@ok.test", "b@grey.test", "c@dead.test", "d@test.local")
        it.poke(mixed)
        it.settle()
        assert hops.tried["dead.test"] == tried
        first = known(spool, mixed)
        assert {i: outcome.status for i, outcome in first.last.items()} == {
            0: "delivered", 1: "deferred", 3: "delivered"
        }  # fmt: skip
        assert first.tries == {0: 1, 1: 1, 3: 1}
        entry = it.manager.schedule.get(mixed)
        assert entry is not None
        received_at = time.time()
        due = Retry().due(mixed, 1, ended_at=first.ended[1], received_at=received_at)
        assert entry.due == pytest.approx(due, abs=0.001)
        it.settle(now=due)
        second = known(spool, mixed)
        assert second.tries[1] == 2
        assert hops.tried["dead.test"] <= tried + 1, "at most its probe"
        before = it.manager.schedule.get(mixed)
        assert before is not None
        due = Retry().due(mixed, 2, ended_at=second.ended[1], received_at=received_at)
        assert before.due == pytest.approx(due, abs=0.001)
    hops.acts["dead.test"] = hangs
    with driven(tmp_path, hops) as it:
        it.until(lambda: hops.running > 0)
        after = it.manager.schedule.get(mixed)
        assert after is not None
        assert hops.tried["grey.test"] == 2, "not due: not tried by a restart"


def test_a_deferred_message_is_due_at_the_same_time_after_a_restart(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """The jitter is the id's and the attempt's, not the process'."""
    hops.acts["grey.test"] = defers
    queue_id = send(spool, "a@grey.test", "b@grey.test")
    dues = []
    for _ in range(3):
        with driven(tmp_path, hops) as it:
            it.settle()
            entry = it.manager.schedule.get(queue_id)
            assert entry is not None
            dues.append(entry.due)
    assert hops.tried["grey.test"] == 1
    assert dues[0] == pytest.approx(dues[1], abs=0.001)
    assert dues[1] == dues[2]


def test_a_slow_part_of_a_message_does_not_hold_up_its_local_part_behind_a_full_window(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """What has its turn goes; the other part waits for its own."""
    hops.acts["slow.test"] = hangs
    with driven(tmp_path, hops) as it:
        it.poke(*(send(spool, f"u{number}@slow.test") for number in range(10)))
        it.until(lambda: hops.tried["slow.test"] == FIRST_WINDOW)
        mixed = send(spool, "a@test.local", "b@slow.test")
        it.poke(mixed)
        it.until(lambda: 0 in known(spool, mixed).last)
        assert known(spool, mixed).last[0].status == "delivered"
        assert len(list((tmp_path / "mail/test.local/a/new").iterdir())) == 1
        entry = it.manager.schedule.get(mixed)
        assert entry is not None
        assert entry.standing is Standing.WAITING


def test_a_flush_by_id_does_not_wait_for_the_probe(tmp_path: Path, spool: Spool, hops: NextHops) -> None:
    """An admin knows better than our memory."""
    hops.acts["dead.test"] = is_away
    ids = [send(spool, f"u{number}@dead.test") for number in range(20)]
    with driven(tmp_path, hops) as it:
        it.settle()
        hops.acts["dead.test"] = takes
        assert it.manager.schedule.flush([ids[-1]], time.time()) == 1
        it.until(lambda: ids[-1] not in it.manager.schedule)
        it.settle()
        tried_before = [queue_id for queue_id in ids if queue_id in it.manager.schedule]
        assert len(tried_before) <= FIRST_WINDOW, "those wait for their own time"
        assert it.manager.schedule.flush([], time.time()) == len(tried_before)
        it.until(lambda: not len(it.manager.schedule))


def test_a_flush_of_all_hammers_at_no_dead_destination(tmp_path: Path, spool: Spool, hops: NextHops) -> None:
    """It is asked again, and found away once more: not by each bite of those that are looked at."""
    hops.acts["dead.test"] = is_away
    for number in range(4 * BITE):
        send(spool, f"u{number}@dead.test")
    with driven(tmp_path, hops) as it:
        it.settle()
        tried = hops.tried["dead.test"]
        it.manager.schedule.flush([], time.time())
        it.settle()
        assert tried < hops.tried["dead.test"] <= tried + FIRST_WINDOW


def test_a_flush_of_a_destination_brings_all_that_is_for_it(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """What was tried and what only waits; nothing else."""
    hops.acts |= {"dead.test": is_away, "grey.test": defers}
    for number in range(20):
        send(spool, f"u{number}@dead.test")
    grey = send(spool, "a@grey.test")
    with driven(tmp_path, hops) as it:
        it.settle()
        hops.acts |= {"dead.test": takes, "grey.test": takes}
        assert it.manager.flush_destination(SMTP, "dead.test") == 20
        it.until(lambda: len(it.manager.schedule) == 1)
        assert grey in it.manager.schedule
        assert it.manager.flush_destination(SMTP, "elsewhere.test") == 0


def test_a_held_destination_gets_nothing_until_it_is_released(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Next hops and the machine's own transports alike; others go on."""
    hops.acts["slow.test"] = hangs
    with driven(tmp_path, hops) as it:
        first = send(spool, "a@slow.test")
        it.poke(first)
        it.until(lambda: hops.tried["slow.test"] == 1)
        assert it.manager.hold_destination(SMTP, "slow.test")
        assert it.manager.hold_destination("local", "")
        hops.acts["slow.test"] = takes
        more = [send(spool, "b@slow.test"), send(spool, "c@test.local")]
        quick = send(spool, "d@quick.test")
        it.poke(*more, quick)
        it.until(lambda: quick not in it.manager.schedule)
        it.settle() if not it.manager.active else it.turn()
        assert hops.tried["slow.test"] == 1
        assert all(queue_id in it.manager.schedule for queue_id in more)
        it.manager.hold_destination(SMTP, "slow.test", held=False)
        it.manager.hold_destination("local", "", held=False)
        it.until(lambda: not any(queue_id in it.manager.schedule for queue_id in more))
        assert not it.manager.hold_destination(SMTP, "elsewhere.test")


@pytest.mark.parametrize("domain", ["dead.test", "slow.test"])
def test_what_an_admin_takes_away_has_no_turn_any_more(
    tmp_path: Path, spool: Spool, hops: NextHops, domain: str
) -> None:
    """Lent while it waits for its turn, and back: looked at anew, delivered once."""
    hops.acts |= {"dead.test": is_away, "slow.test": hangs}
    with driven(tmp_path, hops) as it:
        it.poke(*(send(spool, f"u{number}@{domain}") for number in range(10)))
        it.until(lambda: hops.tried[domain] >= 3)
        waits = send(spool, f"w@{domain}")
        it.poke(waits)
        it.until(lambda: bool(it.manager.waits_for(waits)))
        entry = it.manager.schedule.get(waits)
        assert entry is not None
        standing = it.manager.acts.lend(entry)
        assert standing is Standing.WAITING
        it.turn()
        assert not it.manager.waits_for(waits)
        it.manager.acts.take_back(entry, standing, (Became.UNCHANGED, "not asked for"), time.time())
        it.turn()
        assert it.manager.waits_for(waits)


class _Counting(Fs):
    """Counts what is opened."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, path: str) -> int:
        self.opened.append(path)
        return super().open(path)


def test_a_message_is_read_once_where_its_destinations_are_free(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """And the first of those that wait for a turn stay loaded."""
    fs = _Counting()
    ids = [send(spool, f"u{number}@d{number % 10}.test", "x@test.local") for number in range(40)]
    it = Driven(hop_config(tmp_path, durability="none"), hops, fs=fs)
    it.until(lambda: not len(it.manager.schedule))
    it.stop()
    opened = [path for path in fs.opened if path.rpartition("/")[2] in ids]
    assert len(opened) == len(ids)


def test_all_parts_of_a_message_are_one_pass_where_all_are_free(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """One line in `.state`, or one removal, for many destinations."""
    hops.acts["grey.test"] = defers
    queue_id = send(spool, "g@grey.test", *(f"u@d{number}.test" for number in range(30)))
    with driven(tmp_path, hops) as it:
        it.settle()
        assert known(spool, queue_id).attempts == 1
        assert len(known(spool, queue_id).last) == 31


def test_who_has_the_mail_is_written_down_while_others_hang(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """A kill in the meantime gives it to nobody twice; and it counts once, when the pass is over."""
    hops.acts["slow.test"] = hops.busy
    queue_id = send(spool, "a@quick.test", "b@slow.test", "c@test.local")
    with driven(tmp_path, hops) as it:
        it.until(lambda: sorted(known(spool, queue_id).last) == [0, 2])
        assert it.manager.active == 1
        assert known(spool, queue_id).attempts == 0
        # Killed here, another qmgr finds it so:
        other = Driven(hop_config(tmp_path, durability="none"), NextHops())
        entry = other.manager.schedule.get(queue_id)
        assert entry is not None
        assert entry.due == 0.0, "b is tried at once"
        hops.free()
        it.until(lambda: queue_id not in it.manager.schedule)
    assert not any(Path(spool.new).iterdir())


def test_recipients_of_one_destination_are_one_delivery(tmp_path: Path, spool: Spool, hops: NextHops) -> None:
    """One transaction for all of them."""
    seen: list[int] = []

    async def counts(delivery: Delivery) -> object:
        seen.append(len(delivery.targets))
        return await takes(delivery)

    hops.acts["many.test"] = counts  # type: ignore[assignment]
    queue_id = send(spool, *(f"u{number}@many.test" for number in range(100)))
    with driven(tmp_path, hops) as it:
        it.until(lambda: queue_id not in it.manager.schedule)
    assert seen == [100]


def test_a_route_says_how_many_deliveries_at_once(tmp_path: Path, spool: Spool, hops: NextHops) -> None:
    """concurrency of its [route], not of [queue]."""
    hops.acts |= {"slow.test": hangs, "other.test": hangs}
    config = msgspec.structs.replace(
        hop_config(tmp_path, durability="none", concurrency=4),
        route={"slow.test": schema.Route(transport=SMTP, concurrency=2)},
    )
    for number in range(10):
        send(spool, f"u{number}@slow.test")
        send(spool, f"u{number}@other.test")
    it = Driven(config, hops)
    it.until(lambda: (hops.tried["slow.test"], hops.tried["other.test"]) == (2, 4))
    assert not it.turn()
    it.stop()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_next_hops_do_each_recipient_has_the_mail_once(
    tmp_path: Path, spool: Spool, hops: NextHops, seed: int
) -> None:
    """Delivered, deferred, away, our bugs, restarts, flushes, at random: in the end nothing is left, and
    nobody was given it twice."""
    chance = random.Random(seed)
    had: collections.Counter[tuple[str, str]] = collections.Counter()
    kind = True

    async def act(delivery: Delivery) -> Answer:
        await asyncio.sleep(chance.choice((0, 0.001)))
        one_for_all = chance.choice((defers, is_away, is_away, takes, takes)) if not kind else takes
        if not kind and chance.random() < 0.1:
            raise LookupError
        answer = await one_for_all(delivery)
        assert isinstance(answer, list)
        if not kind:
            # The recipients of one transaction have replies of their own.
            answer = [
                Result(result.target, "deferred", "4.2.0", "busy") if chance.random() < 0.3 else result
                for result in answer
            ]
        had.update((delivery.message.id, r.target.address) for r in answer if r.status == "delivered")
        return answer

    domains = [f"d{number}.test" for number in range(6)]
    hops.acts = dict.fromkeys(domains, act)
    wanted: set[tuple[str, str]] = set()
    for _ in range(3):
        kind = False
        with driven(tmp_path, hops) as it:
            for _ in range(40):
                addresses = [
                    f"u{number}@{chance.choice([*domains, 'test.local'])}"
                    for number in range(chance.choice((1, 2, 2, 9)))
                ]
                queue_id = queued(spool, *addresses, received_at=time.time(), sender="")
                it.poke(queue_id)
                wanted |= {(queue_id, address) for address in addresses if not address.endswith("local")}
                for _ in range(chance.randrange(4)):
                    it.turn(time.time() + chance.choice((0, 0, 1000, 20_000)))
                if chance.random() < 0.1:
                    it.manager.schedule.flush([], time.time())
            it.settle()
    kind = True
    with driven(tmp_path, hops) as it:
        it.until(lambda: not len(it.manager.schedule), now=time.time() + 86_400)
        assert len(it.manager.turns) == 0
    assert set(had) == wanted
    assert set(had.values()) == {1}
    assert not any(Path(spool.new).iterdir())


def test_what_is_bounced_while_it_is_delivered_is_reported_when_that_ends(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """Who has it by then is not in the report; who waits, is."""
    hops.acts |= {"busy.test": hops.busy, "later.test": defers}
    fields = {"sender": "me@test.local", "received_at": time.time()}
    queue_id = queued(spool, "a@busy.test", "b@later.test", **fields)
    with driven(tmp_path, hops) as it:
        it.until(lambda: hops.tried["busy.test"] == 1)
        entry, acts = it.manager.schedule.get(queue_id), it.manager.acts
        assert entry is not None
        assert entry.standing is Standing.RUNNING
        assert acts.later(entry, acts.bounce, "root") == ""
        hops.free()
        it.until(lambda: not len(it.manager.schedule))
    (report,) = reports(tmp_path / "mail/test.local/me")
    assert report.actions == {"b@later.test": "failed 5.0.0"}
    assert not list(Path(spool.new).iterdir())


def test_what_cannot_be_reported_now_is_not_removed_and_reported_later(
    tmp_path: Path, spool: Spool, hops: NextHops
) -> None:
    """A full disk: the admin is told, nothing is delivered any more, the report comes when there is room."""

    class Full(Fs):
        full = True

        def create(self, path: str, mode: int = 0o660) -> int:
            if self.full and "/q0/" in path:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().create(path, mode)

    hops.acts["later.test"] = defers
    queue_id = queued(spool, "b@later.test", sender="me@test.local", received_at=time.time())
    fs = Full()
    it = Driven(hop_config(tmp_path, durability="none"), hops, fs=fs)
    try:
        it.until(lambda: hops.tried["later.test"] == 1 and not it.manager.active)
        entry, acts = it.manager.schedule.get(queue_id), it.manager.acts
        assert entry is not None
        standing = acts.lend(entry)
        (done,) = acts.bounce(acts.place, [Candidate.of(entry, lent=True)], "root")
        acts.take_back(entry, standing, done, time.time())
        assert done == (Became.UNCHANGED, "not removed yet: its report cannot be written now")
        assert not (tmp_path / "mail").exists()
        fs.full = False
        it.until(lambda: not len(it.manager.schedule), now=time.time() + 40)
    finally:
        it.stop()
    (report,) = reports(tmp_path / "mail/test.local/me")
    assert report.actions == {"b@later.test": "failed 5.0.0"}
    assert hops.tried["later.test"] == 1
