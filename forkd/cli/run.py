"""forkd run: load the configuration and become the master."""

from __future__ import annotations

from pathlib import Path

import click

from forkd.cli.options import config_option
from forkd.config.load import load
from forkd.master.main import run as run_master


@click.command()
@config_option
def run(config: Path | None) -> int:
    """Serve mail in the foreground until SIGTERM, SIGINT or `forkd stop`.

    Without a configuration: 127.0.0.1:2525, mail for localhost and test.local, Maildirs and spool below
    ./var, the plugins block_senders and mark switched on.
    """
    return run_master(load(config))
