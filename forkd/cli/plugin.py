"""forkd plugin: what is a plugin, what may it do, and is it right?"""

from __future__ import annotations

from typing import Final

import click

from forkd.cli.lazy import LazyGroup, Rows

ROWS: Final[Rows] = {
    "new": ("forkd.cli.plugin_new", "new", "A new plugin's folder: module, manifest, tests."),
    "check": ("forkd.cli.plugin_check", "check", "Is a plugin's folder right? Exit status for CI."),
    "test": ("forkd.cli.plugin_test", "test", "What its hooks do in a real sandbox."),
    "bench": ("forkd.cli.plugin_bench", "bench", "What a call of it costs."),
    "try-so": ("forkd.cli.plugin_try_so", "try_so", "What a compiled plugin of qmail-smtpd says."),
    "replay": ("forkd.cli.plugin_replay", "replay", "Run a recorded failing call again."),
    "list": ("forkd.cli.plugin_list", "list_plugins", "What is installed, and what of it is switched on."),
    "show": ("forkd.cli.plugin_show", "show", "What a plugin may do, in plain words."),
    "diff": ("forkd.cli.plugin_diff", "diff", "What a new version wants that the old one did not."),
}
"""Name -> module, attribute, line of help. A module is imported when its command is called."""


@click.group(cls=LazyGroup, rows=ROWS)
def plugin() -> None:
    """What plugins are, what they may do, and whether they are right."""
