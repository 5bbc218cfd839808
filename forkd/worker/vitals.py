"""How much does this worker work, and how much memory has it? What the size of the pool goes by."""

from __future__ import annotations

import contextlib
import resource
import time


class Vitals:
    """Looked at once a second; a look costs some 15 µs."""

    def __init__(self) -> None:
        self._at, self._spent = time.monotonic(), time.process_time()

    def busy(self) -> float:
        """Processor time since the last look, as a share of one processor; more than 1 with threads."""
        at, spent = time.monotonic(), time.process_time()
        share = (spent - self._spent) / max(at - self._at, 1e-3)
        self._at, self._spent = at, spent
        return round(share, 3)

    def memory(self) -> int:
        """Octets in memory that are not a file's nor shared (proc(5), statm); 0: not known."""
        with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as statm:  # noqa: PTH123
            fields = statm.read().split()
            return (int(fields[1]) - int(fields[2])) * resource.getpagesize()
        return 0
