"""forkd queue: what waits to be delivered, why, and what an admin does about it."""

from __future__ import annotations

from typing import Final

import click

from forkd.cli.lazy import LazyGroup, Rows
from forkd.cli.options import group_options

ROWS: Final[Rows] = {
    "list": ("forkd.cli.queue_list", "list_", "What waits, and why it is still there."),
    "show": ("forkd.cli.queue_show", "show", "Everything about one message: envelope, attempts, outcomes."),
    "stat": ("forkd.cli.queue_stat", "stat", "How much waits where and how long, and for what reasons."),
    "export": (
        "forkd.cli.queue_export",
        "export",
        "Messages as files or an mbox, as they would be delivered.",
    ),
    "flush": ("forkd.cli.queue_acts", "flush", "Try to deliver now."),
    "hold": ("forkd.cli.queue_acts", "hold", "Keep messages back until they are released."),
    "release": ("forkd.cli.queue_acts", "release", "Deliver what a plugin quarantined or an admin held."),
    "remove": ("forkd.cli.queue_acts", "remove", "Delete messages for good."),
}
"""Name -> module, attribute, line of help. A module is imported when its command is called."""


@click.group(cls=LazyGroup, rows=ROWS)
@group_options
def queue() -> None:
    """What waits to be delivered: look at it, try it now, hold it back, take it out.

    Messages are named by their ids, or chosen: by sender, recipient, domain, state, reason, age, size. All
    options that are given must fit; of one given several times, any. An address is written whole, as
    @DOMAIN, or with * for any characters; the null sender is "<>".

    Where no forkd runs, list, show, stat and export read the spool's files themselves.
    """
