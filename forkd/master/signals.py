"""How does a signal reach the loop? As one byte: a handler is no place for work (signal-safety(7))."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler must exist, so that the byte is written; the loop does the rest."""


class Signals:
    """From open() to close(), each signal of HANDLED is a byte to be had by take()."""

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, _nothing) for number in HANDLED}

    def take(self) -> list[signal.Signals]:
        """Which signals came since the last call, each once, in the order of their numbers' first byte."""
        try:
            seen = os.read(self.descriptor, 4096)
        except BlockingIOError:
            return []
        return [signal.Signals(number) for number in dict.fromkeys(seen) if number in HANDLED]

    def close(self) -> None:
        """Give the signals back to who had them."""
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        os.close(self.descriptor)
        os.close(self._write)


@contextmanager
def held_back() -> Iterator[None]:
    """No signal is delivered inside: between fork and release() a child would write to its parent's pipe."""
    old = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def release() -> None:
    """In a forked child: forget the parent's handlers, then let signals in again.

    A terminal sends INT, QUIT and HUP to the whole process group, but only master decides about a stop,
    so children ignore them. TERM ends a child at once unless its role says otherwise.
    """
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
