"""How does a line get out without ever blocking? Kept while the reader is slow, then dropped and counted.

The sink writes to a file description of its own, so that no other process' stderr becomes
non-blocking. Where lines are many they may wait for each other: a dozen leave in one write, but for a
datagram socket (the journal's), where each is one of its own.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import select
import socket
import stat
import threading
from collections.abc import Callable

LIMIT_BYTES = 1 << 20
"""Kept per process for a reader that is slow; then lines are dropped and counted."""
HELD_BYTES = 4096
"""PIPE_BUF: of lines that wait for each other. A pipe takes so much whole or not at all (pipe(7))."""

_GONE = (errno.ECONNREFUSED, errno.ENOTCONN)
"""Of a datagram socket: nobody reads at the other end, and then, to nowhere is it connected (unix(7))."""


def _plain_note(dropped: int) -> bytes:
    return b"level=error event=log dropped_lines=%d\n" % dropped


class Sink:
    """A bounded, non-blocking way to `fd`. Usable from several threads. Never raises for a bad reader.

    fd      a pipe, file, terminal or socket; it is duplicated or opened anew, never changed.
    limit   octets kept while the reader takes nothing.
    note    makes the line that says how many were dropped.
    """

    def __init__(
        self, fd: int = 2, *, limit: int = LIMIT_BYTES, note: Callable[[int], bytes] = _plain_note
    ) -> None:
        self._note = note
        self._limit = limit
        self._waiting: collections.deque[bytes] = collections.deque()
        self._waiting_bytes = 0
        self.dropped = 0
        """Lines, of which the reader has not been told yet."""
        self.lost = 0
        """All of them."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._soon: Callable[[], object] | None = None
        self._soon_called = False
        self._holder = 0
        """The thread whose loop `soon` belongs to."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._peer: str | bytes | None = None
        """Of a datagram socket: where it is connected to."""
        self._poll_first = False
        self._fd = -1
        self._open(fd)

    def _open(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            # A file never makes a writer wait for a reader, and whoever else writes through this
            # description (a shell's `2>file`) shares its offset: opened anew, one would overwrite the other.
            self._fd = os.dup(fd)
            return
        if stat.S_ISSOCK(mode):
            # The journal's. A socket cannot be opened anew, but one send can be told not to wait.
            self._socket = socket.socket(fileno=os.dup(fd))
            if self._socket.type == socket.SOCK_DGRAM:
                self._peer = self._socket.getpeername()
            self._fd = self._socket.fileno()
            return
        try:
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
            self._fd = os.open(f"/proc/self/fd/{fd}", flags)
        except OSError:
            # No /proc, or a terminal of another user: then ask before each write. A pipe that polls
            # writable takes PIPE_BUF octets without waiting.
            self._fd = os.dup(fd)
            self._poll_first = True

    @property
    def descriptor(self) -> int:
        """Our own descriptor: whoever closes descriptors after a fork keeps this one."""
        return self._fd

    def hold(self, soon: Callable[[], object]) -> None:
        """From now on lines of this thread that are not wanted at once wait for each other.

        soon  called when one begins to wait: flush() is to be called a moment later. Who kills the process
              in this moment takes the lines with it.
        """
        self._soon = soon
        self._holder = threading.get_ident()

    def write(self, line: bytes, *, at_once: bool = True) -> None:
        """Write `line` (ends in a newline) now, or keep it, or drop and count it.

        at_once  false: it may wait for others, where hold() was called
        """
        with self._lock:
            alone = at_once or self._peer is not None
            if alone or self._soon is None or threading.get_ident() != self._holder:
                self._let_go()
                self._write(line, 1)
                return
            if self._held_bytes + len(line) > HELD_BYTES:
                self._let_go()
            self._held.append(line)
            self._held_bytes += len(line)
            if not self._soon_called:
                self._soon_called = True
                self._soon()

    def _let_go(self) -> None:
        if self._held:
            block, lines = b"".join(self._held), len(self._held)
            self._held.clear()
            self._held_bytes = 0
            self._write(block, lines)

    def _write(self, block: bytes, lines: int) -> None:
        if self._waiting or self.dropped:
            self._drain()
        if not self._waiting and not self.dropped:
            block = block[self._put(block) :]
            if not block:
                return
        if self._waiting_bytes + len(block) > self._limit:
            self.dropped += lines
            self.lost += lines
            return
        self._waiting.append(block)
        self._waiting_bytes += len(block)

    def flush(self) -> bool:
        """Write what waits, as far as it goes without blocking; true when nothing is left."""
        with self._lock:
            self._soon_called = False
            self._let_go()
            self._drain()
            return not self._waiting and not self.dropped

    def forget(self) -> None:
        """Drop what waits: after a fork it is the parent's to write."""
        self._lock = threading.Lock()
        self._soon = None
        self._held.clear()
        self._held_bytes = 0
        self._waiting.clear()
        self._waiting_bytes = 0
        self.dropped = self.lost = 0

    def close(self) -> None:
        """Flush once and close."""
        self.flush()
        if self._socket is not None:
            self._socket.close()
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _drain(self) -> None:
        while self._waiting:
            line = self._waiting[0]
            written = self._put(line)
            self._waiting_bytes -= written
            if written < len(line):
                self._waiting[0] = line[written:]
                return
            self._waiting.popleft()
        if self.dropped:
            note = self._note(self.dropped)
            if self._put(note) == len(note):
                self.dropped = 0

    def _put(self, line: bytes) -> int:
        """Octets the kernel took, now. A reader that is gone takes everything: there is nobody to tell."""
        try:
            if self._socket is not None:
                return self._send(self._socket, line)
            if self._poll_first:
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                if not poll.poll(0):
                    return 0
            return os.write(self._fd, line)
        except BlockingIOError:
            return 0
        except OSError:
            return len(line)

    def _send(self, way: socket.socket, line: bytes) -> int:
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        try:
            return way.send(line, flags)
        except OSError as error:
            if self._peer is None or error.errno not in _GONE:
                raise
        # A journal that is started anew has its old name. All our processes have this one socket: whoever may
        # connect it does it for all, and until then lines are kept.
        with contextlib.suppress(OSError):
            way.connect(self._peer)
            return way.send(line, flags)
        return 0
