"""What goes from the kept events, and in which order? What is too old, then what is too much.

Age is the time at which admin took a row, not what the row says of itself, so that it grows with the rows'
order, and nobody's tale is kept for longer than others'. All that takes room goes for room, whatever its age:
events, links, gaps, as they came in.
"""

from __future__ import annotations

import sqlite3
from typing import Final

STEP: Final = 500
"""Rows removed at once, at least: some milliseconds."""
SLACK_S: Final = 600.0
"""Links and gaps outlive the sessions that were there before them by so much."""
ROW_BYTES: Final = 80
"""What a row takes beside its events, with its place in an index."""
VACUUM_PAGES: Final = 200


def pages(database: sqlite3.Connection) -> tuple[int, int, int]:
    """All, those of them that hold nothing, octets of one."""
    count, free, size = (
        database.execute(f"PRAGMA {what}").fetchone()[0]
        for what in ("page_count", "freelist_count", "page_size")
    )
    return count, free, size


def by_age(database: sqlite3.Connection, oldest: float, too_many: int, step: int) -> tuple[int, bool]:
    """Remove a step of what was taken before `oldest`, and of sessions that are too many.

    (sessions removed, there is more of it)
    """
    sessions = last = count = 0
    rows = database.execute("SELECT n, begins, at FROM piece ORDER BY n LIMIT ?", (step,))
    for n, begins, at in rows:
        if at >= oldest and sessions >= too_many:
            break
        last = n
        count += 1
        sessions += begins
    rows.close()
    if last:
        database.execute("DELETE FROM piece WHERE n <= ?", (last,))
    more = count == step
    first = database.execute("SELECT at FROM piece ORDER BY n LIMIT 1").fetchone()
    # What is told of sessions that are gone explains nothing.
    oldest = max(oldest, first[0] - SLACK_S if first else oldest)
    for table in ("link", "gap"):
        chosen = f"SELECT n FROM {table} ORDER BY n LIMIT ?"  # noqa: S608 - of the line above
        gone = database.execute(f"DELETE FROM {table} WHERE n IN ({chosen}) AND at < ?", (step, oldest))  # noqa: S608
        more |= gone.rowcount == step
    return sessions, more


_OLDEST = """
SELECT * FROM (SELECT 0, n, at, begins, length(events) FROM piece ORDER BY n LIMIT :step)
UNION ALL SELECT * FROM (SELECT 1, n, at, 0, 0 FROM link ORDER BY n LIMIT :step)
UNION ALL SELECT * FROM (SELECT 2, n, at, 0, 0 FROM gap ORDER BY n LIMIT :step)
ORDER BY 3, 1, 2 LIMIT :step
"""


def by_size(database: sqlite3.Connection, max_bytes: int, step: int) -> tuple[int, bool]:
    """Remove a step of what takes more room than there is for it: (sessions removed, there is more of it)."""
    count, free, size = pages(database)
    excess = (count - free) * size - max_bytes
    if excess <= 0:
        return 0, False
    sessions = 0
    last = [0, 0, 0]
    for table, n, _, begins, octets in database.execute(_OLDEST, {"step": step}).fetchall():
        last[table] = n
        sessions += begins
        excess -= octets + ROW_BYTES
        if excess <= 0:
            break
    for table, n in zip(("piece", "link", "gap"), last, strict=True):
        if n:
            database.execute(f"DELETE FROM {table} WHERE n <= ?", (n,))  # noqa: S608 - of the line above
    return sessions, excess > 0 and any(last)


def clock_went_back(database: sqlite3.Connection, now: float) -> None:
    """Whatever was taken at a time that has not come yet was taken by now."""
    for table in ("piece", "link", "gap"):
        database.execute(f"UPDATE {table} SET at = ? WHERE at > ?", (now, now))  # noqa: S608 - of the line above
    database.execute("UPDATE writer SET seen = ? WHERE seen > ?", (now, now))


def vacuum(database: sqlite3.Connection) -> None:
    """Give a little back where much of the file holds nothing."""
    count, free, _ = pages(database)
    if free > max(1000, count // 4):
        database.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
