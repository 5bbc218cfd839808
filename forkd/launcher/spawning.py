"""How is one program started, and how does it end?"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Mapping, Sequence

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "USE_FSYNC": "1"}
"""All else of it is the configuration's, which may say something else of these too.

PATH       for programs that start others by name
USE_FSYNC  IndiMail's qmail-queue syncs what it queues only where this is set, and exit status 0 is our 250;
           all others always do
"""

_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What Python ignores or we handle is handed on by exec: programs expect the kernel's defaults."""


@dataclasses.dataclass(frozen=True, slots=True)
class Command:
    """What a transport starts."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    limit_s: float


class Process:
    """A program that runs, leader of a process group of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        """Readable when it has ended."""

    def kill(self) -> str:
        """SIGKILL to all of its group; returns why not. It is not reaped yet, so its number is its own."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return ""
        except PermissionError as error:
            # setuid programs may be killed by who started them, unless they gave up that uid too (kill(2)).
            return os.strerror(error.errno or 0)
        return ""

    def reap(self) -> int | None:
        """Its exit status, negative: the signal; None: it has not ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        os.close(self.pidfd)
        return os.waitstatus_to_exitcode(status)


NUMBERS = (0, 1, 2, 6)
"""Of a program's descriptors. Text for the client: notqmail's programs write it on 6, IndiMail's on 2."""


def spawn(command: Command, descriptors: Sequence[int]) -> Process:
    """Start it with these as its descriptors NUMBERS, and no others. Raises OSError.

    vfork inside: a fork of our own would copy page tables, some milliseconds for each mail.
    """
    # 6 comes last: it may be the number of one of the given ones, which has been copied by then.
    actions = [
        (os.POSIX_SPAWN_DUP2, given, number) for given, number in zip(descriptors, NUMBERS, strict=True)
    ]
    pid = os.posix_spawn(
        command.argv[0],
        command.argv,
        {**ENVIRONMENT, **command.environment},
        file_actions=actions,
        setpgroup=0,
        setsigmask=(),
        setsigdef=_DEFAULT,
    )
    try:
        return Process(pid)
    except OSError:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
