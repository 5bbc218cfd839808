"""forkd reload: have the running daemon read its configuration anew, and say what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from forkd.cli.control import request
from forkd.cli.lines import tell
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.tables import print_table

_READ = " (a plugin that was granted files always: it may have read them at its start)"
WAIT_S = 930.0
"""Longer than RELOAD_TIMEOUT_S of admin/peers.py, whose text says more."""


@click.command()
@daemon_options
@json_option
def reload(data_dir: Path, as_json: bool) -> int:
    """Read the configuration, plugins and certificates anew.

    New sessions have the new settings, and nobody is refused meanwhile. Those there are go on with the old
    ones: to their end, or until they were silent for 10 s without a transaction, or for 300 s, when each
    ends with its transaction; with 421 4.3.2. Of old generations at most 3 go on: a fourth reload within
    minutes ends the oldest within server.stop_timeout.

    With a mistake in it, or a plugin that does not start, the old configuration stays in force: the mistake
    is said, and the exit status is not 0.
    """
    report = request(data_dir, "reload", timeout_s=WAIT_S)
    if as_json:
        print_json(report)
        return 0
    applied, left = report.get("applied", ()), report.get("needs_restart", ())
    tell(f"generation {report.get('generation')} is in force after {report.get('seconds', 0):.1f} s")
    for title, found in (("applied", applied), ("needs a restart", left)):
        if found:
            print_table((title, "was", "is in the file"), [_row(each) for each in found])
    tell(f"unchanged: {report.get('unchanged', 0)} keys")
    for title, names in (("started anew", report.get("renewed")), ("kept", report.get("kept"))):
        if names:
            tell(f"{title}: {', '.join(names)}{_READ if title != 'kept' and _plugins(names) else ''}")
    return 0


def _plugins(names: list[str]) -> bool:
    return any(name.startswith("plugin ") for name in names)


def _row(changed: dict[str, Any]) -> tuple[object, ...]:
    why = f" ({changed['why']})" if changed.get("why") else ""
    return changed["key"], changed.get("old", ""), changed.get("new", "") + why
