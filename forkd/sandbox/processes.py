"""Which processes are there? What is asked of /proc about all of them, read in one place.

Everybody's are looked at, and a process has any octets for a name: fields are counted from the end of it.
One look at a thousand processes takes 12 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

_SIGKILL = 1 << 8
"""In a mask of signals, of which number 1 has bit 0."""
_PF_EXITING = 0x4
"""include/linux/sched.h; among the flags of proc_pid_stat(5)."""


class Seen(NamedTuple):
    """A process, as proc_pid_stat(5) has it.

    dead     and not reaped; not one whose first thread alone has ended.
    dying    a SIGKILL is on its way, or its last thread ends: it runs no code of its own any more, however
             long a busy machine takes to give it the processor that it needs for its end.
    started  in clock ticks since boot: pids come again.
    """

    pid: int
    dead: bool
    dying: bool
    session: int
    started: int


def look() -> Iterator[Seen]:
    """Everybody's, the dead that are not reaped too. Raises OSError where /proc cannot be read at all."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - names alone, a thousand of them
        if name.isdecimal() and (seen := see(int(name))) is not None:
            yield seen


def see(pid: int) -> Seen | None:
    """One of them; None: it is not there (any more)."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()  # from field 3 on: state, parent, group, session
    if not fields:
        return None
    last = int(fields[17]) <= 1  # its threads
    dead = last and fields[0] in (b"Z", b"X")
    # Nothing makes a process deaf to a pending SIGKILL, and nobody's own code runs behind PF_EXITING.
    dying = bool(int(fields[28]) & _SIGKILL) or (last and bool(int(fields[6]) & _PF_EXITING))
    return Seen(pid, dead, dying, int(fields[3]), int(fields[19]))


def owner(pid: int) -> tuple[int, int]:
    """Its real uid, and how many threads it has; (-1, 0): it is not there (any more).

    By its status: the folder of a process that is not dumpable belongs to root.
    """
    _, _, after = _read(pid, "status").partition(b"\nUid:\t")
    uid, _, _ = after.partition(b"\t")
    threads, _, _ = after.partition(b"\nThreads:\t")[2].partition(b"\n")
    return (int(uid), int(threads)) if threads else (-1, 0)


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - a thousand of them
            return file.read()
    except OSError:
        return b""
