"""Who tells admin what happened, and how much has each told? A row of `writer` (trace_file.py) for each.

Who it is the kernel says: its pid. Name and time of start are what it says of itself: by them processes are
told apart that had one pid after the other. A process that was taken over gets no rows by making up more.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from typing import Final

from forkd.rpc.messages_trace import Traces

SAME_S: Final = 10.0
"""A pid does not come again sooner: whoever calls itself another by then is who it was."""
SILENT_S: Final = 60.0
"""Then it is not kept in memory any more: it tells every 2 s (rpc/tracing.py), or was killed."""


@dataclasses.dataclass(slots=True)
class Writer:
    """A row, as it is now.

    told  events that it has told of
    seen  when, at last
    made  since when we know it
    gap   row of what was lost of it at last, begun at `gap_at`
    """

    n: int
    claim: tuple[float, str]
    told: int
    seen: float
    made: float
    ended: bool = False
    changed: bool = True
    gap: int = 0
    gap_at: float = 0.0


class Writers:
    """Those that tell now, by pid."""

    def __init__(self) -> None:
        self._of: dict[int, Writer] = {}

    def __len__(self) -> int:
        return len(self._of)

    def take(self, database: sqlite3.Connection, pid: int, traces: Traces, now: float) -> tuple[Writer, int]:
        """(who sent that record, events that are missing before it); within a transaction."""
        writer = self._who(database, pid, traces, now)
        if traces.before > writer.told:
            # At a reload two admins read for a moment, each some of the records.
            row = database.execute("SELECT told FROM writer WHERE n = ?", (writer.n,)).fetchone()
            writer.told = max(writer.told, *(row or (0,)))
        lost = max(0, traces.before - writer.told) + traces.dropped
        writer.told = max(writer.told, traces.before + traces.count)
        writer.ended, writer.changed = traces.ended, True
        return writer, lost

    def _who(self, database: sqlite3.Connection, pid: int, traces: Traces, now: float) -> Writer:
        claim = (traces.since, traces.writer)
        writer = self._of.get(pid)
        if writer is not None and (writer.claim == claim or abs(now - writer.made) < SAME_S):
            return writer
        if writer is not None:
            self._save(database, writer)
        sql = "SELECT n, told, seen FROM writer WHERE pid = ? AND since = ? AND name = ?"
        found = database.execute(sql, (pid, *claim)).fetchone()
        if found is None:
            sql = "INSERT INTO writer (pid, since, name, told, seen, ended) VALUES (?, ?, ?, 0, ?, 0)"
            # What it told before we knew it may have been lost from its beginning on.
            found = (database.execute(sql, (pid, *claim, now)).lastrowid, 0, min(traces.since, now))
        n, told, seen = found
        writer = self._of[pid] = Writer(n, claim, told, seen, now)
        return writer

    def save(self, database: sqlite3.Connection, now: float) -> None:
        """Write what has changed; forget who is gone."""
        for pid, writer in tuple(self._of.items()):
            if writer.changed:
                self._save(database, writer)
            if abs(now - writer.seen) > SILENT_S or (writer.ended and abs(now - writer.made) > SAME_S):
                del self._of[pid]

    def clear(self) -> None:
        """The file is another one."""
        self._of.clear()

    @staticmethod
    def _save(database: sqlite3.Connection, writer: Writer) -> None:
        sql = "UPDATE writer SET told = max(told, ?), seen = max(seen, ?), ended = ? WHERE n = ?"
        database.execute(sql, (writer.told, writer.seen, writer.ended, writer.n))
        writer.changed = False
