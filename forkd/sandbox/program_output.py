"""What has a program written, and is it what it read? Its output, bounded, as far as it must be kept.

Most filters pass most messages as they are. So what they write is compared with what they read, and kept from
the first octet on that differs: a message that comes out as it went in costs no memory, and is no edit.
"""

from __future__ import annotations

import os
from typing import Final

from forkd.rpc.calls import CallFailed

READ_BYTES: Final = 65_536
"""What a pipe holds."""


class Output:
    """A program's standard output, taken as it comes.

    source  the message it reads, a sealed file: its octets are looked at, its offset is not used.
    limit   octets that it may write.
    """

    __slots__ = ("_fd", "_limit", "_same", "_source", "_source_size", "size")

    def __init__(self, source: int, *, source_size: int, limit: int) -> None:
        self._source = source
        self._source_size = source_size
        self._limit = limit
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
        """Take what is in the pipe now, all of it; False: it is at its end.

        Raises CallFailed past the limit, OSError.
        """
        try:
            piece = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return True
        if not piece:
            return False
        self._take(piece)
        return True

    def _take(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self._limit:
            raise CallFailed("protocol", f"it writes more than {self._limit} octets")
        if self._fd < 0:
            if os.pread(self._source, len(piece), self._same) == piece:
                self._same += len(piece)
                return
            self._fd = os.memfd_create("output", os.MFD_CLOEXEC)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._fd, view) :]

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
