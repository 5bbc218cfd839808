"""How is something handed to another process so that nobody can change it? As a sealed memory file."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable
from typing import Final

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NOEXEC_SEAL: Final = 8
"""MFD_NOEXEC_SEAL (linux/memfd.h): Landlock, which says what may be executed, does not see memory files."""


def memory_file(name: str) -> int:
    """An empty one; nobody can execute it, where the kernel knows how (Linux 6.3). Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)


def seal(fd: int) -> None:
    """From now on it is as it is, for everybody."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def sealed(name: str, pieces: Iterable[bytes | memoryview]) -> int:
    """A memory file of them, sealed; its offset is at its end. Raises OSError, and what `pieces` raises."""
    fd = memory_file(name)
    try:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd
