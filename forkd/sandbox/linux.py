"""How does the zygote reach kernel calls that Python 3.11 lacks? ctypes over libc's syscall(2).

Only zygote and sandbox use it, before and after a raw fork; so every call is bound once, here, and
goes through one function object: a first ctypes look-up in a child copies 100 microseconds' worth of pages.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_MACHINE = os.uname().machine
_NUMBERS = {
    "x86_64": {"dup3": 292, "fcntl": 72, "prctl": 157, "prlimit64": 302, "seccomp": 317}
    | {"timer_create": 222, "timer_settime": 223, "ppoll": 271, "signalfd4": 289}
    | {"setpriority": 141},
    "aarch64": {"dup3": 24, "fcntl": 25, "prctl": 167, "prlimit64": 261, "seccomp": 277}
    | {"timer_create": 107, "timer_settime": 110, "ppoll": 73, "signalfd4": 74}
    | {"setpriority": 140},
}
NUMBER = _NUMBERS[_MACHINE] | {
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
    "close_range": 436,
}
"""System call numbers of this machine; KeyError above on one we have no policy for."""

# PyDLL keeps the GIL: right for a single-threaded process, and what makes a raw fork() safe here.
_libc = ctypes.PyDLL(None, use_errno=True)
syscall = _libc.syscall
syscall.restype = ctypes.c_long
fork = _libc.fork
"""fork(2) without Python's at-fork work (15 % cheaper, 20 page faults fewer). Only while single-threaded."""
fork.restype = ctypes.c_int
fork.argtypes = ()

trim_memory = functools.partial(_libc.malloc_trim, 0)
"""Give free pages of the heap back to the kernel (malloc_trim(3))."""

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_NO_NEW_PRIVS = 1, 4, 15, 38
SECCOMP_SET_MODE_FILTER = 1
F_SETFL, F_SETOWN, F_SETSIG = 4, 8, 10
O_ASYNC = 0o20000
CLOCK_PROCESS_CPUTIME_ID = 2
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_STACK, RLIMIT_CORE = 0, 1, 3, 4
RLIMIT_NPROC, RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_AS = 6, 7, 8, 9
RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO = 12, 13, 14


class Filter(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


class Limit(ctypes.Structure):
    """struct rlimit64."""

    _fields_ = (("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64))


class SignalEvent(ctypes.Structure):
    """struct sigevent, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_uint64),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_char * 48),
    )


class TimerValue(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (
        ("interval_s", ctypes.c_int64),
        ("interval_ns", ctypes.c_int64),
        ("value_s", ctypes.c_int64),
        ("value_ns", ctypes.c_int64),
    )


class PollEntry(ctypes.Structure):
    """struct pollfd."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


def call(name: str, *arguments: object) -> int:
    """One system call by name. Raises OSError."""
    result = int(syscall(NUMBER[name], *arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def prctl(option: int, value: object) -> None:
    """prctl(2) with one argument. Raises OSError."""
    call("prctl", option, value, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def set_nice(pid: int, nice: int) -> int:
    """setpriority(2) of one process (0: this one); negative, and errno set, when it was refused."""
    return int(syscall(NUMBER["setpriority"], 0, pid, nice))


def set_limit(resource: int, value: int) -> None:
    """Soft and hard limit of this process to `value`, or to the hard limit where that is lower already."""
    now = Limit()
    call("prlimit64", 0, resource, None, ctypes.byref(now))
    value = min(value, now.hard)
    call("prlimit64", 0, resource, ctypes.byref(Limit(value, value)), None)


class Title:
    """What ps shows of this process: its argv in memory, written over (as setproctitle(3) does).

    show() writes at most what the command line had room for; the rest is blanked.
    """

    def __init__(self) -> None:
        """Find argv: its strings lie behind each other, the first where libc says, and without /proc."""
        words = b"".join(os.fsencode(word) + b"\0" for word in sys.orig_argv)
        start = ctypes.c_void_p.in_dll(_libc, "program_invocation_name").value or 0
        found = start and ctypes.string_at(start, len(words)) == words
        self._start, self._room = start, len(words) - 1 if found else 0

    def prepare(self, text: str) -> tuple[memoryview, bytes]:
        """Where to write what, so that `text` is shown: made before a fork, used after it."""
        octets = text.encode("ascii", "replace")[: self._room].ljust(self._room, b"\0")
        place = (ctypes.c_char * self._room).from_address(self._start)
        return memoryview(place).cast("B"), octets

    def show(self, text: str) -> None:
        """Show `text` now."""
        place, octets = self.prepare(text)
        place[:] = octets


def seccomp_filter(program: bytes) -> Filter:
    """`program` (struct sock_filter array) as the kernel takes it; keep the result while it is used."""
    return Filter(len(program) // 8, program)


def signal_descriptor(signal: int) -> int:
    """signalfd(2) for one signal, non-blocking; the caller blocks the signal. Raises OSError."""
    mask = ctypes.c_uint64(1 << signal - 1)
    return call("signalfd4", -1, ctypes.byref(mask), ctypes.c_ulong(8), os.O_CLOEXEC | os.O_NONBLOCK)
