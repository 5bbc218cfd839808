"""Clients are counted over all workers (limits.sessions_per_client, …_per_minute, …_per_network)."""

from __future__ import annotations

from forkd.anvil.counts import SLICE_S, Rates, Sessions


def test_sessions_are_counted_over_all_workers():
    """The limit is one for the machine, not one per worker."""
    sessions = Sessions()
    assert sessions.enter("w0", "a") == 1
    assert sessions.enter("w1", "a") == 2
    assert sessions.enter("w1", "b") == 1
    sessions.leave("w0", "a")
    assert sessions.enter("w0", "a") == 2


def test_a_lost_worker_takes_its_sessions_with_it():
    """kill -9 of a worker leaves nobody counted; what others hold stays."""
    sessions = Sessions()
    for _ in range(5):
        sessions.enter("w0", "a")
    sessions.enter("w0", "b")
    sessions.enter("w1", "a")
    sessions.lost("w0")
    assert len(sessions) == 1
    assert sessions.enter("w1", "a") == 2


def test_an_end_whose_beginning_was_never_told_is_ignored():
    """After a restart of anvil workers tell of ends whose beginnings it does not know."""
    sessions = Sessions()
    sessions.leave("w0", "a")
    sessions.enter("w0", "a")
    sessions.leave("w1", "a")
    sessions.leave("w0", "a")
    sessions.leave("w0", "a")
    assert len(sessions) == 0
    assert sessions.enter("w0", "a") == 1


def test_who_is_gone_costs_nothing():
    """Memory follows those who are connected, not those of all time."""
    sessions = Sessions()
    for number in range(1000):
        sessions.enter("w0", f"c{number}")
        if number % 10:
            sessions.leave("w0", f"c{number}")
    assert len(sessions) == 100


def test_the_rate_covers_the_last_minute_and_forgets():
    """What happened counts for 60 to 70 seconds."""
    rates = Rates()
    for second in range(0, 60, 5):
        rates.add("connection", "a", 1, second)
    assert rates.add("connection", "a", 1, 59) == 13
    assert rates.add("connection", "a", 1, 60 + 7 * SLICE_S) == 1


def test_rates_of_different_things_and_keys_are_their_own():
    rates = Rates()
    assert rates.add("message", "a", 1, 0) == 1
    assert rates.add("recipient", "a", 5, 0) == 5
    assert rates.add("message", "b", 1, 0) == 1
    assert rates.add("message", "a", 1, 1) == 2


def test_asking_counts_nothing_and_keeps_nobody():
    """Before a password is looked at, anvil is only asked."""
    rates = Rates()
    assert rates.add("auth_failure", "a", 0, 0) == 0
    assert len(rates) == 0
    rates.add("auth_failure", "a", 1, 0)
    assert rates.add("auth_failure", "a", 0, 30) == 1
    assert rates.add("auth_failure", "a", 0, 200) == 0


def test_who_has_been_quiet_is_forgotten():
    rates = Rates()
    for number in range(100):
        rates.add("message", f"c{number}", 1, number)
    rates.sweep(30)
    assert len(rates) == 100
    rates.sweep(140)
    assert len(rates) == 20
    rates.sweep(1000)
    assert len(rates) == 0


def test_memory_is_bounded_by_forgetting_the_oldest():
    """A flood from many addresses costs a bounded table, never a failure."""
    rates = Rates(max_keys=50)
    for number in range(1000):
        assert rates.add("connection", f"c{number}", 1, 0) == 1
    assert len(rates) == 50
    assert rates.add("connection", "c999", 1, 0) == 2


def test_what_a_client_is_refused_does_not_count_for_its_network():
    """One that hammers away uses up its own rate, not that of its neighbours."""
    rates = Rates()
    keys, most = ("client", "network"), (3, 50)
    counts = [rates.add_all("message", keys, 1, 0.0, most) for _ in range(60)]
    assert counts[2] == (3, 3)
    assert counts[-1] == (60, 3)
    assert rates.add_all("message", ("neighbour", "network"), 1, 0.0, most) == (1, 4)


def test_without_a_limit_every_key_is_counted():
    """0, or none told: nobody is refused."""
    rates = Rates()
    for most in ((), (0, 2), (0, 2)):
        counts = rates.add_all("message", ("client", "network"), 1, 0.0, most)
    assert counts == (3, 3)
