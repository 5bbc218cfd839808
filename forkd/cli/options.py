"""Which options are the same for every command?"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from forkd.config.load import data_dir_of

_F = TypeVar("_F", bound=Callable[..., Any])

SYSTEM_CONFIG = Path("/etc/forkd/forkd.toml")
"""Where packages put it; looked at for hints only, never read unless named."""


@dataclasses.dataclass
class Invocation:
    """What main() must know about the command it called when that fails."""

    json: bool = False


def _remember_json(context: click.Context, _: click.Parameter, value: bool) -> bool:
    if value:
        context.find_root().obj.json = True
    return value


def json_option(function: _F) -> _F:
    """--json, as the argument `as_json`; failures are then printed as JSON too."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        is_eager=True,
        callback=_remember_json,
        help="Print one JSON value instead of text.",
    )(function)


def config_option(function: _F) -> _F:
    """--config FILE, as the argument `config`."""
    return click.option(
        "--config",
        "-c",
        "config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration; without it forkd runs on defaults and keeps its files in ./var.",
    )(function)


def daemon_options(function: _F) -> _F:
    """--config and --data-dir, as `data_dir`: which running daemon is meant."""
    function = click.option(
        "--data-dir",
        "data_dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        callback=_data_dir,
        help="The running daemon's data_dir; default: that of --config, else ./var.",
    )(function)
    return click.option(
        "--config",
        "-c",
        "config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        is_eager=True,
        callback=_remember_config,
        help="The configuration that the daemon was started with.",
    )(function)


def _remember_config(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    context.meta["forkd.config"] = value


def _data_dir(context: click.Context, _: click.Parameter, value: Path | None) -> Path:
    if value is not None:
        return Path.cwd() / value
    return data_dir_of(context.meta.get("forkd.config"))


def _escaped(line: str) -> str:
    """What strangers said; json itself leaves all controls but the first 32 as they are."""
    escapes = (
        char if char.isprintable() else f"\\u{ord(char):04x}" if char < "\x80" else json.dumps(char)[1:-1]
        for char in line
    )
    return "".join(escapes)


def print_json(value: Any) -> None:
    """One value, readable and parseable; what a terminal would obey stands in it as \\u escapes."""
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    click.echo("\n".join([line if line.isprintable() else _escaped(line) for line in lines]))


def use_color() -> bool | None:
    """click's `color`: False under NO_COLOR (https://no-color.org), else click looks at the terminal."""
    return False if os.environ.get("NO_COLOR") else None


def say(text: str, *, error: bool = False) -> None:
    """A line about what happens, to standard error."""
    click.secho(text, err=True, color=use_color(), fg="red" if error else None)
    sys.stderr.flush()
