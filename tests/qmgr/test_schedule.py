"""Which message is due when (qmgr/schedule.py), and who goes where (qmgr/routing.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.deliver.discard import Discard
from forkd.deliver.maildir import Maildir
from forkd.qmgr.routing import Nowhere, Routing
from forkd.qmgr.schedule import Schedule, Standing, retry_delay
from forkd.smtp.address import Mailbox, split_address
from tests.support.spooling import a_config, an_envelope


def test_what_is_due_longest_comes_first_and_once() -> None:
    """A running message is not taken again."""
    schedule = Schedule()
    for queue_id, due in [("B", 2.0), ("A", 3.0), ("C", 1.0), ("D", 9.0)]:
        schedule.add(queue_id, "w0", due)
    assert [entry.id for entry in schedule.take(3.0, 2)] == ["C", "B"]
    assert [entry.id for entry in schedule.take(3.0, 5)] == ["A"]
    assert schedule.take(3.0, 5) == []
    assert schedule.next_due() == 9.0


def test_a_known_message_is_not_added_again() -> None:
    """A late poke or the walk must not make a second delivery of one that is running."""
    schedule = Schedule()
    assert schedule.add("A", "w0", 1.0)
    schedule.take(1.0, 1)
    assert schedule.add("A", "w0", 1.0) is None
    assert schedule.take(2.0, 1) == []


def test_a_removed_message_is_never_due() -> None:
    """Its place in the heap counts for nothing."""
    schedule = Schedule()
    schedule.add("A", "w0", 1.0)
    schedule.remove("A")
    assert schedule.take(2.0, 1) == []
    assert len(schedule) == 0


def test_flush_takes_failed_ones_only_by_id() -> None:
    """`forkd queue flush` must not hammer at what failed for good; an admin who names it may."""
    schedule = Schedule()
    waiting, failed = schedule.add("A", "w0", 100.0), schedule.add("B", "w0", 1.0)
    assert waiting and failed
    schedule.fail(failed)
    assert schedule.flush([], 5.0) == 1
    assert [entry.id for entry in schedule.take(5.0, 9)] == ["A"]
    assert schedule.flush(["B", "X"], 6.0) == 1
    assert failed.retry_failed
    assert [entry.id for entry in schedule.take(6.0, 9)] == ["B"]
    assert failed.standing is Standing.RUNNING


def test_pages_by_id() -> None:
    """Paging goes on behind the last id seen."""
    schedule = Schedule()
    for queue_id in "DBACE":
        schedule.add(queue_id, "w0", 0.0)
    assert [entry.id for entry in schedule.after("", 2)] == ["A", "B"]
    assert [entry.id for entry in schedule.after("B", 9)] == ["C", "D", "E"]


ACTS = st.sampled_from(["add", "take", "wait", "fail", "remove", "flush"])


@given(st.lists(st.tuples(ACTS, st.integers(0, 5), st.integers(0, 20)), max_size=60))
def test_nothing_that_waits_is_forgotten(acts: list[tuple[str, int, int]]) -> None:
    """After any acts, exactly the waiting messages come when all are due."""
    schedule = Schedule()
    for act, number, when in acts:
        entry = schedule.get(str(number))
        if act == "add":
            schedule.add(str(number), "w0", float(when))
        elif act == "take":
            schedule.take(float(when), 2)
        elif act == "flush":
            schedule.flush([], float(when))
        elif entry is not None and act == "wait":
            schedule.wait(entry, float(when))
        elif entry is not None and act == "fail":
            schedule.fail(entry)
        elif act == "remove":
            schedule.remove(str(number))
    waiting = {e.id for e in schedule.after("", 99) if e.standing is Standing.WAITING}
    due = schedule.next_due()
    assert not waiting or (
        due is not None and due <= min(e.due for e in schedule.after("", 99) if e.id in waiting)
    )
    taken = [entry.id for entry in schedule.take(1e9, 99)]
    assert sorted(taken) == sorted(waiting)


def test_delays_double_from_first_to_most_with_jitter() -> None:
    """5 min growing to 4 h, jittered (queue.md)."""

    def delay(attempts: int, chance: float = 0.5) -> float:
        return retry_delay(attempts, first_s=300, most_s=14_400, chance=chance)

    assert [delay(n) for n in (1, 2, 3, 7, 10_000)] == [300, 600, 1200, 14_400, 14_400]
    assert (delay(1, 0.0), delay(1, 1.0)) == pytest.approx((270, 330))


MAILBOXES = [
    ("a", "b.c"), ("a b", "b.c"), ('q"\\@x', "b.c"), ("postmaster", ""), ("a@b", "[192.0.2.1]"), ("", "b.c"),
]  # fmt: skip


@pytest.mark.parametrize(("local", "domain"), MAILBOXES)
def test_an_address_is_read_as_mailbox_wrote_it(local: str, domain: str) -> None:
    """The inverse of Mailbox.__str__."""
    assert split_address(str(Mailbox(local, domain))) == (local, domain)


def test_recipients_go_by_the_table(tmp_path: Path) -> None:
    """One table for RCPT and delivery; what has no way (any more) waits."""
    routing = Routing(a_config(tmp_path))
    envelope = an_envelope("U+x@test.local", "b@discard.local", "c@elsewhere.org", "Postmaster")
    ways = {
        type(way): [(t.index, t.mailbox, t.domain) for t in targets]
        for way, targets in routing.route(envelope, [0, 1, 2, 3])
    }
    assert ways == {
        Maildir: [(0, "u", "test.local"), (3, "postmaster", "test.local")],
        Discard: [(1, "b", "discard.local")],
        Nowhere: [(2, "c", "elsewhere.org")],
    }
