"""Who is told to end hears it, also when he reads nothing for a while (shutdown.py)."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from forkd.master.child import Child
from forkd.master.place import Place
from forkd.master.pool import Slot, State
from forkd.master.roles import Role
from forkd.master.roster import Roster
from forkd.master.shutdown import Shutdown
from forkd.master.watch import Watch
from forkd.rpc import channel
from forkd.rpc.messages import ToRole
from forkd.rpc.messages_pool import Room, Stop

NOW = 1000.0


@pytest.fixture
def full() -> Iterator[tuple[Place, socket.socket]]:
    """A worker whose channel takes nothing more, and its end of it."""
    ours, theirs = channel.pair()
    with ours, theirs:
        ours.setblocking(False)
        child = Child(pid=0, channel=ours)
        place = Place(Role(name="worker", start_phase=0, stop_phase=0), Slot("worker", 0), lambda: child)
        place.child = child
        place.slot.start(1, NOW)
        place.slot.ready(NOW)
        while child.tell(Room(elsewhere=True)):
            pass
        yield place, theirs


def stops(theirs: socket.socket) -> list[Stop]:
    """What it is told now of its end."""
    messages: list[object] = []
    while more := channel.drain(theirs, ToRole)[0]:
        messages += more
    return [message for message in messages if isinstance(message, Stop)]


def test_a_stop_that_found_no_room_is_said_again(full: tuple[Place, socket.socket]):
    """Nobody else would: its slot is draining, and its heartbeats keep it alive for ever."""
    place, theirs = full
    down = Shutdown(Roster([place]), Watch())
    down.tell(place, None, NOW, gently=True)
    assert place.slot.state is State.DRAINING
    down.say_again(NOW + 1)
    assert stops(theirs) == []
    down.say_again(NOW + 2)
    assert stops(theirs) == [Stop(deadline_s=None, gently=True)]
    down.say_again(NOW + 3)
    assert stops(theirs) == [], "once is enough"


def test_what_is_said_late_is_the_time_that_is_left(full: tuple[Place, socket.socket]):
    """Else it would be killed before it ends by itself. The last word counts."""
    place, theirs = full
    down = Shutdown(Roster([place]), Watch())
    down.tell(place, None, NOW, gently=True)
    down.tell(place, 30.0, NOW)
    assert stops(theirs) == []
    down.say_again(NOW + 10)
    assert stops(theirs) == [Stop(deadline_s=20.0)]
    assert place.slot.kill_at is not None and place.slot.kill_at > NOW + 30
