"""Which slots (forkd/metrics_slot.py) are there? One for each place that counts, and master's own.

They are made when the place's first process is, stay as long as master lives, and are what makes counters
outlast processes, reloads and pools that shrink. Where [metrics] listen is empty there is master's
alone: it counts little, and before it knows whether a reload will want that.
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
    """From begin() to close() master counts too: what the log says of processes. A supervisor's Task: what an
    admin did not take at once it is told with a later turn.

    files    of processes that may write, by name; readable: the same, for admin
    """

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.readable: dict[str, int] = {}
        self._untold: list[tuple[Child, list[str]]] = []
        """Of each admin, slots that it was not given: in a reload there are two, and either one may stay."""
        self.due: float | None = None

    def begin(self) -> None:
        """Count for master itself. Raises StartError."""
        try:
            log.observe(Counting(Slot(self.open("master.0"), inherit=False)))
        except OSError as error:
            raise StartError(
                Exit.SYSTEM, f"metrics need a memory file, and /proc to open it: {error}"
            ) from error

    def open(self, name: str) -> int:
        """The slot of that place, made where there is none. Raises OSError."""
        if (fd := self.files.get(name)) is not None:
            return fd
        fd = metrics_slot.create(name)
        try:
            # What is opened anew is for reading alone.
            self.readable[name] = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.close(fd)
            raise
        self.files[name] = fd
        for _, untold in self._untold:
            untold.append(name)
        self._tell()
        return fd

    def ended(self, name: str) -> None:
        """The process of that slot is dead: what it measured is so no more, however it died."""
        if (fd := self.files.get(name)) is not None:
            metrics_slot.end(fd)

    def forked(self, reader: Child) -> None:
        """This is an admin; it was given all that there are."""
        self._untold.append((reader, []))

    def look(self, _now: float) -> None:
        """Tell what is not told yet."""
        self._tell()

    def _tell(self) -> None:
        self._untold = [(reader, untold) for reader, untold in self._untold if reader.channel is not None]
        for reader, untold in self._untold:
            while untold and reader.channel is not None:
                name = untold[0]
                if not passing.try_send(reader.channel, SlotMade(name=name), [self.readable[name]]):
                    break
                untold.pop(0)

    def close(self) -> None:
        """Nobody counts any more."""
        log.observe()
        for fd in (*self.files.values(), *self.readable.values()):
            with contextlib.suppress(OSError):
                os.close(fd)
