"""forkd top: the running daemon, live in a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
from rich.live import Live

from forkd.cli.control import PartAway, request
from forkd.cli.failure import CommandFailed
from forkd.cli.options import daemon_options
from forkd.cli.queue_choice import unit
from forkd.cli.tables import console
from forkd.cli.top_rates import Looks
from forkd.cli.top_screen import View, screen
from forkd.config.units import parse_duration
from forkd.exits import Exit
from forkd.rpc.messages_sessions import Sort

SORTS: tuple[str, ...] = get_args(Sort)
MOST_SESSIONS = 200
"""No terminal shows more."""
LEAST_S = 0.2


@click.command()
@daemon_options
@click.option(
    "--interval", default="2s", callback=unit(parse_duration), metavar="TIME", show_default=True,
    help="Between two looks; 200ms at least.",
)  # fmt: skip
@click.option(
    "--sort", type=click.Choice(SORTS), default="age", show_default=True, help="Which sessions come first."
)
def top(data_dir: Path, interval: float, sort: str) -> int:
    """Workers, rates, plugins, queue and sessions, live. Keys: q quit, s sort sessions, space look now."""
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise CommandFailed(
            "this is for a terminal, and standard input or output is none",
            hint="programs ask by `forkd status --json` and `forkd sessions --json`",
            status=Exit.USAGE,
        )
    first = _look(data_dir, sort)  # what is wrong with the daemon is said before the screen is taken
    interval = max(LEAST_S, interval)
    terminal = console()
    with _keys() as keys, Live(console=terminal, screen=True, auto_refresh=False) as live:
        looks, looked, note = Looks(), first, ""
        found = looks.rates(looked["status"], looked["at"])
        while True:
            now = time.monotonic()
            view = View(
                status=looked["status"],
                rates=found,
                sessions=looked["sessions"],
                sort=sort,
                queue=looked["queue"],
                note=note,
            )
            width, height = terminal.size
            live.update(screen(view, rows=height, columns=width), refresh=True)
            while (left := now + interval - time.monotonic()) > 0:
                if not select.select([keys], [], [], left)[0]:
                    break
                key = os.read(keys, 64).decode("ascii", "replace").lower()
                if not key or "q" in key or "\x03" in key or "\x04" in key:
                    return 0
                if "s" in key:
                    sort = SORTS[(SORTS.index(sort) + 1) % len(SORTS)]
                if "s" in key or " " in key:
                    break
            try:
                looked, note = _look(data_dir, sort), ""
                found = looks.rates(looked["status"], looked["at"])
            except CommandFailed as failure:
                note = str(failure)  # it may come back: admin is replaced, forkd started anew


def _look(data_dir: Path, sort: str) -> dict[str, Any]:
    """All that is shown, and when (monotonic) the status was so. Raises CommandFailed."""
    try:
        queue = request(data_dir, "queue", act="list", limit=1)["count"]
    except PartAway:
        queue = None
    status = request(data_dir, "status")
    return {
        "status": status,
        "at": time.monotonic(),
        "sessions": request(data_dir, "sessions", sort=sort, limit=MOST_SESSIONS),
        "queue": queue,
    }


@contextlib.contextmanager
def _keys() -> Iterator[int]:
    """Standard input, key by key and unseen; as it was afterwards."""
    descriptor = sys.stdin.fileno()
    was = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, was)
