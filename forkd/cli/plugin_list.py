"""forkd plugin list: what is installed, what of it is switched on, and how is it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from forkd.cli.lines import say
from forkd.cli.options import config_option, json_option, print_json
from forkd.cli.plugin_known import Known, known, zygotes
from forkd.cli.tables import print_table
from forkd.config.load import load
from forkd.config.problems import display_path


@click.command("list")
@config_option
@json_option
def list_plugins(config: Path | None, as_json: bool) -> int:
    """Plugins that come with forkd, are installed as packages, or are named in plugins.d.

    Those that are on come first, in the order in which they are asked. Where the daemon of that configuration
    runs, its zygotes' state and failures stand beside.
    """
    loaded = load(config)
    running = zygotes(loaded)
    rows = [_row(one, running) for one in known(loaded)]
    if as_json:
        print_json(rows)
        return 0
    columns = ["plugin", "version", "from", "on", "order", "mode", "group", "entry"]
    columns += ["state", "failures", "breaker"] if running else []
    shown = [row | {"on": "unusable"} if row["unusable"] else row for row in rows]
    print_table(
        columns, [[_cell(row[name]) for name in columns] for row in shown], right=("order", "failures")
    )
    for row in shown:
        if row["unusable"]:
            say(f"{row['plugin']} is unusable: {row['unusable']}")
    if not running:
        say("no daemon of this configuration runs: nothing is known of their health")
    return 0


def _row(one: Known, running: dict[str, dict[str, Any]]) -> dict[str, Any]:
    plugin = one.plugin
    row: dict[str, Any] = {
        "plugin": one.name,
        "version": one.version,
        "description": one.description,
        "from": one.source,
        "folder": str(one.folder),
        "on": plugin is not None,
        "order": plugin.order if plugin else None,
        "mode": plugin.mode if plugin else None,
        "group": plugin.group if plugin else "",
        "entry": display_path(one.entry) if one.entry else None,
        "unusable": one.unusable,
    }
    zygote = running.get(plugin.name) if plugin else None
    if running:
        row["state"] = zygote["state"] if zygote else None
        row["restarts"] = zygote["restarts"] if zygote else None
        row["failures"] = sum(zygote["failures"].values()) if zygote else None
        row["breaker"] = ("open" if zygote["breaker_open"] else "closed") if zygote else None
    return row


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None else str(value)
