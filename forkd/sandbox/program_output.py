"""What has a program written, and is it what it read? Its output, bounded, as far as it must be kept.

Most filters pass most messages as they are. So what they write is compared with what they read, and kept from
the first octet on that differs: a message that comes out as it went in costs no memory, and is no edit. What
is kept is counted, by whom the worker's copies of messages are.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import termios
from typing import TYPE_CHECKING, Final, Protocol

from forkd.rpc.calls import CallFailed, Overloaded

if TYPE_CHECKING:
    from forkd.sandbox.host import Host
    from forkd.sandbox.program_runs import Run

READ_BYTES: Final = 65_536
"""What a pipe holds, where neither the machine's pages nor its writer have made it larger."""


class Room(Protocol):
    """Octets that may lie in memory together (forkd.worker.copies.CopyBudget)."""

    def take(self, size_bytes: int, /) -> None:
        """Raises Overloaded."""
        ...

    def give_back(self, size_bytes: int, /) -> None: ...


class Output:
    """A program's standard output, taken as it comes.

    source  the message it reads, a sealed file: its octets are looked at, its offset is not used.
    limit   octets that it may write.
    room    where those that are kept are counted; None: nowhere.
    """

    __slots__ = ("_fd", "_kept", "_limit", "_room", "_same", "_source", "_source_size", "size")

    def __init__(self, source: int, *, source_size: int, limit: int, room: Room | None = None) -> None:
        self._source = source
        self._source_size = source_size
        self._limit = limit
        self._room = room
        self._kept = 0
        """Octets that `room` was asked for."""
        self._fd = -1
        """A memory file with what stands behind the octets that are the same; -1: nothing does."""
        self._same = 0
        self.size = 0
        """Octets so far."""

    @property
    def unchanged(self) -> bool:
        """All of it is what it read, and nothing is missing."""
        return self._fd < 0 and self.size == self._source_size

    def read(self, pipe: int) -> bool:
        """Take of what is in the pipe now, READ_BYTES at most; False: it is at its end.

        Raises CallFailed past the limit, Overloaded where there is no room.
        """
        try:
            piece = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return True
        if not piece:
            return False
        self._take(piece)
        return True

    def drain(self, pipe: int) -> None:
        """Take all that is in the pipe now: who wrote it has ended. Raises as read().

        The pipe may still be open: what is written from now on is nobody's, and not waited for.
        """
        left = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
        while left > 0:
            piece = os.read(pipe, min(left, READ_BYTES))
            self._take(piece)
            left -= len(piece)

    def _take(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._limit:
            raise CallFailed("protocol", f"it writes more than {self._limit} octets")
        if self._fd < 0 and os.pread(self._source, len(piece), self._same) == piece:
            self._same += len(piece)
            return
        if self._room is not None:
            self._room.take(len(piece))
            self._kept += len(piece)
        try:
            if self._fd < 0:
                self._fd = os.memfd_create("output", os.MFD_CLOEXEC)
            view = memoryview(piece)
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise Overloaded(f"no room for its output: {error.strerror}") from error

    def piece(self, offset: int, most: int) -> bytes:
        """Octets from `offset` on, `most` of them at most; of a whole output."""
        if offset < self._same:
            return os.pread(self._source, min(most, self._same - offset), offset)
        return os.pread(self._fd, most, offset - self._same) if self._fd >= 0 else b""

    def close(self) -> None:
        """Forget it. The source stays open. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._room is not None:
            self._room.give_back(self._kept)
            self._kept = 0


class Taker:
    """Takes a program's output from its pipe into `made`; past its limit the program is killed.

    failure  why it was.
    """

    def __init__(self, host: Host, made: Output, pipe: int, run: Run) -> None:
        self.failure: CallFailed | Overloaded | None = None
        self._host = host
        self._made = made
        self._pipe = pipe
        self._run = run
        host.readers[pipe] = self
        host.epoll.register(pipe, select.EPOLLIN)

    def ready(self, _events: int) -> None:
        """There is something in the pipe, or it is at its end."""
        try:
            if self._made.read(self._pipe):
                return
        except (CallFailed, Overloaded) as why:
            self.failure = why
            self._run.let_go()
        self.close()

    def close(self) -> None:
        """Look at the pipe no more; to be called before its descriptor is closed. Idempotent."""
        # What has its number the next time may be another session's.
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            self._host.forget(pipe)
