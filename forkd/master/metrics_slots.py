"""Which slots (forkd/metrics_slot.py) are there? One for each place that counts, and master's own.

They are made when the place's first process is, stay as long as master lives, and are what makes counters
outlast processes, reloads and pools that shrink.
"""

from __future__ import annotations

import contextlib
import os

from forkd import log, metrics_slot
from forkd.exits import Exit
from forkd.master.child import Child
from forkd.master.errors import StartError
from forkd.metrics_events import Counting
from forkd.metrics_slot import Slot
from forkd.rpc import passing
from forkd.rpc.messages_metrics import SlotMade


class MetricsSlots:
    """From begin() to close() master counts too: what the log says of processes.

    files    of processes that may write, by name; readable: the same, for admin
    """

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.readable: dict[str, int] = {}
        self._reader: Child | None = None
        self._untold: list[str] = []

    def begin(self) -> None:
        """Count for master itself. Raises StartError."""
        try:
            log.observe(Counting(Slot(self.open("master.0"), inherit=False)))
        except OSError as error:
            raise StartError(Exit.SYSTEM, f"no memory for metrics: {error.strerror}") from error

    def open(self, name: str) -> int:
        """The slot of that place, made where there is none. Raises OSError."""
        if (fd := self.files.get(name)) is not None:
            return fd
        fd = self.files[name] = metrics_slot.create(name)
        try:
            # What is opened anew is for reading alone.
            self.readable[name] = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.readable[name] = os.dup(fd)
        self._untold.append(name)
        self._tell()
        return fd

    def ended(self, name: str) -> None:
        """The process of that slot is dead: what it measured is so no more, however it died."""
        if (fd := self.files.get(name)) is not None:
            metrics_slot.end(fd)

    def forked(self, reader: Child) -> None:
        """This is admin from now on; it was given all that there are."""
        self._reader = reader
        self._untold.clear()

    def _tell(self) -> None:
        """Admin, of what it was not given; what it does not take now goes with the next one."""
        channel = None if self._reader is None else self._reader.channel
        while channel is not None and self._untold:
            name = self._untold[0]
            if not passing.try_send(channel, SlotMade(name=name), [self.readable[name]]):
                return
            self._untold.pop(0)

    def close(self) -> None:
        """Nobody counts any more."""
        log.observe()
        for fd in (*self.files.values(), *self.readable.values()):
            with contextlib.suppress(OSError):
                os.close(fd)
