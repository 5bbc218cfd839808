"""What do plugins read of a message? A sealed memory file, made once per message and only on demand."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from typing import Protocol

from forkd.rpc.calls import CallFailed, Overloaded
from forkd.worker.bodies import Body

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


KEPT = 4
"""A KEPT-th of the budget is there once more for copies that outlive their hook: those wait for nobody and
nobody waits for them, so they must never be a reason for a 451."""


class CopyBudget:
    """Octets that sealed copies of one worker may take together (sandbox.message_copies)."""

    __slots__ = ("_left", "_left_to_keep")

    def __init__(self, size_bytes: int) -> None:
        self._left = size_bytes
        self._left_to_keep = size_bytes // KEPT

    def take(self, size_bytes: int) -> None:
        """Reserve; raises Overloaded (451 4.3.2) when the budget is used up."""
        if size_bytes > self._left:
            raise Overloaded(f"{size_bytes} octets do not fit the budget for message copies")
        self._left -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Return what take() reserved."""
        self._left += size_bytes

    def keep(self, size_bytes: int) -> None:
        """Reserve for a copy that outlives its hook; raises Overloaded: then do without it."""
        if size_bytes > self._left_to_keep:
            raise Overloaded(f"{size_bytes} octets do not fit what is there for copies that are kept")
        self._left_to_keep -= size_bytes

    def let_go(self, size_bytes: int) -> None:
        """Return what keep() reserved."""
        self._left_to_keep += size_bytes


class KeptCopy:
    """A sealed copy that outlives its hook: for a shadow plugin that has not read it, for a crash record."""

    __slots__ = ("_budget", "_size", "fd")

    def __init__(self, budget: CopyBudget, fd: int, size_bytes: int) -> None:
        budget.keep(size_bytes)
        self._budget = budget
        self._size = size_bytes
        try:
            self.fd = os.dup(fd)
        except OSError:
            budget.let_go(size_bytes)
            raise

    def close(self) -> None:
        """It is not needed any more. Idempotent; on the loop, as all that touches the budget."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
            self._budget.let_go(self._size)


class Source(Protocol):
    """Whose copies are made: a Transaction, seen from here."""

    @property
    def edited_header_size(self) -> int: ...
    @property
    def edited_size(self) -> int: ...

    def read(self) -> Iterable[bytes]: ...
    def new_body(self, *, limit: int) -> Body: ...


class BodySink:
    """Takes a body that replaces the message's; what Body promises, and the copies follow."""

    __slots__ = ("_body", "_copies")

    def __init__(self, copies: MessageCopies, body: Body) -> None:
        self._copies = copies
        self._body = body

    def write(self, piece: bytes) -> None:
        """The next piece. Raises CallFailed: a NUL, or too many octets."""
        self._body.write(piece)

    def finish(self) -> Body:
        """The body is whole: the next plugin reads it. Without this call all stays as it was."""
        self._body.finish()
        self._copies.changed()
        return self._body


class MessageCopies:
    """The copies of one message: the whole, or its header alone for plugins that may not read the body.

    A descriptor stays ours: the receiver gets a duplicate by SCM_RIGHTS. Call close() when the
    hook is over.

    limit  octets that the message may have after a body was replaced (limits.message_size)
    """

    __slots__ = ("_budget", "_fds", "_limit", "_reserved", "_source", "header_size", "size")

    def __init__(self, budget: CopyBudget, source: Source, *, limit: int) -> None:
        self._budget = budget
        self._source = source
        self._limit = limit
        self._fds: dict[str, int] = {}
        self._reserved: dict[str, int] = {}
        """For plugins that are asked; a copy that is only kept has nothing here."""
        self.size = source.edited_size
        """Octets of header and body as they stand."""
        self.header_size = source.edited_header_size
        """Octets of the header, the empty line behind it too."""

    def full_fd(self) -> int:
        """A sealed copy of header and body. Raises Overloaded, OSError."""
        return self._copy("full", self.size)

    def headers_fd(self) -> int:
        """A sealed copy of the header section alone. Raises Overloaded, OSError."""
        return self._copy("headers", self.header_size)

    def keep(self, what: str) -> KeptCopy:
        """A copy as full_fd() ("full") or headers_fd() gives, for longer than this hook, out of the budget
        for those alone. Raises Overloaded, OSError."""
        size = self.size if what == "full" else self.header_size
        self._budget.keep(size)
        try:
            fd = self._made(what, size)
        finally:
            self._budget.let_go(size)  # it was asked first: what cannot be kept is not even made
        return KeptCopy(self._budget, fd, size)

    def body_sink(self, size: int) -> BodySink:
        """Where a plugin's new body goes; `size` octets are announced. Raises CallFailed: more than fit."""
        if size > self._limit:
            raise CallFailed("protocol", f"a new body of {size} octets is bigger than limits.message_size")
        return BodySink(self, self._source.new_body(limit=self._limit))

    def changed(self) -> None:
        """The message has another body: whole copies made from now on have it.

        Copies of the header too, where the body brought the empty line that the header had not.
        """
        self.size = self._source.edited_size
        self._drop("full")
        if self.header_size != self._source.edited_header_size:
            self.header_size = self._source.edited_header_size
            self._drop("headers")

    def _copy(self, kind: str, size: int) -> int:
        if kind not in self._reserved:
            self._budget.take(size)
            self._reserved[kind] = size
        return self._made(kind, size)

    def _made(self, kind: str, size: int) -> int:
        fd = self._fds.get(kind)
        if fd is not None:
            return fd
        fd = os.memfd_create("message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            left = size
            for piece in self._source.read():
                if left <= 0:
                    break
                view = memoryview(piece)[:left]
                left -= len(view)
                while view:
                    view = view[os.write(fd, view) :]
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(fd)
            raise
        self._fds[kind] = fd
        return fd

    def _drop(self, kind: str) -> None:
        fd = self._fds.pop(kind, None)
        if fd is not None:
            os.close(fd)
        self._budget.give_back(self._reserved.pop(kind, 0))

    def close(self) -> None:
        """Close our descriptors and return the budget; idempotent."""
        for kind in ("full", "headers"):
            self._drop(kind)
