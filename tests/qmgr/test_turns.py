"""Who comes next of what is due (qmgr/turns.py), and what one destination bears (qmgr/destination.py)."""

from __future__ import annotations

import collections

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forkd.qmgr.destination import FIRST_WINDOW, Destination, Seen
from forkd.qmgr.retry import Retry
from forkd.qmgr.turns import Bound, End, Key, Stage, Turn, Turns

RETRY = Retry(first_s=300, most_s=14_400)
ALL = {"smtp": 1000}


def bound(name: str, transport: str = "smtp", *, concurrency: int = 20) -> Bound:
    return Bound(transport, name, concurrency, RETRY)


def ended(
    turns: Turns, turn: Turn, seen: Seen = Seen.WORKS, now: float = 0.0, *, settled: bool = True
) -> None:
    """The whole run ended in one way."""
    turns.done(turn, {key(turn, i): End(seen, settled) for i in range(len(turn.parts))}, now)


def key(turn: Turn, index: int = 0) -> Key:
    at = turn.parts[index].at
    return at.transport, at.name


def away(turns: Turns, name: str, now: float = 0.0) -> float:
    """Let every run there fail until it is away; when its probe is due."""
    while True:
        taken = turns.take(now, ALL)
        assert taken, "there is too little mail to find it away"
        for turn in taken:
            ended(turns, turn, Seen.AWAY, now, settled=False)
        at = turns.at("smtp", name)
        assert at is not None
        if at.probe_at is not None:
            return at.probe_at


# --- one destination ------------------------------------------------------------------------------------


def test_a_windows_worth_of_successes_widens_it_by_one_up_to_the_limit() -> None:
    """The growth of Postfix' qmgr."""
    at = Destination("smtp", "a", limit=8, retry=RETRY)
    assert at.free(0.0) == 5
    for _ in range(6):
        at.start()
        at.end(Seen.WORKS, 0.0, probe=False)
    assert at.free(0.0) == 6
    for _ in range(100):
        at.start()
        at.end(Seen.WORKS, 0.0, probe=False)
    assert at.free(0.0) == 8


def test_failures_halve_it_until_it_is_away() -> None:
    """5, 2.5, 1.25, away: and what began before tells nothing new."""
    at = Destination("smtp", "a", limit=20, retry=RETRY)
    free = []
    for _ in range(5):
        at.start()
    for _ in range(5):
        at.end(Seen.AWAY, 100.0, probe=False)
        free.append((int(at.window), at.away))
    assert free == [(2, False), (1, False), (1, True), (1, True), (1, True)]
    assert at.failures == 1
    assert at.probe_at == 100.0 + RETRY.delay_s("smtp a", 1)


def test_one_probe_and_then_slowly_open_again() -> None:
    """A window of 1 after it came back: it may be weak yet."""
    at = Destination("smtp", "a", limit=1, retry=RETRY)
    at.start()
    at.end(Seen.AWAY, 0.0, probe=False)
    assert at.probe_at is not None
    assert at.free(at.probe_at - 1) == 0
    assert at.free(at.probe_at) == 1
    first = at.probe_at
    assert at.start() is True
    assert at.free(first) == 0, "one probe"
    at.end(Seen.AWAY, first, probe=True)
    assert at.probe_at > first + 500, "the back-off grows"
    assert at.start() is True
    at.end(Seen.UNTRIED, at.probe_at, probe=True)
    assert at.free(at.probe_at) == 1, "a probe that did not come so far is none"
    assert at.start() is True
    at.end(Seen.WORKS, at.probe_at, probe=True)
    assert (at.away, at.failures, at.free(0.0)) == (False, 0, 1)


# --- whose turn -----------------------------------------------------------------------------------------


def test_ten_thousand_for_a_slow_one_delay_no_other() -> None:
    """Issue of every queue without a ring: 10,000 before it, and it is taken at the next look."""
    turns = Turns()
    for number in range(10_000):
        turns.place(f"S{number}", [bound("slow")])
    running = turns.take(0.0, {"smtp": 50})
    assert len(running) == FIRST_WINDOW
    turns.place("Q", [bound("quick")])
    assert [turn.id for turn in turns.take(0.0, {"smtp": 1})] == ["Q"]


def test_destinations_take_turns() -> None:
    """One each, round and round, whatever their length."""
    turns = Turns()
    for name, count in (("a", 9), ("b", 3), ("c", 1)):
        for number in range(count):
            turns.place(f"{name}{number}", [bound(name)])
    assert [turn.id for turn in turns.take(0.0, {"smtp": 8})] == [
        "a0",
        "b0",
        "c0",
        "a1",
        "b1",
        "a2",
        "b2",
        "a3",
    ]


def test_a_transport_without_room_gets_nothing() -> None:
    """And keeps nobody of the others waiting."""
    turns = Turns()
    turns.place("A", [bound("x", "lmtp")])
    turns.place("B", [bound("x")])
    assert [turn.id for turn in turns.take(0.0, {"lmtp": 0, "smtp": 1})] == ["B"]
    assert [turn.id for turn in turns.take(0.0, {"lmtp": 1})] == ["A"]


def test_a_run_takes_along_what_nobody_else_waits_for() -> None:
    """One message to three destinations is one run, but for the part that must queue."""
    turns = Turns()
    for number in range(9):
        turns.place(f"F{number}", [bound("full", concurrency=2)])
    full = turns.take(0.0, ALL)
    assert len(full) == 2
    turns.place("M", [bound("a"), bound("full", concurrency=2), bound("b")])
    (turn,) = turns.take(0.0, ALL)
    assert [part.at.name for part in turn.parts] == ["a", "b"]
    assert turns.stages("M")["smtp", "full"] is Stage.WAITING


def test_a_message_has_one_run_and_its_other_part_goes_on_after() -> None:
    """Its outcomes are lines of one file."""
    turns = Turns()
    turns.place("A", [bound("x", concurrency=1)])
    (other,) = turns.take(0.0, ALL)
    turns.place("M", [bound("x", concurrency=1), bound("y")])
    (run,) = turns.take(0.0, ALL)
    assert [part.at.name for part in run.parts] == ["y"]
    turns.place("Z", [bound("x", concurrency=1)])
    ended(turns, other)
    assert [turn.id for turn in turns.take(0.0, ALL)] == ["Z"], "M runs: the next one has the turn"
    assert turns.stages("M")["smtp", "x"] is Stage.ASIDE
    ended(turns, run)
    assert turns.stages("M") == {("smtp", "x"): Stage.WAITING}


def test_mail_for_one_that_is_away_waits_together_for_one_probe() -> None:
    """It is noticed once: then one message, not each, asks again."""
    turns = Turns()
    for number in range(100):
        turns.place(f"M{number}", [bound("x")])
    probe_at = away(turns, "x")
    at = turns.at("smtp", "x")
    assert at is not None
    assert at.failures == 1
    assert turns.next_wake() == probe_at
    assert turns.take(probe_at - 1, ALL) == []
    (probe,) = turns.take(probe_at, ALL)
    assert turns.take(probe_at, ALL) == []
    ended(turns, probe, Seen.AWAY, probe_at, settled=False)
    again = turns.next_wake()
    assert again is not None
    assert again > probe_at
    (probe,) = turns.take(again, ALL)
    ended(turns, probe, Seen.WORKS, again)
    taken = 0
    while running := turns.take(again, ALL):
        taken += len(running)
        for turn in running:
            ended(turns, turn)
    tried_before = sum(1 for part in at.parts.values() if part.stage is Stage.LATER)
    assert taken == 100 - tried_before - 1


def test_flush_does_not_wait_for_the_probe() -> None:
    """An admin has mended the next hop; what was tried is named, to be placed again."""
    turns = Turns()
    for number in range(20):
        turns.place(f"M{number:02}", [bound("x")])
    away(turns, "x")
    later = turns.flush("smtp", "x")
    assert later
    for queue_id in later:
        turns.place(queue_id, [bound("x")])
    assert len(turns.take(0.0, ALL)) == FIRST_WINDOW
    assert turns.flush("smtp", "y") == []


def test_a_held_destination_starts_nothing() -> None:
    """Over whatever comes in; its release needs nothing else to happen."""
    turns = Turns()
    turns.place("A", [bound("x")])
    assert turns.hold("smtp", "x")
    turns.place("B", [bound("x")])
    assert turns.take(0.0, ALL) == []
    assert turns.hold("smtp", "x", held=False)
    assert {turn.id for turn in turns.take(0.0, ALL)} == {"A", "B"}
    assert not turns.hold("smtp", "y")


def test_what_is_removed_has_no_turn_and_leaves_nothing() -> None:
    """But for what runs; a destination without mail is forgotten."""
    turns = Turns()
    turns.place("A", [bound("x"), bound("y")])
    turns.place("B", [bound("x")])
    assert turns.remove("A", 0.0)
    assert turns.remove("A", 0.0), "gone is gone"
    (turn,) = turns.take(0.0, ALL)
    assert turn.id == "B"
    assert not turns.remove("B", 0.0)
    ended(turns, turn)
    turns.take(0.0, ALL)
    assert (len(turns), list(turns.destinations())) == (0, [])


def test_removing_many_leaves_no_marks_behind() -> None:
    """10,000 come and are removed before their turn: memory follows what is there."""
    turns = Turns()
    turns.place("KEPT", [bound("x")])
    turns.hold("smtp", "x")
    for number in range(10_000):
        turns.place(f"M{number}", [bound("x")])
        turns.remove(f"M{number}", 0.0)
    at = turns.at("smtp", "x")
    assert at is not None
    assert len(at.waiting) < 50


@pytest.mark.parametrize("names", [1, 7])
def test_no_destination_waits_for_more_than_one_round(names: int) -> None:
    """Between two turns of one that waits and may, each other has one at most."""
    turns = Turns()
    for number in range(50):
        for name in range(names):
            turns.place(f"{name}-{number}", [bound(str(name), concurrency=1000)])
    for _ in range(100):  # windows wide open
        for turn in turns.take(0.0, {"smtp": 3}):
            ended(turns, turn, settled=False)
            turns.place(turn.id, [bound(key(turn)[1])])
    order = [key(turn)[1] for turn in turns.take(0.0, {"smtp": 5 * names})]
    assert collections.Counter(order) == dict.fromkeys(map(str, range(names)), 5)
    assert all(len(set(order[at : at + names])) == names for at in range(len(order) - names + 1))


# --- everything at once ---------------------------------------------------------------------------------

HOPS = [("smtp", "a"), ("smtp", "b"), ("smtp", "c"), ("lmtp", "a")]
IDS = st.sampled_from([f"M{number}" for number in range(8)])
LIMIT = 3


class Machine(RuleBasedStateMachine):
    """Nothing is lost, no message runs twice, no limit is passed, nobody is passed over."""

    @initialize()
    def begin(self) -> None:
        """The model: what must be delivered where, and what runs."""
        self.turns = Turns()
        self.now = 0.0
        self.due: set[tuple[str, Key]] = set()
        self.later: set[tuple[str, Key]] = set()
        self.running: list[Turn] = []
        self.held: set[Key] = set()

    @rule(queue_id=IDS, hops=st.sets(st.sampled_from(HOPS), min_size=1))
    def place(self, queue_id: str, hops: set[Key]) -> None:
        self.turns.place(queue_id, [Bound(*hop, LIMIT, RETRY) for hop in sorted(hops)])
        run = {(turn.id, (part.at.transport, part.at.name)) for turn in self.running for part in turn.parts}
        for hop in hops:
            self.later.discard((queue_id, hop))
            if (queue_id, hop) not in run:
                self.due.add((queue_id, hop))

    @rule(smtp=st.integers(0, 4), lmtp=st.integers(0, 4))
    def take(self, smtp: int, lmtp: int) -> None:
        taken = self.turns.take(self.now, {"smtp": smtp, "lmtp": lmtp})
        parts = [(turn.id, (p.at.transport, p.at.name)) for turn in taken for p in turn.parts]
        assert len(set(parts)) == len(parts)
        assert set(parts) <= self.due
        assert not {hop for _, hop in parts} & self.held
        counts = collections.Counter(transport for _, (transport, _) in parts)
        assert counts["smtp"] <= smtp
        assert counts["lmtp"] <= lmtp
        self.due -= set(parts)
        self.running += taken
        ids = [turn.id for turn in self.running]
        assert len(set(ids)) == len(ids), "two runs of one message"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        turn = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        ends: dict[Key, End] = {}
        for part in turn.parts:
            hop = part.at.transport, part.at.name
            seen = data.draw(st.sampled_from(Seen))
            settled = seen is Seen.WORKS and data.draw(st.booleans())
            ends[hop] = End(seen, settled)
            if seen is Seen.UNTRIED:
                self.due.add((turn.id, hop))
            elif not settled:
                self.later.add((turn.id, hop))
        self.turns.done(turn, ends, self.now)

    @rule(queue_id=IDS)
    def remove(self, queue_id: str) -> None:
        runs = any(turn.id == queue_id for turn in self.running)
        assert self.turns.remove(queue_id, self.now) is not runs
        if not runs:
            self.due = {part for part in self.due if part[0] != queue_id}
            self.later = {part for part in self.later if part[0] != queue_id}

    @rule(hop=st.sampled_from(HOPS), held=st.booleans())
    def hold(self, hop: Key, held: bool) -> None:
        if self.turns.hold(*hop, held=held):
            (self.held.add if held else self.held.discard)(hop)

    @rule(hop=st.sampled_from(HOPS))
    def flush(self, hop: Key) -> None:
        assert {(queue_id, hop) for queue_id in self.turns.flush(*hop)} == {
            p for p in self.later if p[1] == hop
        }

    @rule(seconds=st.sampled_from([1.0, 400.0, 20_000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def windows_hold(self) -> None:
        if not hasattr(self, "turns"):
            return
        runs = collections.Counter(
            (part.at.transport, part.at.name) for turn in self.running for part in turn.parts
        )
        for at in self.turns.destinations():
            assert at.running == runs[at.transport, at.name] <= LIMIT

    def teardown(self) -> None:
        """Whatever happened: let all end well, and everything that is due comes, once."""
        if not hasattr(self, "turns"):
            return
        for hop in self.held:
            self.turns.hold(*hop, held=False)
        for turn in self.running:
            self.due |= {(turn.id, (part.at.transport, part.at.name)) for part in turn.parts}
            self.turns.done(turn, {}, self.now)
        self.now += 100_000.0
        while taken := self.turns.take(self.now, {"smtp": 2, "lmtp": 2}):
            for turn in taken:
                parts = {(turn.id, (part.at.transport, part.at.name)) for part in turn.parts}
                assert parts <= self.due
                self.due -= parts
                ended(self.turns, turn)
        assert not self.due
        for queue_id in {queue_id for queue_id, _ in self.later}:
            self.turns.remove(queue_id, self.now)
        assert (len(self.turns), list(self.turns.destinations())) == (0, [])


Machine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
