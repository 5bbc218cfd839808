"""How is a group of commands a table, of which only the one that is called is imported?"""

from __future__ import annotations

import importlib
from typing import Any

import click

Rows = dict[str, tuple[str, str, str]]
"""Name -> module, attribute, line of help."""


class LazyGroup(click.Group):
    """A click group whose commands stand in `rows`; each module is imported when its command is called."""

    def __init__(self, *arguments: Any, rows: Rows, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.rows = rows

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self.rows:
            return None
        module, attribute, _ = self.rows[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """From the table, so that --help imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in self.rows.items()])
