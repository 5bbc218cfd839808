"""What do the steps of a reload (reload.py) go by? Who serves, who died, what is undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forkd import log
from forkd.config import schema
from forkd.exits import Exit
from forkd.master.errors import StartError
from forkd.master.place import Place
from forkd.master.pool import State
from forkd.rpc.messages_pool import Log


class Undo:
    """What is to be done when a step fails, the last first."""

    def __init__(self) -> None:
        self._acts: list[Callable[[], None]] = []

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, *_: object) -> None:
        while self._acts:
            self._acts.pop()()

    def add(self, act: Callable[[], None]) -> None:
        """One more, to be done before those that are there."""
        self._acts.append(act)

    def forget(self) -> None:
        """All went well."""
        self._acts.clear()


def serves(place: Place) -> bool:
    """It has not been told to end."""
    return place.slot.state not in (State.DRAINING, State.GONE)


def look_for_the_dead(places: Sequence[Place]) -> None:
    """Raises StartError when one of them died, or could not be made."""
    for place in places:
        if place.slot.deaths or place.slot.state in (State.DRAINING, State.GONE):
            failed = place.failed
            why = failed.text if failed is not None else place.slot.last_end or "it ended"
            raise StartError(
                Exit.SYSTEM,
                f"{place.shown} did not start: {why}",
                failed.detail if failed is not None else "",
            )


def change_log(settings: schema.Log, kept: Sequence[Place]) -> None:
    """Master writes it so from now on, and who goes on; those that start anew have it from
    their configuration (child.py)."""
    log.change(settings.format, settings.level)
    for place in kept:
        if place.role.main and place.child is not None:  # zygotes have no log
            place.child.tell(Log(format=settings.format, level=settings.level))


def named(place: Place) -> str:
    """As the report has it: of workers and plugins each, of the others their role."""
    slot = place.slot
    return place.shown if slot.name or place.role.reload == "renew" else slot.role
