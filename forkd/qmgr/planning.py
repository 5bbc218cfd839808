"""Which of a message's destinations are tried now, and when is it looked at again? Pure: no clock, no file.

Each recipient has a time of its own, counted from its own attempts; the least patient one at a destination
speaks for all of them there. What waits for a destination that is away counts no attempt: it is tried when
that is back, and looked at only to be given up, or to tell its sender of the delay.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Set

from forkd.deliver.transport import Result, Target
from forkd.qmgr.destination import Destination, Seen
from forkd.qmgr.retry import Retry
from forkd.qmgr.routing import Way
from forkd.qmgr.turns import End, Key, Turns
from forkd.queue.state import State
from forkd.queue.stored import StoredMessage

LEAST_LOOK_S = 60.0


@dataclasses.dataclass(slots=True)
class Loaded:
    """A message, what has become of it, and where it has to go."""

    message: StoredMessage
    known: State
    ways: list[Way]
    """Of all recipients that are neither delivered nor failed."""
    again: frozenset[int] = frozenset()
    """As Entry.again."""


@dataclasses.dataclass(slots=True)
class Plan:
    """What comes next for one message."""

    now: list[Way]
    """They wait for their turn from now on."""
    look_at: float
    """Unix time, behind now: when something has to be said or tried again."""
    overdue: list[tuple[str, Result]]
    """Recipients that wait for a destination that is away, and have waited so long that their sender must be
    told, or that they are given up: with the name of the transport."""


def plan(loaded: Loaded, turns: Turns, retry_of: Callable[[str], Retry], now: float) -> Plan:
    """Of a message no pass of which is running."""
    made = Plan([], math.inf, [])
    for way in loaded.ways:
        at = turns.at(*way.key)
        away = at if at is not None and at.away else None
        due = min((_due(loaded, target, retry_of, now) for target in way.targets), default=0.0)
        if due > now and away is None:
            made.look_at = min(made.look_at, due)
            continue
        made.now.append(way)
        look_at, overdue = _watch(loaded, way, away, retry_of, now)
        made.look_at = min(made.look_at, look_at)
        made.overdue += [(way.transport.name, result) for result in overdue]
    return made


def _due(loaded: Loaded, target: Target, retry_of: Callable[[str], Retry], now: float) -> float:
    known, index = loaded.known, target.index
    tries = known.tries.get(index, 0)
    if not tries or index in loaded.again:
        return now
    retry = retry_of(target.address)
    due = retry.due_of(
        loaded.message.id,
        tries,
        ended_at=known.ended[index],
        received_at=loaded.message.envelope.received_at,
    )
    # No wait is longer: the clock was wrong when that attempt ended. Else it might wait for years.
    return due if due <= now + retry.longest_s else now


def _watch(
    loaded: Loaded, way: Way, away: Destination | None, retry_of: Callable[[str], Retry], now: float
) -> tuple[float, list[Result]]:
    """While its turn does not come, time passes all the same: when to look again, and what is to be said."""
    received_at, warned = loaded.message.envelope.received_at, loaded.known.warned
    look_at, overdue = math.inf, []
    for target in way.targets:
        retry = retry_of(target.address)
        late = retry.gives_up(received_at=received_at, now=now)
        late = late or retry.warns(received_at=received_at, now=now, warned=warned)
        # On hold nothing is given up: an admin has said that it is to wait.
        if late and away is not None and not away.held:
            overdue.append(waits(target, away))
        next_look = retry.next_look(received_at=received_at, now=now, warned=warned)
        # Too old already, but its turn may come: if not, that is seen some time.
        look_at = min(look_at, now + max(retry.first_s, LEAST_LOOK_S) if math.isinf(next_look) else next_look)
    return look_at, overdue


def end_of(key: Key, way: Way | None, results: Mapping[int, Result], still_open: Set[Key]) -> End:
    """What a pass made of one destination, from its results by recipient."""
    targets = way.targets if way is not None else ()
    mine = [results[target.index] for target in targets if target.index in results]
    away = next((result for result in mine if result.away), None)
    seen = Seen.AWAY if away is not None else Seen.WORKS if mine else Seen.UNTRIED
    return End(seen, settled=key not in still_open, why=away)


def waits(target: Target, away: Destination) -> Result:
    """Why a recipient has to wait, in the words of the last that was tried there."""
    why = away.why
    if why is None:
        return Result(target, "deferred", "4.4.1", "its destination is away", away=True)
    return dataclasses.replace(why, target=target, reply=None)
