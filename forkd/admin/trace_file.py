"""How is kept what happened to sessions and messages, in a file of SQLite? All of it runs on one thread.

    writer  a process that tells: how much it has told, when it was last heard of
    piece   what one record had of one session (or of a message without one): its events as they came
    link    a queue id and the session that the message came in by
    gap     events that are known to be missing
    kept    how many sessions have a piece here, counted with them

A record is committed with its writer's count, so whatever is lost between a process and the disk shows as a
gap: what the process dropped, what admin had read and not committed when it was killed. Commits are not
synced (WAL, synchronous = NORMAL): a power cut takes the last seconds, and the file stays whole. No mail
depends on what is in it: it may be removed while no forkd runs.

Writers are in trace_writers.py, what goes again and when in trace_pruning.py, what an answer has in
trace_reading.py.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from forkd.admin import trace_pruning
from forkd.admin.trace_pruning import STEP
from forkd.admin.trace_reading import Reading
from forkd.admin.trace_writers import Writer, Writers
from forkd.rpc.messages_trace import Story, Traces

SCHEMA: Final = 1
BACK_S: Final = 60.0
"""By so much the clock was set back, and did not just run a little fast."""
MOST: Final = 1 << 53
"""Events in a gap: a number that JSON's readers know exactly."""
GAP_S: Final = 1.0
"""What one process lost within it is one gap."""

TABLES = """
CREATE TABLE IF NOT EXISTS writer (
    n INTEGER PRIMARY KEY, name TEXT NOT NULL, pid INTEGER NOT NULL, since REAL NOT NULL,
    told INTEGER NOT NULL, seen REAL NOT NULL, ended INTEGER NOT NULL, UNIQUE (pid, since, name)
);
CREATE TABLE IF NOT EXISTS piece (
    n INTEGER PRIMARY KEY, at REAL NOT NULL, key TEXT NOT NULL, writer INTEGER NOT NULL,
    begins INTEGER NOT NULL, events BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS piece_key ON piece (key);
CREATE TABLE IF NOT EXISTS link (
    n INTEGER PRIMARY KEY, at REAL NOT NULL, id TEXT NOT NULL, session TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS link_id ON link (id);
CREATE TABLE IF NOT EXISTS gap (
    n INTEGER PRIMARY KEY, at REAL NOT NULL, after REAL NOT NULL, writer INTEGER NOT NULL,
    events INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS kept (sessions INTEGER NOT NULL);
"""


class Unusable(Exception):  # noqa: N818 - a state of the world
    """The file is damaged, or another forkd's: it is to be put aside."""


class TraceFile:
    """The database. Raises sqlite3.Error wherever the file fails: drop() it then."""

    def __init__(self, path: Path, *, keep_s: float, sessions: int, max_bytes: int) -> None:
        self._path = path
        self._keep_s = keep_s
        self._most = sessions
        self._max_bytes = max_bytes
        self._database: sqlite3.Connection | None = None
        self._begun = False
        self._failed = False
        """It did so when it was open last: it may be damaged."""
        self._writers = Writers()
        self._clock = 0.0
        """Admin's, when it was looked at last."""
        self.sessions = 0
        """How many are kept."""
        self._counted = 0
        """How many of them `kept` has."""
        self.lost = 0
        """Events that did not reach the file since it was opened."""
        self.fresh = 0
        """Rows that came since prune() was called last."""

    @property
    def opened(self) -> bool:
        """It can be used, as far as is known."""
        return self._database is not None

    @property
    def telling(self) -> int:
        """Processes that have told something lately."""
        return len(self._writers)

    @property
    def dirty(self) -> bool:
        """There is something to commit."""
        return self._begun

    def open(self) -> None:
        """Open it, make it where there is none. Raises sqlite3.Error, Unusable.

        Meanwhile nobody reads what is told, and the file may be large: it is looked through for damage where
        there may be some, not at each start.
        """
        doubt = self._failed or self._left_by_a_crash()
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            # Before the first table, else it needs a VACUUM.
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise Unusable(f"its format is {version}, and this forkd writes {SCHEMA}")
            database.executescript(TABLES)
            database.execute(f"PRAGMA user_version = {SCHEMA}")
            problem = database.execute("PRAGMA quick_check(1)").fetchone()[0] if doubt else "ok"
            if problem != "ok":
                raise Unusable(f"damaged: {problem}")
            kept = database.execute("SELECT sessions FROM kept").fetchone()
            if kept is None:
                kept = database.execute("SELECT COALESCE(SUM(begins), 0) FROM piece").fetchone()
                database.execute("INSERT INTO kept VALUES (?)", kept)
            self.sessions = self._counted = kept[0]
            last = database.execute("SELECT at FROM piece ORDER BY n DESC LIMIT 1").fetchone()
            self._clock = last[0] if last else 0.0
        except sqlite3.DatabaseError as error:
            database.close()
            if isinstance(error, sqlite3.OperationalError):
                raise  # no space, no permission, locked: it may be well tomorrow
            raise Unusable(f"damaged: {error}") from error
        except BaseException:
            database.close()
            raise
        self._database = database
        self._begun = self._failed = False
        self._writers.clear()

    def _left_by_a_crash(self) -> bool:
        """The machine went down while it was open: the WAL is there, from before the boot.

        A kill of admin alone harms nothing: the kernel has what was written.
        """
        booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            return self._beside("-wal").stat().st_mtime < booted_at
        except FileNotFoundError:
            return False

    def _beside(self, end: str) -> Path:
        return self._path.with_name(self._path.name + end)

    def open_to_read(self) -> None:
        """Open it for find() alone, where no admin has it open. Raises sqlite3.Error, Unusable."""
        database = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA:
                raise Unusable(f"its format is {version}, and this forkd reads {SCHEMA}")
        except BaseException:
            database.close()
            raise
        self._database = database

    def put_aside(self) -> Path:
        """Rename a file that cannot be used, over the one that was put aside before; its new name."""
        aside = self._path.with_suffix(".bad")
        for end in ("-wal", "-shm"):
            self._beside(end).unlink(missing_ok=True)
        self._path.replace(aside)
        return aside

    def drop(self, *, failed: bool = False) -> None:
        """Let go of the file; what was not committed is lost, and shows as a gap."""
        database, self._database = self._database, None
        self._begun, self._failed = False, failed
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()

    def close(self) -> None:
        """Commit and close."""
        with contextlib.suppress(sqlite3.Error):
            self.commit()
        self.drop()

    # --- writing --------------------------------------------------------------------------------------

    def add(self, pid: int, traces: Traces, now: float) -> None:
        """A record of the process with that pid, within a transaction that commit() ends."""
        database = self._begin()
        self._see(now)
        writer, lost = self._writers.take(database, pid, traces, now)
        if lost:
            self.lost += lost
            self._add_gap(database, writer, lost, now)
        writer.seen = now
        for story in traces.stories:
            self._add_story(database, writer.n, story, now)

    def _add_gap(self, database: sqlite3.Connection, writer: Writer, lost: int, now: float) -> None:
        """One row in a while: who says with each record that it dropped something makes no more of them."""
        if now - GAP_S < writer.gap_at <= now:
            # Beyond the bound it is a tale.
            sql = f"UPDATE gap SET at = ?, events = min(events + ?, {MOST}) WHERE n = ?"  # noqa: S608 - a number
            if database.execute(sql, (now, lost, writer.gap)).rowcount:
                return
        sql = "INSERT INTO gap (at, after, writer, events) VALUES (?, ?, ?, ?)"
        writer.gap = database.execute(sql, (now, writer.seen, writer.n, min(lost, MOST))).lastrowid or 0
        writer.gap_at = now
        self.fresh += 1

    def _add_story(self, database: sqlite3.Connection, writer: int, story: Story, now: float) -> None:
        """Its age is counted from now on; what time its events claim is for who reads them."""
        database.execute(
            "INSERT INTO piece (at, key, writer, begins, events) VALUES (?, ?, ?, ?, ?)",
            (now, story.key, writer, story.begins, bytes(story.events)),
        )
        self.sessions += story.begins
        rows = [(now, id_, story.key) for id_ in story.ids]
        database.executemany("INSERT INTO link (at, id, session) VALUES (?, ?, ?)", rows)
        self.fresh += 1 + len(rows)

    def commit(self) -> None:
        """What add() and prune() did, together."""
        if not self._begun or self._database is None:
            return
        self._writers.save(self._database, self._clock)
        if self.sessions != self._counted:
            # By the difference: at a reload there are two who count.
            change = self.sessions - self._counted
            self._database.execute("UPDATE kept SET sessions = max(0, sessions + ?)", (change,))
            self.sessions = self._counted = self._database.execute("SELECT sessions FROM kept").fetchone()[0]
        self._begun = False
        self._database.execute("COMMIT")

    def prune(self, now: float) -> bool:
        """Remove a step of what is too old or too much; true where there is more of it.

        A step is twice what came since the last one, at least: who tells without end does not outrun it.
        """
        database = self._begin()
        self._see(now)
        step, self.fresh = max(STEP, 2 * self.fresh), 0
        oldest = now - self._keep_s
        gone, more = trace_pruning.by_age(database, oldest, self.sessions - self._most, step)
        self.sessions -= gone
        gone, still = trace_pruning.by_size(database, self._max_bytes, step)
        self.sessions -= gone
        database.execute("DELETE FROM writer WHERE seen < ?", (oldest - 60,))
        trace_pruning.vacuum(database)
        return more or still

    def _see(self, now: float) -> None:
        """The clock may have been set: what came before cannot be of later."""
        if now < self._clock - BACK_S:
            trace_pruning.clock_went_back(self._begin(), now)
        self._clock = now

    # --- reading --------------------------------------------------------------------------------------

    def find(self, id_: str, *, since: float, now: float) -> dict[str, Any]:
        """What is known of a session or a message: its events in order, and what may be missing of them.

        since  Unix time from which something may have happened to it; gaps after it are told
        """
        database = self._database
        assert database is not None
        sql = "SELECT DISTINCT session FROM link WHERE id = ? LIMIT 100"
        sessions = [session for (session,) in database.execute(sql, (id_,))]
        reading = Reading(database)
        for key in (id_, *sessions):
            reading.read(key)
        for key in reading.ids - {id_} if not sessions else ():
            reading.read(key)  # what was done to the session's messages by hand
        if reading.events:
            since = min(since, reading.events[0]["at"]) if since else reading.events[0]["at"]
        gaps = database.execute(
            "SELECT gap.after, gap.at, writer.name, writer.pid, gap.events FROM gap "
            "JOIN writer ON writer.n = gap.writer WHERE gap.at >= ? ORDER BY gap.n LIMIT 100",
            (since,),
        )
        first = database.execute("SELECT at FROM piece ORDER BY n LIMIT 1").fetchone()
        return {
            "id": id_,
            "sessions": sessions or ([id_] if reading.begins else []),
            "events": sorted(reading.events, key=lambda event: event["at"]),
            "more": reading.more,
            "writers": self._tellers(database, reading.writers),
            "gaps": [
                {"after": after, "before": at, "writer": name, "pid": pid, "events": events}
                for after, at, name, pid, events in gaps
            ],
            "oldest": first[0] if first else now,
            "now": now,
        }

    @staticmethod
    def _tellers(database: sqlite3.Connection, writers: set[int]) -> list[dict[str, Any]]:
        marks = ",".join("?" * len(writers))
        rows = database.execute(
            f"SELECT n, name, pid, since, seen, ended FROM writer WHERE n IN ({marks})",  # noqa: S608 - marks
            tuple(writers),
        )
        names = ("n", "name", "pid", "since", "seen", "ended")
        return [dict(zip(names, row, strict=True)) | {"ended": bool(row[-1])} for row in rows]

    def _begin(self) -> sqlite3.Connection:
        database = self._database
        assert database is not None
        if not self._begun:
            database.execute("BEGIN IMMEDIATE")
            self._begun = True
        return database
