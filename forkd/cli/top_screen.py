"""How does `forkd top` look? What was asked and found in, something to print out; it fits the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forkd.cli.lines import safe
from forkd.cli.sessions import COLUMNS, RIGHT, row
from forkd.cli.tables import ago, state
from forkd.cli.top_rates import Rates

HEAD_LINES = 3
WIDE = 120
"""Columns of a terminal that shows all there is of a session."""
_WIDE_ALONE = frozenset({"listener", "tls", "mails", "refused"})
_NUMBERS = ("/s", "each", "pid", "sessions", "failed", "hand", *RIGHT)
"""Ends of the names of columns of numbers."""

KEYS = "q quit   s sort sessions   space look now"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is to be seen. `queue` is None where qmgr does not answer."""

    status: dict[str, Any]
    rates: Rates
    sessions: dict[str, Any]
    sort: str
    queue: int | None
    note: str = ""


def screen(view: View, *, rows: int, columns: int) -> RenderableType:
    """At most `rows` lines; what does not fit gives way from the bottom, sessions first."""
    blocks: list[RenderableType] = [_head(view)]
    left = rows - HEAD_LINES - 1 - bool(view.note)
    for table, kept in ((_workers(view), 8), (_plugins(view), 5), (_sessions(view, columns), 0)):
        lines = table[1:]
        if not lines or left < 3:
            continue
        most = min(len(lines), max(1, left - 2 - kept))
        blocks += [Text(), _table(table[0], lines[:most])]
        left -= 2 + most
    if view.note:
        blocks.append(Text(safe(view.note), style="bold red", no_wrap=True, overflow="ellipsis"))
    return Group(*blocks, Text(KEYS, style="dim", no_wrap=True, overflow="ellipsis"))


def _head(view: View) -> Text:
    status, rates = view.status, view.rates.of_all
    readiness = status.get("readiness") or {}
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"forkd {status['version']}  {safe(status['hostname'])}  ", style="bold")
    text.append_text(state(status["state"]))
    if "ready" in readiness:
        ready = readiness["ready"]
        text.append(" ready" if ready else " NOT READY", style="green" if ready else "bold red")
    text.append(f"  up {ago(status['started_at'])}\n")
    queue = "does not answer" if view.queue is None else f"{view.queue}"
    troubles = f"plugin failures/s {_rate(rates, 'plugin_failures')}  overloads/s {_rate(rates, 'overloads')}"
    text.append(f"sessions {view.sessions['total']}  queue {queue}  {troubles}\n")
    shown = (f"{name} {_rate(rates, name)}" for name in ("connections", "messages", "recipients", "refused"))
    text.append(f"per second: {'  '.join(shown)}")
    return text


def _rate(rates: Mapping[str, float], name: str) -> str:
    """Four characters up to 9999: the head fits into 80 columns."""
    rate = rates.get(name, 0)
    return f"{rate:.0f}" if rate >= 99.95 else f"{rate:.1f}"


Rows = list[Sequence[object]]


def _workers(view: View) -> Rows:
    rows: Rows = [
        ("worker", "pid", "state", "up", "sessions", "mails in hand", "conn/s", "mails/s", "refused/s")
    ]
    for each in view.status["processes"]:
        if each["role"] == "worker":
            grown = view.rates.of_worker.get((each["slot"], each["pid"]), {})
            rows.append(
                (
                    each["slot"],
                    each["pid"],
                    each["state"],
                    ago(each["started_at"]) if each["started_at"] else "-",
                    each["sessions"],
                    each["transactions"],
                    *(f"{grown.get(name, 0):.1f}" for name in ("connections", "messages", "refused")),
                )
            )
    return rows


def _plugins(view: View) -> Rows:
    if not view.rates.plugins:
        return []
    rows: Rows = [("plugin", "calls/s", "ms each", "failures/s", "failed", "breaker")]
    rows += [
        (
            each.name,
            f"{each.calls:.1f}",
            "-" if each.ms is None else f"{each.ms:.1f}",
            f"{each.failures:.1f}",
            each.failed,
            f"OPEN in {each.open_in}" if each.open_in else "-",
        )
        for each in view.rates.plugins
    ]
    return rows


def _sessions(view: View, columns: int) -> Rows:
    shown = [at for at, name in enumerate(COLUMNS) if columns >= WIDE or name not in _WIDE_ALONE]
    rows = [(f"session by {view.sort}", *COLUMNS[1:]), *map(row, view.sessions["sessions"])]
    return [[line[at] for at in shown] for line in rows]


def _table(head: Sequence[object], lines: Iterable[Sequence[object]]) -> Table:
    """One line for each row, whatever the width: this is to be looked at, not to be read from a pipe."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in map(str, head):
        side: Literal["left", "right"] = "right" if column.endswith(_NUMBERS) else "left"
        table.add_column(column, justify=side, no_wrap=True, overflow="ellipsis")
    for line in lines:
        table.add_row(*(state(str(cell)) for cell in line))
    return table
