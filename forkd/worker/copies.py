"""What do plugins read of a message? A sealed memory file, made once per message and only on demand."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable

from forkd.rpc.calls import Overloaded

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class CopyBudget:
    """Octets that sealed copies of one worker may take together (sandbox.message_copies)."""

    __slots__ = ("_left",)

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes

    def take(self, size_bytes: int) -> None:
        """Reserve; raises Overloaded (451 4.3.2) when the budget is used up."""
        if size_bytes > self._left:
            raise Overloaded(f"{size_bytes} octets do not fit the budget for message copies")
        self._left -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Return what take() reserved."""
        self._left += size_bytes


class MessageCopies:
    """The copies of one message: the whole, or its header alone for plugins that may not read the body.

    A descriptor stays ours: the receiver gets a duplicate by SCM_RIGHTS. Call close() when the
    hook is over.
    """

    __slots__ = ("_budget", "_fds", "_read", "_reserved", "header_size", "size")

    def __init__(
        self, budget: CopyBudget, *, size: int, header_size: int, read: Callable[[], Iterable[bytes]]
    ) -> None:
        self._budget = budget
        self._read = read
        self._fds: dict[int, int] = {}
        self._reserved = 0
        self.size = size
        self.header_size = header_size

    def full_fd(self) -> int:
        """A sealed copy of header and body. Raises Overloaded, OSError."""
        return self._copy(self.size)

    def headers_fd(self) -> int:
        """A sealed copy of the header section alone. Raises Overloaded, OSError."""
        return self._copy(self.header_size)

    def _copy(self, size: int) -> int:
        fd = self._fds.get(size)
        if fd is not None:
            return fd
        self._budget.take(size)
        self._reserved += size
        fd = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._fds[size] = fd
        left = size
        for piece in self._read():
            if left <= 0:
                break
            view = memoryview(piece)[:left]
            left -= len(view)
            while view:
                view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return fd

    def close(self) -> None:
        """Close our descriptors and return the budget; idempotent."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._budget.give_back(self._reserved)
        self._reserved = 0
