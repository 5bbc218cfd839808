"""How are rows of values shown to eyes? In tables that fit the terminal, plain when piped."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forkd.cli.lines import safe

PIPE_COLUMNS = 200
"""Width when standard output is no terminal: whoever reads a pipe line by line wants rows unbroken."""

_PADDING = re.compile(r" +$", re.MULTILINE)

_STATE_STYLES = {
    "running": "green",
    "enforced": "green",
    "active": "green",
    "draining": "yellow",
    "starting": "yellow",
    "backoff": "yellow",
    "unverified": "yellow",
    "absent": "yellow",
    "failed": "bold red",
    "hold": "yellow",
}


def console() -> Console:
    """Standard output; under NO_COLOR not a single escape sequence, bold included."""
    plain = bool(os.environ.get("NO_COLOR"))
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else PIPE_COLUMNS
    return Console(color_system=None if plain else "auto", highlight=False, width=width, soft_wrap=False)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()
) -> None:
    """A table without lines. `right` names columns of numbers. Long cells are folded, never lost."""
    numbers = set(right)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in numbers else "left"
        table.add_column(Text(safe(column)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(state(str(cell)) for cell in row))
    _print(table)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one below the other."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(Text(safe(name)), state(str(value)))
    _print(table)


def _print(table: Table) -> None:
    """Without the blanks that pad the last column: they would wrap, and disturb who compares output."""
    terminal = console()
    with terminal.capture() as capture:
        terminal.print(table)
    click.echo(_PADDING.sub("", capture.get()), nl=False, color=True)


def state(word: str) -> Text:
    """A word, coloured when it is the name of a state; never read as markup."""
    return Text(safe(word), style=_STATE_STYLES.get(word, ""))


def ago(then: float, now: float | None = None) -> str:
    """How long since, in the two largest units: `3d 4h`, `12m 5s`."""
    seconds = max(0, int((time.time() if now is None else now) - then))
    units = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count or (parts and len(parts) < 2) or (name == "s" and not parts):
            parts.append(f"{count}{name}")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0") or len(parts) == 1)


def seconds_ago(seconds: float) -> str:
    """The same of an interval."""
    return ago(0.0, seconds)


def last_end(process: dict[str, Any]) -> str:
    """How the process ended that was there before this one: `ended 12m 5s ago: SIGKILL`; empty: none did."""
    return (
        f"ended {ago(process['last_end_at'])} ago: {process['last_end']}" if process.get("last_end") else ""
    )


def octets(size: int) -> str:
    """`5.0 KiB`: for eyes, not exact."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")
