"""Who gives way when a worker is full (worker/room.py)."""

from __future__ import annotations

import dataclasses

from forkd.worker.room import IDLE_S, LOOK_S, Room, longest_idle


@dataclasses.dataclass(eq=False)
class Sitting:
    """A session as room.py sees it; idle since so long at time 100."""

    idle_s: float | None
    favoured: bool = False
    gone: bool = False

    @property
    def idle_since(self) -> float | None:
        return None if self.gone or self.idle_s is None else 100.0 - self.idle_s

    def give_way(self) -> None:
        self.gone = True


def test_the_longest_idle_goes_first_and_nobody_who_is_at_work():
    working, short, long = Sitting(None), Sitting(5), Sitting(50)
    assert longest_idle([short, working, long], 100.0) == [long, short]


def test_who_was_just_heard_stays():
    """He may be about to speak."""
    assert longest_idle([Sitting(IDLE_S / 2), Sitting(0)], 100.0) == []


def test_the_favoured_go_after_all_others():
    """Trusted networks and users, however long they were silent; and one at a time."""
    users = [Sitting(500, favoured=True), Sitting(400, favoured=True)]
    stranger = Sitting(IDLE_S)
    assert longest_idle([*users, stranger], 100.0) == [stranger]
    assert longest_idle(users, 100.0) == [users[0]]


def test_what_was_found_is_looked_at_again_before_it_goes():
    """One look serves a flood; meanwhile one has begun a transaction, and another was heard."""
    sessions = [Sitting(50), Sitting(40), Sitting(30), Sitting(20)]
    room = Room(sessions)
    assert room.make(100.0)
    sessions[1].idle_s, sessions[2].idle_s = None, 0.0
    assert room.make(100.0)
    assert [session.gone for session in sessions] == [True, False, False, True]


def test_where_nobody_is_idle_it_is_not_looked_for_each_newcomer():
    """A look costs a millisecond with 10,000 sessions, and a flood has thousands of newcomers a second."""
    late = Sitting(None)
    room = Room([late])
    assert not room.make(100.0)
    late.idle_s = 50
    assert not room.make(100.0 + LOOK_S / 2)
    assert room.make(100.0 + LOOK_S)
