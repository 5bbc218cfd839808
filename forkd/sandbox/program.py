"""What does a zygote do to run a program once? The steps from its fork to the exec, behind the walls.

Nothing of a plugin runs in this zygote. A run has a process group of its own, which owns the leash: when
the worker drops it, or dies, the kernel kills the group as a whole; setpgid, setsid and every call that
could disarm the leash are refused from before the exec on (profiles.EXEC_CHILD). The exec drops what is
the process' alone: the CPU timer, so RLIMIT_CPU bounds it in whole seconds, and the flag that keeps
others from looking in. Runs at the same time share a uid, and /proc leads to whatever descriptors another
process has: so each has a Landlock domain of its own; where there is none, it has no /proc (launch.py).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` would bring nothing more
import base64
import ctypes
import os

from forkd.sandbox import landlock, linux, wire
from forkd.sandbox.linux import call, set_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXIT_EXEC = 127
"""The program could not be started; why stands in its output. As a shell says it."""

_F_DUPFD_CLOEXEC = 1030
_SIGKILL = 9
_POLL_IN = 1
_ENVIRONMENT = {b"PATH": b"/usr/local/bin:/usr/bin:/bin", b"LC_ALL": b"C.UTF-8"}


def load(spec: dict[str, Any], *, control: Any, title: linux.Title) -> Forker:  # noqa: ARG001
    """Forks for a program; arguments as every kind's load() gets them."""
    return Forker(spec)


class Forker:
    """Starts the program, once for each request."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._argv = tuple(spec["argv"])
        self._layers = frozenset(spec["layers"])
        self._apart = landlock.keeps_apart(self._layers)
        self._cpu_s = max(1, round(spec["cpu_s"] + 0.5))
        self._limits = spec["limits"]
        self._writes = bool(spec["limits"]["file_size"])
        self._filter = linux.seccomp_filter(base64.b64decode(spec["child"]))

    def fork(self, record: bytes, descriptors: list[int]) -> list[tuple[int, int]]:
        """As zygote.Forker."""
        run = wire.unpack_run(record)
        if len(descriptors) != wire.FDS_PER_RUN + len(run.numbers):
            raise wire.WireError("descriptors are missing")
        pid = linux.fork()
        if pid == 0:
            self._become(run, descriptors)
        return [(run.id, pid)]

    def _become(self, run: wire.Run, descriptors: list[int]) -> None:
        """In the new process: everything up to the exec; never returns."""
        try:
            variables = descriptors[2]
            given = os.pread(variables, os.fstat(variables).st_size, 0)
            place([*descriptors[:2], *descriptors[wire.FDS_PER_RUN :]], run.numbers)
            os.setpgid(0, 0)
            call("fcntl", wire.PROGRAM_LEASH_FD, linux.F_SETSIG, ctypes.c_long(_SIGKILL))
            call("fcntl", wire.PROGRAM_LEASH_FD, linux.F_SETOWN, ctypes.c_long(-os.getpid()))
            call("fcntl", wire.PROGRAM_LEASH_FD, linux.F_SETFL, ctypes.c_long(linux.O_ASYNC))
            if self._apart:
                landlock.stand_apart(moving=self._writes)
            self._limit()
            for number in _signal.valid_signals():
                if number not in (_SIGKILL, _SIGSTOP) and _signal.getsignal(number) != _signal.SIG_DFL:
                    _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
            environment, arguments = wire.unpack_environment(given)
            # Never the program itself: who asks says what it is told, not what is started.
            argv = self._argv if arguments is None else (self._argv[0], *arguments)
            if "seccomp" in self._layers:
                call("seccomp", linux.SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(self._filter))
            # A leash dropped before it was armed fired at nobody, so it is looked at once.
            leash = linux.PollEntry(wire.PROGRAM_LEASH_FD, _POLL_IN, 0)
            at_once = linux.TimerValue(0, 0)
            if call("ppoll", ctypes.byref(leash), 1, ctypes.byref(at_once), None, ctypes.c_long(0)):
                os._exit(EXIT_EXEC)
            os.execve(argv[0], argv, _ENVIRONMENT | environment)  # noqa: S606
        except BaseException as error:
            try:
                os.write(2, f"{self._argv[0]}: {error}\n".encode("utf-8", "backslashreplace"))
            finally:
                os._exit(EXIT_EXEC)

    def _limit(self) -> None:
        if "rlimits" not in self._layers:
            return
        set_limit(linux.RLIMIT_AS, self._limits["memory"])
        set_limit(linux.RLIMIT_CPU, self._cpu_s)
        set_limit(linux.RLIMIT_NOFILE, self._limits["open_files"])
        set_limit(linux.RLIMIT_NPROC, self._limits["sandbox_processes"])


_SIGSTOP = 19


def place(descriptors: list[int], numbers: tuple[int, ...]) -> None:
    """Put leash, output and the program's own descriptors where they belong; close everything else.

    descriptors  leash, output, then one for each of `numbers`. 0 stays what it is unless it is among those.
    """
    # First out of the way of the numbers they are going to.
    high = [
        call("fcntl", fd, _F_DUPFD_CLOEXEC, ctypes.c_long(wire.PROGRAM_LEASH_FD + 1)) for fd in descriptors
    ]
    targets = [(1, high[1]), (2, high[1]), (wire.PROGRAM_LEASH_FD, high[0])]
    targets += zip(numbers, high[2:], strict=True)  # 1 and 2 may be among them
    for number, fd in targets:
        os.dup2(fd, number)
    kept = sorted({0, *(number for number, _ in targets)})
    for first, after in zip(kept, [*kept[1:], 0xFFFF_FFFF + 1], strict=True):
        if first + 1 < after:
            call("close_range", first + 1, ctypes.c_ulong(after - 1), ctypes.c_long(0))
