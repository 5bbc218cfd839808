"""Which places are there? They come and go while the loop runs.

Supervisor.add() brings one: its process is started with the loop's next turn, replaced when it dies, and
killed when it is late, as any other. Supervisor.let_go() tells one to end: nothing is started there any more,
and with its process the place vanishes from here; Place.on_gone is called then.

A number is one place's among those of its role, until that place has vanished: a worker writes in the slot of
the spool that has its number, and no two living processes may share one (queue/spool.py). free_number() gives
the lowest that nobody has, so that numbers, folders and paths do not grow with the days.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from forkd.master.place import Place


class Roster:
    """All places, in the order in which they came. Going through it is safe while places come and go."""

    def __init__(self, places: Iterable[Place] = ()) -> None:
        self._places: list[Place] = []
        self._by_pid: dict[int, Place] = {}
        for place in places:
            self.add(place)

    def __iter__(self) -> Iterator[Place]:
        return iter(tuple(self._places))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, place: object) -> bool:
        return place in self._places

    def of(self, role: str) -> list[Place]:
        """Those of that role, in the order in which they came."""
        return [place for place in self._places if place.slot.role == role]

    def free_number(self, role: str) -> int:
        """The lowest number that no place of that role has."""
        taken = {place.slot.number for place in self.of(role)}
        return next(number for number in itertools.count() if number not in taken)

    def add(self, place: Place) -> None:
        """One more, with a number of its own."""
        slot = place.slot
        taken = any(each.slot.number == slot.number for each in self.of(slot.role))
        assert not taken, f"{slot.role} {slot.number} is there already"
        self._places.append(place)

    def vanish(self, place: Place) -> None:
        """It is not there any more."""
        self._places.remove(place)

    def started(self, place: Place) -> None:
        """A process was started there (its slot knows the pid)."""
        self._by_pid[place.slot.pid] = place

    def reaped(self, pid: int) -> Place | None:
        """Where the process was that is dead; None: it was none of ours. Asked once for each."""
        return self._by_pid.pop(pid, None)
