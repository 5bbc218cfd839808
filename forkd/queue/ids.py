"""What is a message called? Queue ids that sort by time and never meet again."""

from __future__ import annotations

import os
import re
import time
from typing import TypeAlias

QueueId: TypeAlias = str
"""17 to 20 characters of 0-9 A-Z; also a file name."""

ID = re.compile(r"[0-9A-Z]{15,20}")
SLOT = re.compile(r"[a-z0-9]{1,6}")

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TIME_DIGITS = 10
"""36**10 microseconds: until the year 2085."""
_PAIRS = tuple([high + low for high in _DIGITS for low in _DIGITS])
_SLOW = 36**4
"""Only the last four digits of the time change from id to id; the others do every 1.7 s."""


def _base36(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


class Ids:
    """Makes the ids of one slot of one process. Not to be shared by threads.

    TIME (10 digits of base 36, microseconds) + 4 random ones of this process + SLOT. Within a process
    the time always grows, also when the clock is set back; two processes that had the same slot, one
    after the other or side by side, differ in the random part: it would take the same microsecond
    and a chance of 1 to 1.7 million for two ids to be equal.
    """

    __slots__ = ("_head", "_head_is", "_last", "_pid", "_slot", "_tail")

    def __init__(self, slot: str) -> None:
        if not SLOT.fullmatch(slot):
            raise ValueError(f"slot {slot!r} is not 1 to 6 of a-z and 0-9")
        self._slot = slot
        self._last = 0
        self._pid = 0
        self._tail = ""
        self._head = ""
        self._head_is = -1

    def new(self) -> QueueId:
        """The next id, greater than all before it."""
        now = time.time_ns() // 1000
        if now <= self._last:
            now = self._last + 1
        self._last = now
        if self._pid != os.getpid():
            # A fork must not go on with its parent's tail.
            self._pid = os.getpid()
            self._tail = _base36(int.from_bytes(os.urandom(8), "big"), 4) + self._slot.upper()
        slow, quick = divmod(now, _SLOW)
        if slow != self._head_is:
            self._head_is = slow
            self._head = _base36(slow, _TIME_DIGITS - 4)
        return f"{self._head}{_PAIRS[quick // 1296]}{_PAIRS[quick % 1296]}{self._tail}"


def time_of(queue_id: QueueId) -> float:
    """Unix time at which the id was made, seconds."""
    return int(queue_id[:_TIME_DIGITS], 36) / 1e6


class Process:
    """This process' mark in the names of its temporary files: pid, start time, boot.

    All three, because pids come again: within a boot with another start time, and in containers
    often the same pid after each restart.
    """

    @staticmethod
    def mark() -> str:
        """`PID.START.BOOT`, as it stands behind the id in tmp/."""
        pid = os.getpid()
        return f"{pid}.{_start_time(pid) or 0}.{boot()}"


def boot() -> str:
    """Eight characters that change with each boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - no Path for /proc
        return file.read(8)


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)), clock ticks since boot; None where it is not to be had."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            # The command's name, field 2, may hold anything: count from behind its last parenthesis.
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def alive(pid: int, start: int, boot_mark: str) -> bool:
    """Does the process with that mark live? When in doubt yes: its file may be a message coming in.

    /proc may hide processes of other users (hidepid), so the start time counts only where it can be read.
    """
    if boot_mark != boot():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    now = _start_time(pid)
    return not now or not start or now == start
