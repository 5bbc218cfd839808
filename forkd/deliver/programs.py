"""How is a message given to a program? Pieces into its pipes, one pipe after the other, until it has ended.

Who starts the program is not known here: a ProgramHost does (no process that reads mail may exec). What
travels are pipes; the program's exit status comes back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

SAID_BYTES = 4096
"""Kept of what a program writes on its descriptor 2, and on 6; the rest is read and dropped, so that it never
waits."""
_READ_BYTES = 65_536


class HostGone(Exception):  # noqa: N818 - a state of the world
    """Who starts programs is not there, or was lost while one ran: what became of that one nobody knows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended."""

    status: int = 0
    """Its exit status; negative: the signal that killed it."""
    late: bool = False
    """It was killed because its time was over."""
    error: str = ""
    """It could not be started: why."""


class Program(Protocol):
    """One program that was started."""

    def fileno(self) -> int:
        """Becomes readable when it has ended, or when its host is gone."""
        ...

    def ending(self) -> Ending:
        """What came of it; blocks until that is known. Raises HostGone."""
        ...

    def close(self) -> None:
        """Done with it: if it still runs, it is killed with its process group."""
        ...


class ProgramHost(Protocol):
    """Starts the programs that the configuration names, and no others."""

    def start(self, transport: str, descriptors: Sequence[int]) -> Program:
        """Start that transport's program with these as its descriptors 0, 1, 2, 6; they stay the caller's.

        Raises HostGone, OSError.
        """
        ...


Took = Literal["all", "part", "nothing"]


@dataclasses.dataclass(frozen=True, slots=True)
class Fed:
    """What came of a program that was fed."""

    ending: Ending
    first: Took
    """What it has read of its descriptor 0 when it ends; an octet in a pipe has not been read."""
    second: Took
    """Of its descriptor 1."""
    said: bytes = b""
    """The first SAID_BYTES of what it wrote on its descriptor 2."""
    text: bytes = b""
    """And on 6."""


def feed(
    host: ProgramHost, transport: str, first: Iterable[bytes], second: Iterable[bytes], *, limit_s: float
) -> Fed:
    """Run that transport's program: `first` on descriptor 0, `second` on 1; what it writes on 2 and 6 comes
    back.

    `second` begins when `first` is written and its pipe closed, as qmail's programs do among themselves; when
    the program closes the pipe too early, or `first` raises, it never begins.

    limit_s  for all of it; the host has a limit of its own for the program, which comes first
    Raises HostGone, OSError, and what `first` and `second` raise: the program is killed then.
    """
    with contextlib.ExitStack() as stack:
        message, envelope, said, text = (_Pipe(stack) for _ in range(4))
        program = host.start(transport, (message.reader, envelope.reader, said.writer, text.writer))
        stack.callback(program.close)
        for end in (message.close_reader, envelope.close_reader, said.close_writer, text.close_writer):
            end()
        run = _Run(program, (said, text), until=time.monotonic() + limit_s)
        if run.write(message, first):
            run.write(envelope, second)
        # Where it was not: end of file before the last octet says that nothing may be queued.
        message.close_writer()
        envelope.close_writer()
        run.wait()
        return Fed(program.ending(), message.took(), envelope.took(), run.heard(said), run.heard(text))


class _Pipe:
    """Both ends, not blocking for us; what is still open is closed by `stack`."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)
        self.written = 0
        self._whole = False
        stack.callback(self.close_reader)
        stack.callback(self.close_writer)

    def close_reader(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1

    def close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def finish(self, *, whole: bool) -> None:
        """No more is written: end of file. A reader of our own will tell what nobody has read; before this it
        would hide from us that the program has closed its own."""
        self._whole = whole
        self.reader = os.open(f"/proc/self/fd/{self.writer}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.close_writer()

    def took(self) -> Took:
        """What was read of it, once nobody reads any more."""
        unread = 0
        with contextlib.suppress(BlockingIOError):
            while self.reader >= 0 and (octets := os.read(self.reader, _READ_BYTES)):
                unread += len(octets)
        if self._whole and not unread:
            return "all"
        return "part" if unread < self.written else "nothing"


class _Run:
    """The one poll that everything waits in."""

    def __init__(self, program: Program, prints: Sequence[_Pipe], *, until: float) -> None:
        self._program = program
        self._prints = {pipe.reader: (pipe, bytearray()) for pipe in prints}
        self._until = until
        self._ended = False
        self._poll = select.poll()
        self._poll.register(program.fileno(), select.POLLIN)
        for reader in self._prints:
            # Only ours: the other end is the program's standard error, which it expects to block.
            os.set_blocking(reader, False)
            self._poll.register(reader, select.POLLIN)

    def write(self, pipe: _Pipe, pieces: Iterable[bytes]) -> bool:
        """All pieces, then end of file; false when nobody reads them (any more)."""
        writer = pipe.writer
        os.set_blocking(writer, False)
        self._poll.register(writer, select.POLLOUT)
        try:
            whole = all(self._put(pipe, memoryview(piece)) for piece in _whole(pieces))
            pipe.finish(whole=whole)
            return whole
        finally:
            self._poll.unregister(writer)

    def _put(self, pipe: _Pipe, rest: memoryview) -> bool:
        while rest:
            if self._turn() or self._ended:
                return False
            try:
                written = os.write(pipe.writer, rest)
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return False
            pipe.written += written
            rest = rest[written:]
        return True

    def wait(self) -> None:
        """Until the program has ended; what it printed is then all there."""
        while not self._ended:
            self._turn()
        for reader in tuple(self._prints):
            self._listen(reader)

    def heard(self, pipe: _Pipe) -> bytes:
        """The beginning of what came through it."""
        return next(bytes(octets) for each, octets in self._prints.values() if each is pipe)

    def _turn(self) -> bool:
        """Wait for whatever is ready; true when the writer that is registered has lost its reader.

        Raises HostGone when it takes too long.
        """
        left_s = self._until - time.monotonic()
        ready = self._poll.poll(max(0.0, left_s) * 1000)
        if not ready:
            raise HostGone("no answer in time")
        lost = False
        for number, events in ready:
            if number == self._program.fileno():
                self._ended = True
            elif number in self._prints:
                self._listen(number)
            elif events & select.POLLERR:
                lost = True
        return lost

    def _listen(self, reader: int) -> None:
        """Read what was printed, once; keep the beginning."""
        pipe, kept = self._prints[reader]
        if pipe.reader < 0:
            return
        try:
            octets = os.read(reader, _READ_BYTES)
        except BlockingIOError:
            return
        kept += octets[: SAID_BYTES - len(kept)]
        if not octets:
            self._poll.unregister(reader)
            pipe.close_reader()


def _whole(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Without empty ones."""
    return (piece for piece in pieces if piece)
