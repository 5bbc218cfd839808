"""forkd queue stat: how much waits where and how long, and for what reasons (as Postfix' qshape shows it)."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from forkd.cli.lines import tell
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.queue_ask import Queue, progress
from forkd.cli.queue_choice import Choice, choice_options
from forkd.cli.tables import octets, print_table

AGES = ("5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+")
"""Minutes; the columns of rpc.messages.QueueCount."""

TOTAL = "TOTAL"

Row = list[int]
"""One number for each of the AGES."""


@dataclasses.dataclass
class Sums:
    """All pages together: kind -> name -> numbers by age."""

    octets: int = 0
    kinds: dict[str, dict[str, Row]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(
            lambda: collections.defaultdict(lambda: [0] * len(AGES))
        )
    )

    def add(self, answer: Mapping[str, Any]) -> None:
        """Take a page in."""
        self.octets += answer["octets"]
        for kind, name, age, count in answer["counts"]:
            self.kinds[kind][name][age] += count

    def total(self, kind: str) -> Row:
        """Over all names."""
        return [sum(ages) for ages in zip(*self.kinds[kind].values(), strict=True)] or [0] * len(AGES)


@click.command()
@choice_options
@click.option("--by-sender", is_flag=True, help="Count messages by the sender's domain.")
@click.option("--top", default=20, show_default=True, type=click.IntRange(0), help="Lines at most; 0: all.")
@daemon_options
@json_option
def stat(choice: Choice, by_sender: bool, top: int, data_dir: Path, as_json: bool) -> int:
    """How much waits, by domain and age, and for what reasons.

    Columns are minutes: below 5, below 10, and so on. Domains are those of recipients that wait, and each
    recipient counts (as with qshape); with --by-sender they are the senders', and each message counts.
    Reasons count messages; what differs from message to message is left out of them.
    """
    if choice.pattern is not None:
        raise click.UsageError("stat counts where the queue is: use --reason instead of --reason-regex")
    queue, sums, seen = Queue(data_dir, reads=True), Sums(), 0
    with progress("counted") as told:
        for answer in queue.pages("stat", by_sender=by_sender, at=time.time(), **choice.filter()):
            sums.add(answer)
            seen += answer["seen"]
            told(seen, answer["count"])
    if as_json:
        print_json(_json(sums, by_sender=by_sender, offline=queue.offline))
        return 0
    messages = sum(sums.total("state"))
    states = sums.kinds["state"]
    each = ", ".join(f"{sum(row)} {name}" for name, row in sorted(states.items()))
    tell(f"{messages} messages, {octets(sums.octets)}" + (f": {each}" if each else ""))
    if messages:
        tell()
        _print("sender's domain" if by_sender else "domain", sums, "domain", top)
        tell()
        _print("reason", sums, "reason", top, names={"": "(not tried yet)"})
    return 0


def _print(head: str, sums: Sums, kind: str, top: int, *, names: Mapping[str, str] | None = None) -> None:
    rows = _sorted(sums.kinds[kind])
    shown = rows[:top] if top else rows
    cells = [_cells(TOTAL, sums.total(kind))]
    cells += [_cells((names or {}).get(name, name), row) for name, row in shown]
    print_table((head, "T", *AGES), cells, right=("T", *AGES))
    if len(rows) > len(shown):
        tell(f"and {len(rows) - len(shown)} more; all: --top 0", error=True)


def _cells(name: str, row: Sequence[int]) -> tuple[object, ...]:
    return name, sum(row), *row


def _sorted(rows: Mapping[str, Row]) -> list[tuple[str, Row]]:
    """The most first."""
    return sorted(rows.items(), key=lambda item: (-sum(item[1]), item[0]))


def _json(sums: Sums, *, by_sender: bool, offline: bool) -> dict[str, Any]:
    def lines(kind: str) -> list[dict[str, Any]]:
        return [{"name": name, "total": sum(row), "ages": row} for name, row in _sorted(sums.kinds[kind])]

    return {
        "messages": sum(sums.total("state")),
        "octets": sums.octets,
        "minutes": AGES,
        "by": "sender" if by_sender else "recipient",
        "domains": lines("domain"),
        "reasons": lines("reason"),
        "states": {name: sum(row) for name, row in _sorted(sums.kinds["state"])},
        "offline": offline,
    }
