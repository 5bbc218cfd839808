"""How much has another process used? Asked of the kernel, whoever that process runs as; never of itself."""

from __future__ import annotations

import math
import os
import time

_CPUCLOCK_SCHED = 2
"""clock_gettime(2) of another process' CPU time: its pid inverted, shifted by three, or'ed with this."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def processor_s(pid: int) -> float:
    """Processor seconds, user and system; infinite when it is dead."""
    try:
        return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return math.inf


def address_space(pid: int) -> int:
    """Bytes; 0 where /proc does not say (hidepid): then the kernel's limit alone holds."""
    try:
        statistics = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return int(os.read(statistics, 100).split()[0]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0
    finally:
        os.close(statistics)
