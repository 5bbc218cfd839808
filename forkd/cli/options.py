"""Which options are the same for every command?"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from forkd.cli.lines import say
from forkd.cli.which import Which, left_out, which
from forkd.config.load import data_dir_of

_F = TypeVar("_F", bound=Callable[..., Any])

_WHICH: Final = "forkd.which"
_DATA_DIR: Final = "forkd.data_dir"
"""In a context's meta: what the command before, or a group, was given."""


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
    """--config FILE, as the argument `config`: the file that is meant (which.py), None for the defaults."""
    return _config_option(callback=_meant)(function)


def file_argument(function: _F) -> _F:
    """FILE or --config FILE, as the argument `config`: both say the same; every command knows --config."""
    function = click.argument(
        "file", required=False, type=click.Path(path_type=Path), expose_value=False, is_eager=True,
        callback=_remember_file,
    )(function)  # fmt: skip
    return _config_option(callback=_meant)(function)


def daemon_options(function: _F) -> _F:
    """--config and --data-dir, as `data_dir`: which running daemon is meant."""
    function = _data_dir_option(callback=_data_dir)(function)
    return _config_option(callback=_remember, expose_value=False, is_eager=True)(function)


def group_options(function: _F) -> _F:
    """The same before the name of a command of that group; what stands behind the name counts."""
    function = _data_dir_option(callback=_remember_data_dir, expose_value=False)(function)
    return _config_option(callback=_remember, expose_value=False)(function)


def which_of(context: click.Context | None) -> Which | None:
    """The configuration by which a running daemon is looked for; None: its data_dir itself was named."""
    found = context.meta.get(_WHICH, Which(None)) if context else Which(None)
    return None if context is not None and context.meta.get(_DATA_DIR) else found


def _config_option(**how: Any) -> Callable[[_F], _F]:
    return click.option(
        "--config",
        "-c",
        "config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration; default: that of FORKD_CONFIG, of ./var, /etc/forkd/forkd.toml, or none.",
        **how,
    )


def _data_dir_option(**how: Any) -> Callable[[_F], _F]:
    return click.option(
        "--data-dir",
        "data_dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="The running daemon's data_dir; default: that of the configuration.",
        **how,
    )


def _remember_file(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    context.meta[_WHICH] = None if value is None else Which(value, "--config")


def _meant(context: click.Context, _: click.Parameter, value: Path | None) -> Path | None:
    named = context.meta.get(_WHICH)
    if named is not None and value not in (None, named.file):
        raise click.UsageError("name the configuration once: as FILE or by --config")
    found = named or which(value)
    if (told := left_out(found)) and not context.resilient_parsing:
        say(f"forkd: {told}")
    file: Path | None = found.file
    return file


def _remember(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None or _WHICH not in context.meta:
        context.meta[_WHICH] = which(value)
        if value is not None:
            context.meta.pop(_DATA_DIR, None)  # the group's


def _remember_data_dir(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.meta[_DATA_DIR] = Path.cwd() / value


def _data_dir(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path:
    _remember_data_dir(context, parameter, value)
    return context.meta.get(_DATA_DIR) or data_dir_of(context.meta[_WHICH].file)


def _escaped(line: str) -> str:
    """What strangers said; json itself leaves all controls but the first 32 as they are."""
    escapes = (
        char if char.isprintable() else f"\\u{ord(char):04x}" if char < "\x80" else json.dumps(char)[1:-1]
        for char in line
    )
    return "".join(escapes)


def print_json(value: Any) -> None:
    """One value, readable and parseable."""
    print_document(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_document(text: str) -> None:
    """What people and programs read, JSON or TOML: what a terminal would obey stands in it as \\u escapes."""
    lines = text.split("\n")
    click.echo("\n".join([line if line.isprintable() else _escaped(line) for line in lines]), nl=False)
