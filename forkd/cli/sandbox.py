"""forkd sandbox status: which walls hold, around plugins and around our own processes?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from forkd.cli.control import request
from forkd.cli.lines import say, tell
from forkd.cli.options import daemon_options, group_options, json_option, print_json
from forkd.cli.tables import last_end, print_table

MEANINGS: Final = {
    "enforced": "who stands behind it tried to pass it at start-up and could not",
    "absent": "this machine, or this way of starting, does not have it; the log of the start says why",
    "failed": "it was passed, or is not as it should be: the log says how",
    "unverified": "could not be tried from here",
}


@click.group()
@group_options
def sandbox() -> None:
    """Which walls hold on this machine: around plugins, and around our own processes (roles)."""


@sandbox.command()
@daemon_options
@json_option
def status(data_dir: Path, as_json: bool) -> int:
    """What the running daemon's self-test found, layer by layer, and its zygotes."""
    answer = request(data_dir, "status")
    layers: dict[str, str] = answer.get("sandbox", {})
    zygotes = [process for process in answer.get("processes", ()) if process.get("role") == "zygote"]
    if as_json:
        print_json({"layers": layers, "zygotes": zygotes})
        return 0
    print_table(("layer", "state", "meaning"), [(k, v, MEANINGS.get(v, "")) for k, v in layers.items()])
    if zygotes:
        tell()
        columns = ("plugin", "zygote pid", "state", "restarts", "the one before")
        rows = [
            (z.get("name", ""), z.get("pid", ""), z.get("state", ""), z.get("restarts", 0), last_end(z))
            for z in zygotes
        ]
        print_table(columns, rows, right=("zygote pid", "restarts"))
    if not layers:
        say("the daemon has not reported a self-test")
    return 0
