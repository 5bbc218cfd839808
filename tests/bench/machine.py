"""Was the machine idle but for the server under test and its client?"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.bench.process import KTHREADD, TICKS_PER_S, cpu_s, look, tree

NOT_IDLE: Final = 0.08
"""Share of the machine's CPU, used by others, from which a run is called disturbed."""


class Watch:
    """From construction to share(): how much of the machine's CPU did others use?

    Others are all but the given servers, this process with its children, and the kernel's threads
    (they work for us: journal, write-back). Time stolen by the hypervisor counts as others.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = [*roots, os.getpid()]
        self._at = time.monotonic()
        self._busy, self._stolen = _busy()
        self._ours, self._kernel = self._own()

    def _own(self) -> tuple[float, dict[int, float]]:
        table = look()
        kernel = {pid: cpu_s([pid], table) for pid in tree([KTHREADD], table)}
        return cpu_s(tree(self._roots, table), table), kernel

    def share(self) -> float:
        """0.0 to 1.0 of the machine."""
        busy, stolen = _busy()
        ours, kernel = self._own()
        spent = ours - self._ours
        # One by one: a kernel thread that ended takes its whole past with it.
        spent += sum(now - self._kernel.get(pid, 0.0) for pid, now in kernel.items())
        others = max(0.0, busy - self._busy - spent) + stolen - self._stolen
        return min(1.0, others / max(0.001, time.monotonic() - self._at) / (os.cpu_count() or 1))


def _busy() -> tuple[float, float]:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    # man proc_stat: user nice system idle iowait irq softirq steal; interrupts are the load's own.
    return sum(map(int, fields[:3])) / TICKS_PER_S, int(fields[7]) / TICKS_PER_S


def describe() -> str:
    """The machine in one line."""
    cpus = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    release = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    python = platform.python_version()
    return f"{release}, kernel {platform.release()}, {cpus} CPUs, {memory:.1f} GiB, Python {python}"
