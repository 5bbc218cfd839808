"""Where does a process keep what it has counted, so that its successor goes on with it? In a slot.

A slot is a memory file that master holds for each place of a process (`worker.0`, `qmgr.0`). The process maps
and fills it, admin reads it; when the process dies, however it dies, the numbers stay. A file on a disk would
do it too, but who writes to mapped pages of one waits for the disk with them, at times: a worker's loop must
not. One process fills a slot at a time.

The layout, everything in the machine's own byte order:

    0   8 octets   magic, with the version of this layout
    8   u64        octets of series behind the head that count
    16  f64        CLOCK_MONOTONIC when gauges were told last; 0: never, or their process has ended
    24  f64        what was not counted for want of room
    32  series     u32 size of the whole, u16 octets of the key, u16 how many numbers,
                   key (the family's name and the labels' values, cut by NUL), padded to 8, numbers (f64)

A series is only ever added, before the count of octets says so; numbers change in place. Who reads believes
nothing of it: a process that was taken over may write what it likes here.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from forkd import metrics
from forkd.metrics import FAMILIES, Family, Labels
from forkd.sealed import memory_file

SIZE: Final = 1 << 20
"""Some 8,000 series; what is not written to takes no memory."""
HEAD: Final = 32
MAGIC: Final = b"forkdm\0\1"
MOST_LABEL: Final = 100
"""Characters of a label's value; what is beyond is cut."""
MOST: Final = 1e18
"""A number beyond it is none that was counted; so that sums of them stay numbers."""
STALE_S: Final = 10.0
"""Gauges of who has told none for so long are nobody's."""
_SERIES: Final = struct.Struct("=IHH")
_USED, _BEAT, LOST = 1, 2, 3
"""Places in the head, counted in numbers."""
_NOT_SHRUNK: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


def create(name: str) -> int:
    """A new slot's descriptor; its size is final. Raises OSError."""
    fd = memory_file(f"forkd metrics {name}")
    try:
        os.ftruncate(fd, SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _NOT_SHRUNK)
    except OSError:
        os.close(fd)
        raise
    return fd


def end(fd: int) -> None:
    """The process of that slot is dead: its gauges are nobody's, also where it could not say so itself."""
    os.pwrite(fd, struct.pack("=d", 0.0), 8 * _BEAT)


class Slot:
    """A process' side. Its methods neither wait nor raise; only labels that are not the family's, a bug, do.

    They may be called from any thread, but one number is one thread's to change at a time: taking a lock for
    each costs a fifth of it. What the log tells has Counting's (metrics_events.py).

    fd       of the slot, which stays the caller's; -1: nothing is kept
    inherit  children that are forked get it too; it is of no use to them (master)
    """

    def __init__(self, fd: int, *, inherit: bool = True) -> None:
        self._lock = threading.Lock()
        self._at: dict[tuple[Family, Labels], int] = {}
        self.kept = fd >= 0
        self._map = mmap.mmap(fd, SIZE) if fd >= 0 else mmap.mmap(-1, mmap.PAGESIZE)
        if not inherit:
            self._map.madvise(mmap.MADV_DONTFORK)
        self.numbers = memoryview(self._map).cast("d")
        self._counts = memoryview(self._map).cast("Q")
        if self._map[:8] == MAGIC:
            self._go_on()
        else:
            self._map[:HEAD] = bytes(HEAD)
            self._map[:8] = MAGIC

    def _go_on(self) -> None:
        """What the one before has left: counters stay as they are, gauges begin anew."""
        used = 0
        for family, labels, at, end in _series(self._map):
            self._at[family, labels] = at
            own = range(at, at + family.width)
            # What is no number of a process' that was honest would stay none for ever.
            if family.kind == "gauge" or not all(0 <= self.numbers[each] < MOST for each in own):
                for each in own:
                    self.numbers[each] = 0.0
            used = end
        self._counts[_USED] = used  # what could not be read is written over
        self.numbers[_BEAT] = 0.0

    def add(self, family: Family, *labels: str, by: float = 1.0) -> None:
        """A counter rises, or a gauge changes, by that much."""
        at = self._at.get((family, labels)) or self.place(family, labels)
        self.numbers[at] += by if at != LOST else 1.0

    def set(self, family: Family, value: float, *labels: str) -> None:
        """A gauge is that much."""
        at = self._at.get((family, labels)) or self.place(family, labels)
        if at != LOST:
            self.numbers[at] = value

    def observe(self, family: Family, value: float, *labels: str) -> None:
        """One more in a histogram."""
        at = self._at.get((family, labels)) or self.place(family, labels)
        if at == LOST:
            self.numbers[LOST] += 1
            return
        self.numbers[at + bisect_left(family.buckets, value)] += 1
        self.numbers[at + len(family.buckets) + 1] += value

    def beat(self) -> None:
        """Gauges are as they are now."""
        self.numbers[_BEAT] = time.monotonic()

    def end(self) -> None:
        """The process ends in order: its gauges are nobody's at once."""
        self.numbers[_BEAT] = 0.0

    def place(self, family: Family, labels: Labels = ()) -> int:
        """Where in `numbers` those of a series begin, made where it is new; LOST where there is no room: then
        only add() and observe() know what to do."""
        shown = tuple([_label(value) for value in labels])
        with self._lock:
            at = self._at.get((family, shown)) or self._make(family, shown)
            self._at[family, shown] = at  # also that there is no room
        return at

    def _make(self, family: Family, labels: Labels) -> int:
        assert len(labels) == len(family.labels), f"{family.name} has labels {family.labels}, not {labels}"
        key = "\0".join((family.name, *labels)).encode()
        first = _SERIES.size + len(key) + -len(key) % 8
        size = first + 8 * family.width
        begin = HEAD + self._counts[_USED]
        if begin + size > len(self._map):
            return LOST
        self._map[begin : begin + size] = bytes(size)
        _SERIES.pack_into(self._map, begin, size, len(key), family.width)
        self._map[begin + _SERIES.size : begin + _SERIES.size + len(key)] = key
        self._counts[_USED] += size
        return (begin + first) // 8


def _label(value: str) -> str:
    """As it is read again."""
    return value[:MOST_LABEL].replace("\0", "?").encode("utf-8", "replace").decode()


Read = Iterator[tuple[Family, Labels, tuple[float, ...]]]


def read(fd: int, now: float) -> Read:
    """Family, labels and numbers of each series, as far as they make sense; at `now`, monotonic. Raises
    OSError. What lags behind or is stale, gauges, is left out."""
    octets = os.pread(fd, HEAD, 0)
    if len(octets) < HEAD or octets[:8] != MAGIC:
        return
    used, beat, lost = struct.unpack_from("=Qdd", octets, 8)
    octets = os.pread(fd, min(HEAD + used, SIZE), 0)
    fresh = beat > 0 and now - beat < STALE_S
    if 0 < lost < MOST:
        yield metrics.LOST_SERIES, (), (lost,)
    for family, labels, at, _ in _series(octets):
        if family.kind == "gauge" and not fresh:
            continue
        numbers = struct.unpack_from(f"={family.width}d", octets, 8 * at)
        if all(0 <= number < MOST for number in numbers) and max(map(len, labels), default=0) <= MOST_LABEL:
            yield family, labels, numbers


def _series(octets: bytes | mmap.mmap) -> Iterator[tuple[Family, Labels, int, int]]:
    """Family, labels, where the numbers begin (in numbers), and where the series ends (in octets, behind the
    head), up to the first one that makes no sense."""
    (used,) = struct.unpack_from("=Q", octets, 8)
    begin, end = HEAD, min(HEAD + used, len(octets))
    while begin + _SERIES.size <= end:
        size, key_octets, width = _SERIES.unpack_from(octets, begin)
        first = _SERIES.size + key_octets + -key_octets % 8
        if not width or size != first + 8 * width or begin + size > end:
            return
        key = octets[begin + _SERIES.size : begin + _SERIES.size + key_octets].decode("utf-8", "replace")
        name, *labels = key.split("\0")
        family = FAMILIES.get(name)
        if family is not None and family.width == width and len(family.labels) == len(labels):
            yield family, tuple(labels), (begin + first) // 8, begin + size - HEAD
        begin += size
