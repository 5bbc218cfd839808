"""How many workers run, and whose time is over (master/sizing.py)."""

from __future__ import annotations

import dataclasses

import pytest

from forkd.master.sizing import BUSY_S, NOTHING, YOUNG_S, Change, Policy, Seen, Sizing

POLICY = Policy(least=1, most=4, spare=0.25, busy=0.75, idle_s=300, retire_sessions=0, retire_bytes=0)


def pool(*sessions: int, **more) -> list[Seen]:
    """Workers 0, 1, …, each with so many of 100 places taken."""
    return [
        Seen(number=number, since=float(number), places=100, sessions=each, **more)
        for number, each in enumerate(sessions)
    ]


def size(**policy) -> Sizing:
    return Sizing(dataclasses.replace(POLICY, **policy))


@pytest.mark.parametrize(
    ("sessions", "grows"), [((75,), False), ((76,), True), ((100, 50), False), ((100, 51), True)]
)
def test_one_more_is_started_when_few_places_are_free(sessions: tuple[int, ...], grows: bool):
    """pool.spare is a share of all that run, not of each."""
    assert bool(size().decide(pool(*sessions), 0, 0.0).add) is grows


def test_the_next_is_not_thought_of_before_the_last_one_serves():
    """Else a burst would start all of them, and one that cannot start would be started again and again."""
    assert size().decide(pool(100), 1, 0.0) == NOTHING


def test_there_are_never_more_than_server_workers():
    assert size().decide(pool(100, 100, 100, 100), 0, 0.0) == NOTHING


def test_one_more_is_started_when_all_have_been_busy_for_a_while():
    """A worker can be at its end with a hundred sessions: the processor counts too. A burst does not."""
    it, busy, calm = size(), pool(5, busy=0.9), pool(5, busy=0.3)
    assert it.decide(busy, 0, 0.0) == NOTHING
    assert it.decide(calm, 0, BUSY_S) == NOTHING
    assert it.decide(busy, 0, BUSY_S + 1) == NOTHING
    assert it.decide(busy, 0, 2 * BUSY_S + 1).add == 1


def test_one_goes_when_it_was_not_needed_for_long():
    """The one with the fewest sessions, as soon as that has been so for pool.idle without a break."""
    it = size()
    assert it.decide(pool(9, 3, 5), 0, 0.0) == NOTHING
    assert it.decide(pool(200, 3, 5), 0, 100.0) == NOTHING  # a break
    assert it.decide(pool(9, 3, 5), 0, 200.0) == NOTHING
    assert it.decide(pool(9, 3, 5), 0, 499.0) == NOTHING
    assert it.decide(pool(9, 3, 5), 0, 500.0).drain == 1
    assert it.decide(pool(9, 3), 0, 501.0) == NOTHING, "the next one after another such time"


def test_of_those_with_as_few_the_one_that_came_last_goes():
    it = size(idle_s=0)
    assert it.decide(pool(0, 0, 0), 0, 0.0).drain == 2


@pytest.mark.parametrize(
    ("sessions", "busy"),
    [((30, 30), 0.1), ((4, 4), 0.3)],
    ids=["sessions", "processor"],
)
def test_nobody_goes_whom_load_would_bring_back(sessions: tuple[int, ...], busy: float):
    """Half of what calls for one more: else one would come and go for ever."""
    assert size(idle_s=0).decide(pool(*sessions, busy=busy), 0, 0.0) == NOTHING


def test_pool_min_of_them_stay():
    assert size(least=2, idle_s=0).decide(pool(0, 0), 0, 0.0) == NOTHING
    assert size(least=3).decide(pool(0, 0), 0, 0.0).add == 1


RETIRES = [({"retire_sessions": 10}, {"served": 10}), ({"retire_bytes": 1 << 20}, {"memory": 1 << 20})]


@pytest.mark.parametrize(("policy", "said"), RETIRES, ids=["sessions", "memory"])
def test_a_worker_is_retired_when_its_successor_serves(policy: dict[str, int], said: dict[str, int]):
    """Also where as many run as may: for a moment there is one more."""
    it = size(least=2, most=2, **policy)
    old, young = pool(1, 1, **said)
    young = dataclasses.replace(young, served=0, memory=0)
    new = Seen(number=2, since=YOUNG_S, places=100)
    assert it.decide([old, young], 0, YOUNG_S).add == 1
    assert it.decide([old, young], 1, YOUNG_S) == NOTHING, "it is being started"
    assert it.decide([old, young, new], 0, YOUNG_S).drain == old.number
    assert it.decide([young, new], 0, YOUNG_S) == NOTHING


def test_a_successor_that_is_lost_is_started_again():
    """As when the worker beside it died and its own place was filled first."""
    it = size(retire_sessions=10, idle_s=1000)
    both = pool(1, 1, served=10)
    assert it.decide(both, 0, YOUNG_S + 1).add == 1
    assert it.decide(both, 0, YOUNG_S + 2).add == 1


def test_one_that_dies_before_its_successor_serves_is_not_retired_any_more():
    it = size(least=1, most=1, retire_sessions=10)
    assert it.decide(pool(1, served=10), 0, YOUNG_S).add == 1
    other = [Seen(number=1, since=YOUNG_S, places=100)]
    assert it.decide(other, 0, YOUNG_S + 1) == NOTHING


def test_one_at_a_time_is_retired_and_no_young_one():
    """All of them reach their end together; none of them in a hot loop."""
    it = size(least=2, most=2, retire_bytes=1)
    both = pool(1, 1, memory=5)
    assert it.decide(both, 0, YOUNG_S - 1) == NOTHING
    assert it.decide(both, 0, YOUNG_S + 1).add == 1
    assert it.decide(pool(1, 1, 1, memory=5), 0, YOUNG_S + 2) == Change(drain=0, why="its successor serves")


@pytest.mark.parametrize(
    ("sessions", "coming", "elsewhere"),
    [
        ((100, 99, 100, 100), 0, True),
        ((100, 100, 100, 100), 0, False),
        ((100, 100), 0, True),  # one more may come
        ((100, 100), 1, True),  # and does
        ((0, 100, 100, 100), 0, False),  # room, but in itself
    ],
)
def test_a_full_worker_hears_whether_there_is_room_elsewhere(sessions, coming: int, elsewhere: bool):
    """Then it leaves connections to others, or to one that is yet to come, and sends nobody away."""
    assert size().elsewhere(pool(*sessions), soon=coming, late=0, number=0) is elsewhere


def test_one_that_does_not_come_is_no_room():
    """It was tried and failed: nobody waits for it."""
    assert not size().elsewhere(pool(100, 100), soon=0, late=1, number=0)
