"""What have processes counted that are no more? Added up by name, so that `forkd status` says what was done
since the start, through reloads, retirements and deaths.

What a process says is not believed beyond what it costs: names and numbers have an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MOST_NAMES: Final = 2_000
"""A dozen of each role, and a dozen of each plugin; what is beyond is not counted."""
MOST: Final = 2**62


class Tally:
    """Name of a counter -> the sum of all that have ended."""

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}

    def add(self, counters: Mapping[str, int]) -> None:
        """A process has ended that had counted this."""
        for name, number in counters.items():
            had = self.counted.get(name, 0)
            if number > 0 and (had or len(self.counted) < MOST_NAMES):
                self.counted[name] = min(had + number, MOST)
