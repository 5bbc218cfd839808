"""How many were there in the last hour? Counters in the state store that slide with the time.

Time is cut into windows of the period's length, each with a counter. The count is that of the window we are
in, and of the one before as much as still lies in the period behind us: as if what it has were spread evenly.
Fixed windows alone would let twice the count through around their edges; a list of times for each client
would cost a write of the whole list for each mail.

Counters are added to atomically, before it is looked at what they come to: sessions that ask at the same time
never get more than the limit together. What is too much is taken off again.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from ratelimit_limits import Limit

from forkd.sdk.capabilities import CapabilityError
from forkd.sdk.remembering import state_key


class Charge(NamedTuple):
    """So much to add, for one of whom a limit speaks."""

    limit: Limit
    whom: str
    by: int


class Counters:
    """Counts of all limits; every method may raise the store's CapabilityError."""

    def __init__(self, state: Any, now: float) -> None:
        """`now`: seconds since 1970."""
        self._state = state
        self._now = now

    def exceeded(self, charges: list[Charge]) -> Charge | None:
        """Charge all of them; or none, and return the first that its limit does not allow."""
        charged: list[tuple[Charge, str]] = []
        try:
            for charge in charges:
                key, before, left = self._window(charge)
                now = self._state.incr(key, charge.by, ttl=2 * charge.limit.period)
                charged.append((charge, key))
                most = charge.limit.most
                if now <= most and left > 0:
                    now += int(_number(self._state.get(before)) * left)
                if now > most:
                    break
            else:
                return None
        except CapabilityError:
            # Nobody is charged for what was not counted to its end, as far as the store still takes it.
            with contextlib.suppress(CapabilityError):
                self._take_off(charged)
            raise
        self._take_off(charged)
        return charge

    def _take_off(self, charged: list[tuple[Charge, str]]) -> None:
        for charge, key in charged:
            self._state.incr(key, -charge.by, ttl=2 * charge.limit.period)

    def _window(self, charge: Charge) -> tuple[str, str, float]:
        """Keys of this window and the one before, and the part of that one that still counts."""
        limit = charge.limit
        number, into = divmod(self._now, limit.period)
        keys = [
            state_key(limit.who, limit.what, str(limit.period), str(int(window)), charge.whom)
            for window in (number, number - 1)
        ]
        return keys[0], keys[1], 1 - into / limit.period


def _number(found: Any) -> int:
    return found if isinstance(found, int) and found > 0 else 0
