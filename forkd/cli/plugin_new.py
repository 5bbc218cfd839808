"""forkd plugin new: a plugin's folder to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import tell
from forkd.cli.options import json_option, print_json
from forkd.cli.plugin_kit import python_option
from forkd.config.problems import display_path
from forkd.config.schema import HOOKS
from forkd.exits import Exit
from forkd.kit.scaffold import BadName, make


@click.command()
@click.argument("name")
@click.option(
    "--hook",
    "hooks",
    multiple=True,
    type=click.Choice(HOOKS),
    help="A hook it is asked at; may be given again. Default: mail.",
)
@click.option(
    "--in",
    "parent",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    metavar="FOLDER",
    help="Where its folder is made; default: here.",
)
@python_option
@json_option
def new(*, name: str, hooks: tuple[str, ...], parent: Path, python: Path | None, as_json: bool) -> int:
    """Make the folder NAME with a plugin that works: module, manifest, tests, README.

    It refuses what its setting names, at the hooks you choose; put your own idea in its place.
    """
    try:
        made = make(name, hooks, parent, python=python)
    except BadName as error:
        raise CommandFailed(str(error), status=Exit.USAGE) from error
    except FileExistsError as error:
        there = display_path((parent / name).absolute())
        raise CommandFailed(f"{there} is there already", hint="choose another name, or remove it") from error
    except OSError as error:
        raise CommandFailed(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error
    if as_json:
        files = [str(file) for file in made.files]
        print_json({"ok": True, "folder": str(made.folder), "files": files, "entry": made.entry})
        return Exit.OK
    for file in made.files:
        tell(display_path(file))
    shown = display_path(made.folder)
    tell()
    tell(f"To switch it on, write plugins.d/50-{name}.toml beside forkd.toml:")
    tell()
    for line in made.entry.splitlines():
        tell(f"    {line}" if line else "")
    tell()
    under = f" --python {python}" if python else ""
    tell(f"Next: forkd plugin test {shown}{under}; pytest {shown}; forkd plugin check {shown}{under}")
    return Exit.OK
