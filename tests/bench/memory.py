"""How much memory does a server take, and the kernel for its connections?"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.bench.servers import Server

PAGE_KIB: Final = 4


def pss_kib(pids: Iterable[int]) -> int:
    """Proportional set size of these processes together: what is shared counts once (man proc_pid_smaps)."""
    total = 0
    for pid in pids:
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
        except OSError:  # it ended just now, or belongs to somebody else
            continue
        total += int(found.group(1)) if found else 0
    return total


def kernel_kib() -> int:
    """The kernel's slabs and the buffers of TCP sockets, machine-wide.

    A difference of two such figures is what many connections cost it, both of their ends on this machine.
    """
    slab = re.search(r"^Slab:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    tcp = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.M)
    return (int(slab.group(1)) if slab else 0) + (int(tcp.group(1)) * PAGE_KIB if tcp else 0)


@dataclasses.dataclass(frozen=True, slots=True)
class Rest:
    """A server that has started and does nothing."""

    server: str
    processes: int
    pss_mib: float


def at_rest(server: Server) -> Rest:
    """Waits until it has stopped working, some seconds at most."""
    server.running.settle()
    pids = server.running.pids()
    return Rest(server.name, len(pids), pss_kib(pids) / 1024)
