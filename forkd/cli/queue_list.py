"""forkd queue list: what waits, and why it is still there."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import click

from forkd.cli.lines import tell
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.queue_ask import Queue, progress
from forkd.cli.queue_choice import Choice, choice_options
from forkd.cli.tables import ago, octets, print_table


@click.command("list")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@choice_options
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="Entries at most.")
@daemon_options
@json_option
def list_(ids: tuple[str, ...], choice: Choice, limit: int, data_dir: Path, as_json: bool) -> int:
    """Messages in the queue, oldest first, with the reason why each is still there."""
    queue, count = Queue(data_dir, reads=True), 0
    with progress("looked at") as told:

        def counted(done: int, total: int) -> None:
            nonlocal count
            count = total
            told(done, total)

        found = queue.entries(choice, counted, ids)
        entries = list(itertools.islice(found, limit))
        # Whether there are more is known where the next one is looked for.
        more = len(entries) == limit and next(found, None) is not None
    if as_json:
        entries = [{key: value for key, value in entry.items() if key not in _INNER} for entry in entries]
        print_json({"entries": entries, "count": count, "more": more, "offline": queue.offline})
        return 0
    if not entries:
        tell("no message fits" if count and (choice.given or ids) else "the queue is empty")
        return 0
    print_table(
        ("id", "state", "age", "size", "sender", "recipients", "tries", "next", "reason"),
        [_row(entry) for entry in entries],
        right=("size", "tries"),
    )
    if more:
        of = "there are more" if choice.given else f"{len(entries)} of {count}"
        tell(f"{of}; see them by --limit", error=True)
    return 0


_INNER = frozenset({"t", "detail"})


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    return (
        entry["id"],
        entry["state"],
        ago(entry["received_at"]),
        octets(entry["size"]),
        entry["sender"] or "<>",
        recipients_of(entry),
        entry["attempts"],
        next_try(entry),
        entry["reason"],
    )


def recipients_of(entry: dict[str, Any]) -> str:
    """The first of them, and how many more."""
    more = entry.get("more_recipients", 0)
    return ", ".join(entry["recipients"]) + (f" and {more} more" if more else "")


def next_try(entry: dict[str, Any]) -> str:
    """`now`, `in 4m 5s`, or `-` where none will be."""
    at = entry.get("next_try_at") or 0
    if entry["state"] not in ("active", "deferred") or not at:
        return "-"
    now = time.time()
    return "now" if at <= now else f"in {ago(2 * now - at, now)}"
