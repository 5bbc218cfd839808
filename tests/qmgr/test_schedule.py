"""Which message is due when (qmgr/schedule.py), and who goes where (qmgr/routing.py)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.config import schema
from forkd.deliver.discard import Discard
from forkd.deliver.maildir import Maildir
from forkd.qmgr.retry import Retry
from forkd.qmgr.routing import Nowhere, Routing
from forkd.qmgr.schedule import Schedule, Standing
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


def test_a_clock_that_is_set_back_keeps_nothing_waiting() -> None:
    """What was to wait 10 s waits 10 s, in its order; also what has changed its time before."""
    schedule = Schedule()
    entries = {name: schedule.add(name, "w0", due) for name, due in [("A", 1010.0), ("B", 1011.0)]}
    third = schedule.add("C", "w0", 2000.0)
    assert third
    assert all(entries.values())
    schedule.wait(third, 1009.0)
    schedule.shift(-900.0)
    assert schedule.take(108.9, 9) == []
    assert [entry.id for entry in schedule.take(110.5, 9)] == ["C", "A"]
    assert schedule.next_due() == 111.0


def test_a_removed_message_is_never_due() -> None:
    """Its place in the heap counts for nothing."""
    schedule = Schedule()
    schedule.add("A", "w0", 1.0)
    schedule.remove("A")
    assert schedule.take(2.0, 1) == []
    assert len(schedule) == 0


def test_flush_takes_all_that_wait_or_those_named() -> None:
    """What runs has what was asked for, what is held must be released, what is not there is passed over."""
    schedule = Schedule()
    first, second, held = (schedule.add(name, "w0", 100.0) for name in "ABC")
    assert first and second and held
    schedule.hold(held)
    assert schedule.flush(["B", "C", "X"], 5.0) == 1
    assert [entry.id for entry in schedule.take(5.0, 9)] == ["B"]
    assert schedule.flush([], 6.0) == 1
    assert [entry.id for entry in schedule.take(6.0, 9)] == ["A"]


ACTS = st.sampled_from(["add", "take", "wait", "hold", "remove", "flush"])


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
        elif entry is not None and act == "hold":
            schedule.hold(entry)
        elif act == "remove":
            schedule.remove(str(number))
    waiting = {e.id for e in map(schedule.get, schedule.ids()) if e and e.standing is Standing.WAITING}
    due = schedule.next_due()
    assert not waiting or (
        due is not None and due <= min(e.due for e in map(schedule.get, waiting) if e is not None)
    )
    taken = [entry.id for entry in schedule.take(1e9, 99)]
    assert sorted(taken) == sorted(waiting)


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
        for way, _, targets in routing.route(envelope, [0, 1, 2, 3])
    }
    assert ways == {
        Maildir: [(0, "u", "test.local"), (3, "postmaster", "test.local")],
        Discard: [(1, "b", "discard.local")],
        Nowhere: [(2, "c", "elsewhere.org")],
    }


def test_a_route_goes_before_the_domains_transport(tmp_path: Path) -> None:
    """With a patience of its own; mail for elsewhere, which a session was allowed to send, has one alone."""
    config = msgspec.structs.replace(
        a_config(tmp_path),
        route={
            "vip@test.local": schema.Route(transport="drop", retry_first=schema.Seconds(60)),
            "elsewhere.org": schema.Route(transport="drop"),
        },
    )
    routing = Routing(config)
    ways = {
        type(way): [t.index for t in targets]
        for way, _, targets in routing.route(
            an_envelope("vip+x@test.local", "u@test.local", "c@elsewhere.org", "d@other.org"), [0, 1, 2, 3]
        )
    }
    assert ways == {Discard: [0, 2], Maildir: [1], Nowhere: [3]}
    assert routing.retry_of("VIP+x@test.local").first_s == 60
    assert routing.retry_of("u@test.local") == Retry()
