"""Which spool files come round again? An emptied file is used for the next message instead of a new one.

Why: ext4 does not give out an inode again for some minutes after its deletion, and looks for another one
past all of these. A queue makes and deletes a file for every message, so each creation soon costs more
than the rest of the commit: measured 330 to 480 µs of CPU per message, against 130 with files that
come round.

Why it is safe: qmgr empties a delivered file and renames it from new/SLOT to free/SLOT; the worker fills
it there, syncs it, and renames it to new/SLOT. After a power cut the delivered message's name in new/ may be
back, as long as new/SLOT was not synced; so the worker takes a name from free/ only when it has itself
synced new/SLOT after it saw the name there (every commit ends in such a sync). A name in free/ may be back
although its file is a committed message by now; so recovery unlinks all names in free/ before workers
start, and writes to none. A file is taken by opening it where it lies, so only one process may take those
of a slot: whoever holds the flock of new/SLOT. A worker that has outlived its master may live beside the
next one; the later of the two then makes its files anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from forkd.fs import Fs
from forkd.queue.ids import ID, QueueId

FREE = "free"

KEPT = 512
"""Files per slot: what a worker takes between two looks at full speed, twice over."""

LOOK_S = 0.05
"""Between two looks into free/, either side."""


class Pool:
    """The worker's side: names to be taken. take() from any thread, synced() from the committing one.

    mine  says, and makes sure, that no other process takes files of this slot
    """

    __slots__ = ("_folder", "_fs", "_looked_at", "_mine", "_safe", "_seen")

    def __init__(self, root: str, slot: str, fs: Fs, *, mine: Callable[[], bool]) -> None:
        self._mine = mine
        self._folder = f"{root}/{FREE}/{slot}"
        self._fs = fs
        self._safe: list[str] = []
        self._seen: list[str] = []
        self._looked_at = 0.0

    def take(self) -> tuple[int, str]:
        """An emptied file: its descriptor and its name; -1 when there is none. Raises OSError.

        It keeps its name in free/ until the commit renames it to new/, one rename less for each message.
        A qmgr that is restarted meanwhile takes that name away: the commit then begins anew.
        """
        while True:
            try:
                path = f"{self._folder}/{self._safe.pop()}"
            except IndexError:
                return -1, ""
            # FileNotFoundError: qmgr was restarted and has swept.
            with contextlib.suppress(FileNotFoundError):
                return self._fs.reuse(path), path

    def synced(self) -> None:
        """new/SLOT was just synced: what was seen before is safe now; look for more."""
        if self._seen:
            self._safe += self._seen
            self._seen = []
        now = time.monotonic()
        if not self._safe and now - self._looked_at >= LOOK_S:
            self._looked_at = now
            if not self._mine():
                return
            # Whatever is wrong there: files are made anew then, and the commit that asks has succeeded.
            with contextlib.suppress(OSError):
                self._seen = [name for name in self._fs.names(self._folder) if ID.fullmatch(name)]


class Bin:
    """qmgr's side: where finished files go. Usable from several threads (the count may be a little off)."""

    __slots__ = ("_counted_at", "_fs", "_room", "_root")

    def __init__(self, root: str, fs: Fs) -> None:
        self._root = root
        self._fs = fs
        self._room: dict[str, int] = {}
        self._counted_at: dict[str, float] = {}

    def put(self, slot: str, queue_id: QueueId, path: str) -> bool:
        """Empty the file at `path` and keep it for its slot; false: the caller is to unlink it.

        Emptied before it gets its name in free/, so that nobody can have taken it by then, and no
        delivered mail lies about.
        """
        room = self._room.get(slot, 0)
        if room <= 0:
            room = self._count(slot)
            if room <= 0:
                return False
        self._room[slot] = room - 1
        try:
            self._fs.empty(path)
            self._fs.rename(path, f"{self._root}/{FREE}/{slot}/{queue_id}")
        except OSError:
            return False  # not writable for us, no such folder: then as if there were no bin
        return True

    def _count(self, slot: str) -> int:
        now = time.monotonic()
        if now - self._counted_at.get(slot, -1.0) < LOOK_S:
            return 0
        self._counted_at[slot] = now
        try:
            room = KEPT - sum(1 for _ in self._fs.names(f"{self._root}/{FREE}/{slot}"))
        except OSError:
            return 0
        self._room[slot] = room
        return room
