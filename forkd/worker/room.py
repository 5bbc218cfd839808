"""Who gives way when a worker has as many sessions as it may? The longest idle first, with 421 4.3.2.

Idle is who has no transaction, and whom we wait for. Nobody of a trusted network, and nobody who has
authenticated, goes while there is anybody else who could. Nobody goes who was heard less than IDLE_S ago: he
may be about to speak, and with more clients than places none would ever come to his mail. A newcomer waits
for somebody to have become idle (opening.py), a few at a time; the others are refused at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from typing import Protocol, TypeVar

IDLE_S = 1.0
"""Some round trips to the other side of the world."""
PATIENCE_S = 2 * IDLE_S
"""How long a newcomer waits for a place, ..."""
TRY_S = 0.05
"""... looking so often, ..."""
MOST_WAIT = 100
"""... and so many at a time: each holds a descriptor beyond limits.sessions."""
BATCH = 64
"""Found at one look over all sessions: 10,000 take 2 ms, and a flood comes thousands of times a second."""
LOOK_S = 0.1
"""Until the next look where one found nobody."""


class Sitting(Protocol):
    """What is asked of a session."""

    @property
    def idle_since(self) -> float | None:
        """When it was heard last; None: it is not idle."""
        ...

    @property
    def favoured(self) -> bool:
        """Trusted or authenticated."""
        ...

    def give_way(self) -> None:
        """End it; from now on it does not count."""
        ...


S = TypeVar("S", bound=Sitting)


def longest_idle(sessions: Collection[S], now: float, most: int = BATCH) -> list[S]:
    """Those that are to go, the first one first; of the favoured one at most, and only where that is all."""
    by = now - IDLE_S
    idle = [
        (since, place, session)
        for place, session in enumerate(sessions)
        if (since := session.idle_since) is not None and since <= by
    ]
    strangers = [each for each in idle if not each[2].favoured]
    found = heapq.nsmallest(most, strangers) if strangers else heapq.nsmallest(1, idle)
    return [session for _, _, session in found]


class Room:
    """In one worker, when it is full."""

    def __init__(self, sessions: Collection[S]) -> None:
        self._sessions: Collection[Sitting] = sessions
        self._found: list[Sitting] = []
        self._look_at = 0.0
        self.waiting = 0
        """Newcomers that wait for a place."""

    def make(self, now: float) -> bool:
        """Let one session go; false: there is none that may."""
        while True:
            while self._found:
                session = self._found.pop()
                since = session.idle_since
                if since is not None and since <= now - IDLE_S:
                    session.give_way()
                    return True
            if now < self._look_at:
                return False
            self._found = longest_idle(self._sessions, now)[::-1]
            if not self._found:
                self._look_at = now + LOOK_S
                return False
