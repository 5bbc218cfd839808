"""What do plugins read of a message? A sealed memory file, made once per message and only on demand.

Whoever has it shares its offset with all others. So nobody reads from where it stands: forkd.sdk reads by
position alone (pread), and for a program, which does, it is opened anew (sandbox/program_plugin.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from forkd.message.edits import LineEnd, field, stream
from forkd.rpc.calls import CallFailed, HeaderEdit, Overloaded
from forkd.sealed import sealed
from forkd.worker.bodies import Body
from forkd.worker.edits import kept

_KINDS = ("full", "headers", "program")

_IN_FRONT = len("Mailbox-Line: ")
"""What a text may get that has no header, or an mbox separator before it (forkd.message.edits)."""

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
    def new_message(self, *, limit: int) -> Body: ...


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
    """The copies of one message: the whole, or its header alone for plugins that may not read the body; for
    programs the whole after the edits of its header.

    A descriptor stays ours: the receiver gets a duplicate by SCM_RIGHTS. Call close() when the
    hook is over.

    limit  octets that the message may have after a body was replaced (limits.edited_size)
    """

    __slots__ = ("_budget", "_edits", "_fds", "_limit", "_reserved", "_source", "header_size", "size")

    def __init__(self, budget: CopyBudget, source: Source, *, limit: int) -> None:
        self._budget = budget
        self._source = source
        self._limit = limit
        self._fds: dict[str, int] = {}
        self._reserved: dict[str, int] = {}
        """For plugins that are asked; a copy that is only kept has nothing here."""
        self._edits: tuple[HeaderEdit, ...] = ()
        """Those that the copy for programs has in it."""
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

    def program_fd(self, edits: Sequence[HeaderEdit]) -> int:
        """A sealed copy of the message as programs read it: lines end in LF. Raises Overloaded, OSError.

        edits  of its header, by plugins before, folded: they are made in it.
        """
        self._edit(edits)
        return self._copy("program", self._size_of("program"))

    def keep(self, what: str, edits: Sequence[HeaderEdit] = ()) -> KeptCopy:
        """A copy as full_fd(), headers_fd() or program_fd() gives ("full", "headers", "program"), for longer
        than this hook, out of the budget for those alone. Raises Overloaded, OSError."""
        if what == "program":
            self._edit(edits)
        size = self._size_of(what)
        self._budget.keep(size)
        try:
            fd = self._made(what, size)
        finally:
            self._budget.let_go(size)  # it was asked first: what cannot be kept is not even made
        return KeptCopy(self._budget, fd, size)

    def body_sink(self, size: int) -> BodySink:
        """Where a plugin's new body goes; `size` octets are announced. Raises CallFailed: more than fit."""
        if size > self._limit:
            raise CallFailed(
                "protocol", f"a new body of {size} octets is more than limits.message_size allows"
            )
        return BodySink(self, self._source.new_body(limit=self._limit))

    def message_sink(self, size: int) -> BodySink:
        """Likewise for a whole message, header and body."""
        if size > self._limit:
            told = f"a new message of {size} octets is more than limits.message_size allows"
            raise CallFailed("protocol", told)
        return BodySink(self, self._source.new_message(limit=self._limit))

    def changed(self) -> None:
        """The message has another body, or is another one: copies made from now on have it."""
        self.size = self._source.edited_size
        self.header_size = self._source.edited_header_size
        for kind in _KINDS:
            self._drop(kind)

    def _edit(self, edits: Sequence[HeaderEdit]) -> None:
        """The copy for programs is to have these edits in it."""
        if self._edits != tuple(edits):
            self._edits = tuple(edits)
            self._drop("program")

    def _size_of(self, kind: str) -> int:
        """Octets that such a copy has at most."""
        if kind == "headers":
            return self.header_size
        if kind == "full":
            return self.size
        fields = [
            field(edit.name, edit.value) for edit in map(kept, self._edits) if edit.op != "delete_header"
        ]
        return self.size + _IN_FRONT + sum(len(text.encode("utf-8", "replace")) for text in fields)

    def _copy(self, kind: str, size: int) -> int:
        if kind not in self._reserved:
            self._budget.take(size)
            self._reserved[kind] = size
        return self._made(kind, size)

    def _made(self, kind: str, size: int) -> int:
        fd = self._fds.get(kind)
        if fd is not None:
            return fd
        fd = sealed("message", self._pieces(kind, size))
        self._fds[kind] = fd
        return fd

    def _pieces(self, kind: str, size: int) -> Iterator[bytes | memoryview]:
        """What such a copy is made of."""
        if kind == "program":
            edits = [kept(edit) for edit in self._edits]
            yield from stream(self._source.read(), "", edits, line_end=LineEnd.LF)
            return
        left = size
        for piece in self._source.read():
            if left <= 0:
                return
            yield memoryview(piece)[:left]
            left -= len(piece)

    def _drop(self, kind: str) -> None:
        fd = self._fds.pop(kind, None)
        if fd is not None:
            os.close(fd)
        self._budget.give_back(self._reserved.pop(kind, 0))

    def close(self) -> None:
        """Close our descriptors and return the budget; idempotent."""
        for kind in _KINDS:
            self._drop(kind)
