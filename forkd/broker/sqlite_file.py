"""How are keys and values kept in a file of SQLite, and what does a request do to it?

All of it runs on one thread (sqlite_store.py). Keys that have expired are not there for anybody; they are
removed in bounded steps, so that no request waits behind a large sweep.

After a reload two brokers may have the file, each for its own sessions. They write in turns: whatever changes
something begins its transaction before it reads, so nothing is counted by an old value; who has committed
leaves the file alone for GAP_S, in which the other one begins. What one has written the other reads once it
is committed, COMMIT_S later.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from forkd.broker.protocol import Add, Delete, Get, Incr, Set, StateRequest
from forkd.broker.state import Result, StateError, StoreUnavailable

COMMIT_S: Final = 0.5
"""With the sync a second at most."""
GAP_S: Final = 0.005
BUSY_S: Final = 5.0
"""How long another broker's transactions are waited for; several of them fit in."""
BUSY_LOOK_S: Final = 0.001
SWEEP_S: Final = 1.0
SWEEP_KEYS: Final = 500
"""Removed in one step: some milliseconds."""
SCHEMA: Final = 1
_INT64: Final = 1 << 63

TABLES = """
CREATE TABLE IF NOT EXISTS state (
    namespace TEXT NOT NULL, key BLOB NOT NULL, value NOT NULL, expires REAL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS expiry ON state (expires) WHERE expires IS NOT NULL;
"""
_EXPIRED = "SELECT namespace, key FROM state WHERE expires IS NOT NULL AND expires <= ? LIMIT ?"


class SqliteFile:
    """The database. Raises sqlite3.Error wherever the file fails: drop() it then."""

    def __init__(self, path: Path, *, max_keys: int, max_value: int, clock: Callable[[], float]) -> None:
        self._path = path
        self._max_keys = max_keys
        self._max_value = max_value
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self._counts: dict[str, int] = {}
        """Keys of each namespace, expired ones that are still there with them."""
        self._commit_at = 0.0
        """Monotonic; 0: nothing to commit."""
        self._sweep_at = 0.0
        self._turn_at = 0.0
        """Monotonic: not before that does the next transaction begin."""
        self._seen = 0
        """SQLite's number for what others have changed."""

    @property
    def opened(self) -> bool:
        """It can be used, as far as is known."""
        return self._database is not None

    @property
    def keys(self) -> int:
        """Of all namespaces."""
        return sum(self._counts.values())

    def open(self) -> None:
        """Open it, make it where there is none. Reads every page once: damage shows here, not later.

        Raises sqlite3.Error; StoreUnavailable for a file of another forkd's.
        """
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise StoreUnavailable(f"format {version}, and this forkd knows {SCHEMA}")
            database.executescript(TABLES)
            if not version:  # it writes, and the file may be another broker's now
                database.execute(f"PRAGMA user_version = {SCHEMA}")
            problem = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise StoreUnavailable(f"damaged ({problem}); move it away to begin with an empty one")
            self._count(database)
            database.execute("PRAGMA busy_timeout = 0")  # _take_turn() waits
        except BaseException:
            database.close()
            raise
        self._database = database
        self._commit_at = 0.0

    def _count(self, database: sqlite3.Connection) -> None:
        self._seen = database.execute("PRAGMA data_version").fetchone()[0]
        self._counts = dict(database.execute("SELECT namespace, COUNT(*) FROM state GROUP BY namespace"))

    def drop(self) -> None:
        """Let go of a file that failed; what was not committed is lost."""
        database, self._database = self._database, None
        self._commit_at = 0.0
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()

    def close(self) -> None:
        """Commit and close."""
        with contextlib.suppress(sqlite3.Error):
            self._commit()
        self.drop()

    def wait_s(self, now: float) -> float:
        """Until tidy() has something to do."""
        due = min(self._commit_at, self._sweep_at) if self._commit_at else self._sweep_at
        return max(0.0, due - now)

    def tidy(self, now: float) -> None:
        """Commit what is due, sweep a step."""
        if self._commit_at and now >= self._commit_at:
            self._commit()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            if self._database is not None and self._sweep(SWEEP_KEYS) == SWEEP_KEYS:
                self._sweep_at = now + COMMIT_S / 10  # there is more; requests come between

    def do(self, namespace: str, request: StateRequest) -> Result:
        """One request. Raises StateError."""
        key = request.key.encode()
        if len(key) > 255:
            raise StateError("a key has at most 255 octets")
        if not isinstance(request, Get):
            self._begun()
        found = self._find(namespace, key)
        match request:
            case Get():
                return found[0] if found else None
            case Delete():
                return self._delete(namespace, key) and found is not None
            case Add() if found is not None:
                return False
            case Set() | Add():
                self._check(request.value)
                self._put(namespace, key, request.value, self._expiry(request.ttl))
                return True
            case Incr():
                value, expires = found or (0, self._expiry(request.ttl))
                if isinstance(value, str):
                    raise StateError("the value is a text")
                value += request.by
                if not -_INT64 <= value < _INT64:
                    raise StateError("the sum has more than 64 bits")
                self._put(namespace, key, value, expires)
                return value

    def _expiry(self, ttl: float | None) -> float | None:
        return None if ttl is None else self._clock() + ttl

    def _check(self, value: int | str) -> None:
        if isinstance(value, str) and len(value.encode()) > self._max_value:
            raise StateError(f"a value has at most {self._max_value} octets (state.max_value)")

    def _find(self, namespace: str, key: bytes) -> tuple[int | str, float | None] | None:
        """Value and expiry; None: it is not there, or has expired."""
        assert self._database is not None
        found: tuple[int | str, float | None] | None = self._database.execute(
            "SELECT value, expires FROM state WHERE namespace = ? AND key = ?", (namespace, key)
        ).fetchone()
        if found is not None and found[1] is not None and found[1] <= self._clock():
            self._delete(namespace, key)
            return None
        return found

    def _put(self, namespace: str, key: bytes, value: int | str, expires: float | None) -> None:
        database = self._begun()
        there = database.execute(
            "UPDATE state SET value = ?, expires = ? WHERE namespace = ? AND key = ?",
            (value, expires, namespace, key),
        ).rowcount
        if there:
            return
        count = self._counts.get(namespace, 0)
        if count >= self._max_keys:
            self._sweep(SWEEP_KEYS)
            count = self._counts.get(namespace, 0)
            if count >= self._max_keys:
                raise StateError(f"{count} keys are the most (state.max_keys)")
        database.execute("INSERT INTO state VALUES (?, ?, ?, ?)", (namespace, key, value, expires))
        self._counts[namespace] = count + 1

    def _delete(self, namespace: str, key: bytes) -> bool:
        gone = (
            self._begun()
            .execute("DELETE FROM state WHERE namespace = ? AND key = ?", (namespace, key))
            .rowcount
        )
        if gone:
            self._counts[namespace] = self._counts.get(namespace, 0) - 1
        return bool(gone)

    def _sweep(self, most: int) -> int:
        """Remove up to so many expired keys; how many there were."""
        assert self._database is not None
        expired = self._database.execute(_EXPIRED, (self._clock(), most)).fetchall()
        for namespace, key in expired:
            self._delete(namespace, key)
        return len(expired)

    def _begun(self) -> sqlite3.Connection:
        """The database within a transaction, which is committed soon."""
        database = self._database
        assert database is not None
        if not self._commit_at:
            self._take_turn(database)
            self._commit_at = time.monotonic() + COMMIT_S
            if database.execute("PRAGMA data_version").fetchone()[0] != self._seen:
                self._count(database)
        return database

    def _take_turn(self, database: sqlite3.Connection) -> None:
        """Begin, when the other broker has committed. Blocks; raises sqlite3.Error after BUSY_S."""
        time.sleep(max(0.0, self._turn_at - time.monotonic()))
        give_up_at = time.monotonic() + BUSY_S
        while True:
            try:
                database.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_at:
                    raise
            time.sleep(BUSY_LOOK_S)

    def _commit(self) -> None:
        if self._commit_at and self._database is not None:
            self._commit_at = 0.0
            self._database.execute("COMMIT")
            self._turn_at = time.monotonic() + GAP_S
