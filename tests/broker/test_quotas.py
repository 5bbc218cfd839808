"""forkd/broker/quotas.py: rates and counts."""

from __future__ import annotations

from forkd.broker.quotas import Rate, Sessions


def test_a_rate_has_room_for_one_second_and_fills_again():
    """[dns] rate: so many a second."""
    rate = Rate(10)
    assert sum(rate.take(100.0) for _ in range(50)) == 10
    assert not rate.take(100.05)
    assert rate.take(100.2)
    assert sum(rate.take(500.0) for _ in range(50)) == 10


def test_a_clock_that_stands_still_or_goes_back_gives_nothing_away():
    """Monotonic clocks do not, but a bug would be a hole."""
    rate = Rate(1)
    assert rate.take(5.0)
    assert not rate.take(4.0)
    assert not rate.take(4.5)


def test_a_session_has_so_many_of_each_kind():
    """[dns] per_session; another session, another plugin and another kind have their own."""
    sessions = Sessions()
    assert [sessions.usage("p", "s").take("dns", 2) for _ in range(3)] == [True, True, False]
    assert sessions.usage("p", "s").take("state", 2)
    assert sessions.usage("p", "other").take("dns", 2)
    assert sessions.usage("q", "s").take("dns", 2)


def test_only_so_many_sessions_are_remembered():
    """The one that asked longest ago is forgotten first."""
    sessions = Sessions(kept=2)
    first, second = sessions.usage("p", "1"), sessions.usage("p", "2")
    assert sessions.usage("p", "1") is first
    sessions.usage("p", "3")
    assert len(sessions) == 2
    assert sessions.usage("p", "1") is first
    assert sessions.usage("p", "2") is not second
