"""Which uids may plugins have here, so that test processes that run at the same time share none?

Processes of one uid are counted together (RLIMIT_NPROC) and may signal each other. So each test process
has a range as large as a daemon's, by its pid.
"""

from __future__ import annotations

import itertools
import os

_SIZE = 65_537
"""From sandbox.uid_base to that of the probe (forkd/master/probe_place.py)."""
_RANGES = 3_500
"""They end below 2**31, and begin behind the range of a daemon on defaults."""

UID_BASE = 1_900_000_000 + (1 + os.getpid() % _RANGES) * _SIZE
"""sandbox.uid_base for the daemons of this process."""
_single = itertools.cycle(range(UID_BASE + 1_000, UID_BASE + 60_000))


def next_uid() -> int:
    """For one zygote without a daemon: no daemon has so many plugins."""
    return next(_single)
