"""forkd/master/roster.py: places that come and go, and their numbers."""

from __future__ import annotations

import pytest

from forkd.master.child import Child
from forkd.master.place import Place
from forkd.master.pool import Slot
from forkd.master.roles import ROLES
from forkd.master.roster import Roster

WORKER = next(role for role in ROLES if role.name == "worker")
ANVIL = next(role for role in ROLES if role.name == "anvil")


def _place(number: int, role=WORKER) -> Place:
    def start() -> Child:
        raise OSError("nothing is started here")

    return Place(role, Slot(role.name, number), start)


def test_the_lowest_number_that_nobody_has_is_given():
    """A slot of the spool is one process' alone, and numbers do not grow with the days."""
    first, second = _place(0), _place(1)
    roster = Roster([first, second, _place(0, ANVIL)])
    assert roster.free_number("worker") == 2
    roster.add(_place(2))
    roster.vanish(first)
    assert roster.free_number("worker") == 0
    assert [place.slot.number for place in roster.of("worker")] == [1, 2]


def test_two_places_of_a_role_never_have_one_number():
    """Two living processes in one slot would write over each other's files (queue/spool.py)."""
    roster = Roster([_place(0)])
    with pytest.raises(AssertionError, match="worker 0 is there already"):
        roster.add(_place(0))


def test_places_may_come_and_go_while_somebody_goes_through_them():
    """The loop looks at each, and what it finds there ends some and brings others."""
    roster = Roster(_place(number) for number in range(3))
    for place in roster:
        roster.vanish(place)
        roster.add(_place(place.slot.number + 10))
    assert [place.slot.number for place in roster] == [10, 11, 12]


def test_a_pid_is_asked_for_once():
    """Numbers come again: who was reaped is nobody's any more."""
    place = _place(0)
    roster = Roster([place])
    place.slot.start(4711, 0.0)
    roster.started(place)
    assert roster.reaped(4711) is place
    assert roster.reaped(4711) is None
