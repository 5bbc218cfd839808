"""Clients are counted over all workers (limits.sessions_per_client, connections_per_minute)."""

from __future__ import annotations

from forkd.anvil.counts import SLICE_S, Counts


def test_sessions_are_counted_over_all_workers():
    """The limit is one for the machine, not one per worker."""
    counts = Counts()
    assert counts.connect("w0", "a", 0) == (1, 1)
    assert counts.connect("w1", "a", 0) == (2, 2)
    assert counts.connect("w1", "b", 0) == (1, 1)
    counts.disconnect("w0", "a")
    assert counts.connect("w0", "a", 1) == (2, 3)


def test_a_lost_worker_takes_its_clients_with_it():
    """kill -9 of a worker leaves nobody counted; what others hold stays."""
    counts = Counts()
    for _ in range(5):
        counts.connect("w0", "a", 0)
    counts.connect("w1", "a", 0)
    counts.lost("w0")
    assert counts.sessions == 1
    assert counts.connect("w1", "a", 0)[0] == 2


def test_a_disconnect_that_was_never_told_as_a_connect_is_ignored():
    """After a restart of anvil workers tell of ends whose beginnings it does not know."""
    counts = Counts()
    counts.disconnect("w0", "a")
    counts.connect("w0", "a", 0)
    counts.disconnect("w1", "a")
    counts.disconnect("w0", "a")
    counts.disconnect("w0", "a")
    assert counts.connect("w0", "a", 0)[0] == 1


def test_the_rate_covers_the_last_minute_and_forgets():
    """Connections count for 60 to 70 seconds, ended or not."""
    counts = Counts()
    for second in range(0, 60, 5):
        counts.connect("w0", "a", second)
        counts.disconnect("w0", "a")
    assert counts.connect("w0", "a", 59) == (1, 13)
    assert counts.connect("w0", "a", 60 + 7 * SLICE_S) == (2, 1)


def test_who_is_gone_is_forgotten_and_who_is_connected_is_not():
    """Memory follows the clients of the last minute, not those of all time."""
    counts = Counts()
    for number in range(1000):
        counts.connect("w0", f"c{number}", 0)
        if number % 10:
            counts.disconnect("w0", f"c{number}")
    counts.sweep(30)
    assert len(counts) == 1000
    counts.sweep(200)
    assert len(counts) == 100
    assert counts.connect("w0", "c0", 201) == (2, 1)


def test_memory_is_bounded_by_forgetting_the_oldest():
    """A flood from many addresses costs a bounded table, never a failure."""
    counts = Counts(max_clients=50)
    for number in range(1000):
        assert counts.connect("w0", f"c{number}", 0)[0] == 1
        counts.disconnect("w0", f"c{number}")
    assert len(counts) <= 51
