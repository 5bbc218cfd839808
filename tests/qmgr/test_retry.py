"""When is a message tried again, warned of, given up (qmgr/retry.py)?"""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.qmgr.retry import Retry, jitter
from forkd.queue.outcome import Outcome
from forkd.queue.state import Attempt, State

HOUR = 3600.0
DAY = 24 * HOUR
RETRY = Retry()
IDS = st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=15, max_size=20)


@pytest.mark.parametrize(
    ("attempt", "middle"), [(1, 300), (2, 600), (3, 1200), (6, 9600), (7, 14_400), (10_000, 14_400)]
)
def test_delays_double_from_first_to_most_with_jitter(attempt: int, middle: float) -> None:
    """5 min growing to 4 h (queue.md); a hundred messages of one moment do not come back as one."""
    delays = [RETRY.delay_s(f"ID{number}", attempt) for number in range(100)]
    assert all(0.9 * middle <= delay <= 1.1 * middle for delay in delays)
    assert len({round(delay) for delay in delays}) > 20
    assert max(delays) - min(delays) > 0.15 * middle


def test_a_destination_that_is_away_is_asked_again_within_the_hour() -> None:
    """However long it was away: its mail must not wait four hours when it is back."""
    waits = [RETRY.probe_s("smtp x.test", failures) for failures in range(1, 40)]
    assert [round(wait / 300) for wait in waits[:4]] == [1, 2, 4, 8]
    assert all(3240 <= wait <= 3960 for wait in waits[4:])
    assert max(Retry(first_s=300, most_s=600).probe_s("x", n) for n in range(1, 40)) <= 660


def test_jitter_is_the_same_in_every_process() -> None:
    """hash() would not be: it is seeded anew at each start."""
    code = "from forkd.qmgr.retry import jitter; print(repr(jitter('ID', 3)))"
    other = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert float(other) == jitter("ID", 3)
    assert jitter("ID", 4) != jitter("ID", 3) != jitter("IE", 3)


@given(IDS, st.lists(st.floats(0.0, 7200.0), min_size=1, max_size=60))
def test_due_times_are_the_same_after_a_restart(queue_id: str, lasts: list[float]) -> None:
    """From the records alone: number and end of the attempts, as `.state` has them."""
    known, now, dues = State(), 0.0, []
    for took in lasts:
        now += took
        due = RETRY.due(queue_id, known.attempts + 1, ended_at=now, received_at=0.0)
        known.add(Attempt(at=now, next_try_at=due, outcomes=(Outcome(0, "deferred", "4.4.1", "x"),)))
        dues.append((now, due))
        now = due
    assert known.next_try_at == dues[-1][1]
    again = [
        RETRY.due(queue_id, number, ended_at=at, received_at=0.0) for number, (at, _) in enumerate(dues, 1)
    ]
    assert again == [due for _, due in dues]


@given(IDS, st.floats(0.0, 8 * DAY))
def test_the_last_try_is_when_it_is_given_up(queue_id: str, ended_at: float) -> None:
    """Not up to four hours later; and never in the past."""
    due = RETRY.due(queue_id, 9, ended_at=ended_at, received_at=0.0)
    assert due > ended_at
    if ended_at < 5 * DAY:
        assert due <= 5 * DAY
        assert RETRY.gives_up(received_at=0.0, now=due) is (due == 5 * DAY)


@pytest.mark.parametrize(
    ("age", "warned", "says"),
    [
        (3.9, False, False),
        (4.0, False, True),
        (4.0, True, False),
        (119.0, False, True),
        (120.0, False, False),
    ],
)
def test_the_sender_is_warned_once_and_not_when_it_is_over(age: float, warned: bool, says: bool) -> None:
    """After 4 h (queue.md); at the end the report says it all."""
    assert RETRY.warns(received_at=0.0, now=age * HOUR, warned=warned) is says


def test_no_warning_where_none_is_wanted() -> None:
    """warn = 0."""
    retry = Retry(warn_s=0.0)
    assert not retry.warns(received_at=0.0, now=DAY, warned=False)
    assert retry.next_look(received_at=0.0, now=0.0, warned=False) == 5 * DAY


def test_what_waits_for_its_turn_is_looked_at_in_time() -> None:
    """Mail for one that is away is warned of and given up, though it has no due time of its own."""
    looks, now, warned = [], 0.0, False
    while (at := RETRY.next_look(received_at=0.0, now=now, warned=warned)) < math.inf:
        looks.append(at)
        now, warned = at, warned or RETRY.warns(received_at=0.0, now=at, warned=warned)
    assert looks == [4 * HOUR, 5 * DAY]
