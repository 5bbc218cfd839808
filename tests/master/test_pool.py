"""When a process is started, replaced, killed: no hot loop, no outage by one bad session (pool.py)."""

from __future__ import annotations

import pytest

from forkd.master import pool
from forkd.master.pool import Slot, State


def slot(**options) -> Slot:
    return Slot("worker", 0, **({"start_limit_s": 30.0, "beat_limit_s": 10.0} | options))


def running(now: float = 0.0, **options) -> Slot:
    it = slot(**options)
    it.start(100, now)
    it.ready(now)
    return it


def test_a_new_slot_is_due_at_once():
    assert pool.due([it := slot()], 0.0) == [it]


def test_a_process_that_never_becomes_ready_is_waited_for_longer_and_longer():
    """Delays double up to DELAY_MAX_S: a role that cannot start does not burn the machine."""
    it, now, delays = slot(), 0.0, []
    for _ in range(12):
        it.start(100, now)
        delays.append(it.exited(now))
        assert pool.due([it], now) == []
        now += delays[-1]
        assert pool.due([it], now) == [it]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == pool.DELAY_MAX_S


def test_other_limits_hold_for_who_is_here():
    """A reload keeps some processes: one that stands still already is found by the new heartbeat."""
    it = running(beat_limit_s=3600.0)
    it.beat(100.0)
    it.limit(5.0, 2.0)
    assert not it.late(101.9) and "no heartbeat for 2.5 s" in it.late(102.5)
    it.exited(103.0)
    it.start(101, 104.0)
    assert not it.late(108.9) and it.late(109.1) == "not ready within 5 s"


def test_longer_limits_hold_from_the_next_beat():
    """And a process that hung up is not given time by them."""
    it = running()
    it.limit(30.0, 3600.0)
    it.beat(5.0)
    assert not it.late(3604.0)
    it.hung_up(3604.0)
    it.limit(30.0, 7200.0)
    assert it.late(3604.0 + pool.HANG_UP_S) == "closed its channel"


def test_a_zygote_sends_no_heartbeat_whatever_the_limits():
    """It has none to be late with."""
    it = running(beat_limit_s=0.0)
    it.limit(5.0, 0.0)
    assert not it.late(10_000.0)


def test_a_process_that_is_not_trusted_any_more_waits_as_if_it_had_never_served():
    """However long a hostile zygote behaved before it was caught. Its successor is met without prejudice."""
    it, now, delays = slot(), 0.0, []
    for _ in range(10):
        it.start(100, now)
        it.ready(now)
        it.distrust()
        now += 2 * pool.STEADY_S
        delays.append(it.exited(now))
        now += delays[-1]
    assert delays[:3] == [0.1, 0.2, 0.4] and delays[-1] == pool.DELAY_MAX_S
    it.start(100, now)
    it.ready(now)
    assert it.exited(now + pool.STEADY_S) == pool.FIRST_DELAY_S


def test_a_process_that_did_serve_is_never_missed_for_long():
    """kill -9 of a worker every second: its place is empty for a second at most."""
    it, now, delays = slot(), 0.0, []
    for _ in range(50):
        it.start(100, now)
        it.ready(now + 0.05)
        now += 0.1
        delays.append(it.exited(now))
        now += delays[-1]
    assert delays[:3] == [0.1, 0.2, 0.4], "nor is it started in a hot loop"
    assert delays[-1] == max(delays) == pool.READY_DELAY_MAX_S


def test_who_lived_long_starts_with_a_clean_slate():
    """Back-off is for deaths in a row."""
    it = running()
    it.deaths = 8
    assert it.exited(pool.STEADY_S) == pool.FIRST_DELAY_S


def test_time_in_which_master_was_held_up_is_held_against_nobody():
    """Nor does it change what else is due; a turn as long as usual excuses nobody."""
    it, silent = running(beat_limit_s=2), running(beat_limit_s=2)
    silent.stop(20)
    pool.excuse([it, silent], 1.0, 1.0 + pool.TURN_S)
    assert (it.kill_at, silent.kill_at) == (2, 20)
    pool.excuse([it, silent], 1.0, 60.0)
    assert it.late(61.9) == "" and "no heartbeat for 2.0 s" in it.late(62)
    assert silent.late(78.9) == "" and silent.late(79) == "did not stop in time"


def test_nor_is_time_held_against_who_was_starting():
    """A container that is paused while a role starts, or one is told to end that never came so far."""
    starting, ending = slot(start_limit_s=30.0), slot(start_limit_s=30.0)
    for each in (starting, ending):
        each.start(100, 0.0)
    ending.stop(None)
    pool.excuse([starting, ending], 20.0, 80.0)
    assert starting.late(89.9) == "" and starting.late(90) == "not ready within 30 s"
    assert ending.late(89.9) == "" and "while draining" in ending.late(90)


def test_a_missing_heartbeat_is_late_and_said_once():
    """A stalled worker is killed after server.heartbeat; a kill under way is not repeated."""
    it = running(beat_limit_s=10)
    it.beat(5)
    assert it.late(14.9) == ""
    assert "no heartbeat" in it.late(15)
    assert it.late(16) == ""


def test_a_role_without_heartbeat_is_never_late():
    """Zygotes send none."""
    assert running(beat_limit_s=0).late(1e9) == ""


def test_not_ready_in_time_is_late():
    it = slot(start_limit_s=30)
    it.start(100, 0)
    assert it.late(29) == ""
    assert "not ready" in it.late(30)


def test_heartbeats_do_not_prolong_a_stop():
    """After TERM the limit is the limit."""
    it = running()
    assert it.stop(kill_at=30)
    it.beat(29)
    assert "did not stop" in it.late(30)


def test_a_drain_has_no_limit_but_a_stalled_loop_is_found():
    """QUIT waits for transactions as long as the loop lives."""
    it = running(beat_limit_s=10)
    it.stop(kill_at=None)
    for now in range(1, 500):
        it.beat(now)
        assert it.late(now) == ""
    assert "no heartbeat" in it.late(510)


def test_a_drain_can_be_cut_short():
    """TERM after QUIT sets a limit; the second telling is not a first one."""
    it = running()
    assert it.stop(None)
    assert not it.stop(40)
    it.beat(39)
    assert it.late(39.9) == ""
    assert it.late(40)


def test_who_was_stopped_is_not_replaced():
    it = running()
    it.stop(30)
    it.exited(1)
    assert it.state is State.GONE
    assert pool.due([it], 1e9) == []


def test_a_slot_in_back_off_is_gone_when_stopped():
    it = running()
    it.exited(0)
    assert not it.stop(30)
    assert it.state is State.GONE


def test_a_role_that_closes_its_channel_and_stays_is_killed():
    """It could never be heard of again."""
    it = running(beat_limit_s=0)
    it.hung_up(5)
    assert it.late(5 + pool.HANG_UP_S) == "closed its channel"


def test_the_clock_wakes_the_loop_for_the_next_thing_only():
    """next_change is the earliest of what is due and what is late; kills under way are not waited for."""
    waiting, busy = slot(), running(now=3, beat_limit_s=10)
    waiting.due_at = 20
    assert pool.next_change([waiting, busy]) == 13
    busy.late(13)
    assert pool.next_change([waiting, busy]) == 20
    assert pool.next_change([running(beat_limit_s=0)]) is None


def test_a_wrong_transition_is_our_bug():
    """The states are asserted, after supervisor's process.py."""
    it = running()
    with pytest.raises(AssertionError):
        it.start(101, 1)
