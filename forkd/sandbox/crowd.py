"""Which of a zygote's sandboxes get less of the processor than the others? Those that use much, in a crowd.

An ordinary call takes a millisecond. Where a hundred sandboxes loop on each processor, the kernel gives
every one its turn, and an ordinary call waits for a hundred slices of four milliseconds, at each of its
steps. So whoever has used more than a turn gets the lowest priority (nice 19) while there is a crowd:
short calls overtake him at once, and what is left is shared by those that use much, all alike.

Only where the zygote has a uid or a PID namespace of its own: elsewhere its filter refuses (syscalls.py,
LOAD_OWN_UID).
"""

from __future__ import annotations

import ctypes
import os
import time

from forkd.sandbox import linux

CROWD = 4 * (os.cpu_count() or 1)
"""So many sandboxes that have not used much harm nobody, whatever they do: they are not looked at."""
LOOK_S = 0.02
"""How often a crowd is looked at."""
MUCH_S = 0.003
"""Processor time: two ordinary sessions', and less than one tick of a kernel with 250 a second."""
LAST = 19
_EPERM = 1
_CPUCLOCK_SCHED = 2
"""clock_gettime(2) of another process: its pid inverted, shifted by three, or'ed with this."""


class Crowd:
    """The sandboxes of one zygote that have not used much yet.

    With limits.reuse the time of all its sessions counts: such a sandbox falls behind fresh ones in a
    crowd, and is no worse off than others of its age.
    """

    def __init__(self) -> None:
        self._modest: set[int] = set()
        self._at = 0.0
        self._may = True

    def add(self, pid: int) -> None:
        """A sandbox was forked."""
        self._modest.add(pid)

    def remove(self, pid: int) -> None:
        """It was reaped."""
        self._modest.discard(pid)

    def wait_ms(self) -> int | None:
        """How long may the zygote sleep? None: until something happens."""
        return int(LOOK_S * 1000) if self._may and len(self._modest) > CROWD else None

    def look(self) -> None:
        """Who has used much? Does nothing where there is no crowd, or LOOK_S has not gone by."""
        now = time.monotonic()
        if now < self._at or self.wait_ms() is None:
            return
        self._at = now + LOOK_S
        for pid in tuple(self._modest):
            try:
                used = time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)
            except OSError:
                continue  # dead, and soon reaped
            if used < MUCH_S:
                continue
            self._modest.discard(pid)
            if linux.set_nice(pid, LAST) < 0 and ctypes.get_errno() == _EPERM:
                self._may = False
                return
