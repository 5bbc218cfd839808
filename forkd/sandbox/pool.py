"""How many warm sandboxes should a worker keep of one plugin? Pure: told what happens and when.

A spare hides the half millisecond of a fork from a session's first call; it saves no CPU and holds
0.5 to 1 MB. So their number follows the arrival rate, up to the plugin's `spare`, and falls to none
when nobody comes.
"""

from __future__ import annotations

import math

REFILL_S = 0.010
"""What a refill takes on a busy machine: so much arrival should be covered."""
IDLE_S = 60.0
"""After so long without a session no memory is held for the next one."""
_MEMORY_S = 2.0
"""Time constant of the rate."""


class Demand:
    """The arrival rate of one plugin's sessions at one worker."""

    __slots__ = ("_last", "_rate")

    def __init__(self, now: float) -> None:
        self._last = now
        self._rate = 0.0

    def arrived(self, now: float) -> None:
        """A session took a sandbox at `now` (monotonic)."""
        gap = max(now - self._last, 1e-6)
        self._rate = self._rate * math.exp(-gap / _MEMORY_S) + 1.0 / _MEMORY_S
        self._last = now

    def spares(self, now: float, most: int) -> int:
        """How many to hold at `now`: at least one soon after a session, at most `most`."""
        gap = now - self._last
        if gap > IDLE_S:
            return 0
        rate = self._rate * math.exp(-gap / _MEMORY_S)
        return min(most, max(1, math.ceil(rate * REFILL_S)))
