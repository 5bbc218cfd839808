"""How much does this worker work, and how much memory has it? What the size of the pool goes by."""

from __future__ import annotations

import contextlib
import resource
import time
from pathlib import Path


class Vitals:
    """As of the last look, which costs some 15 µs; looked at once a second.

    busy    processor time since the look before it, as a share of one processor; more than 1 with threads
    memory  octets that are not a file's nor shared (proc(5), statm); 0: not known
    """

    def __init__(self) -> None:
        self._at, self._spent = time.monotonic(), time.process_time()
        self.busy = 0.0
        self.memory = 0

    def look(self) -> None:
        """Once more."""
        at, spent = time.monotonic(), time.process_time()
        self.busy = round((spent - self._spent) / max(at - self._at, 1e-3), 3)
        self._at, self._spent = at, spent
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path("/proc/self/statm").read_text().split()
            self.memory = (int(fields[1]) - int(fields[2])) * resource.getpagesize()
