"""forkd plugin diff: what does a new version of a plugin want that the old one did not?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import tell
from forkd.cli.options import json_option, print_json
from forkd.config.differences import Difference, Want, difference
from forkd.config.load import read_toml
from forkd.config.manifest import FILE_NAME, PluginFolder, read_manifest
from forkd.config.problems import Problems
from forkd.config.stock import PLUGINS
from forkd.exits import Exit


@click.command()
@click.argument("old")
@click.argument("new")
@json_option
def diff(old: str, new: str, as_json: bool) -> int:
    """Compare two versions of a plugin: folders, or their plugin.toml files. Nothing of them is run.

    Powers, capabilities, reads and files first, since these are the admin's to grant; then hooks, settings
    and suggested limits. Exit status 0: the new version wants nothing that the old one did not; 1: it does.
    """
    before, after = _manifest(old), _manifest(new)
    found = difference(before.manifest, after.manifest)
    if as_json:
        print_json(_data(before, after, found))
    else:
        _show(before, after, found)
    return Exit.FAILED if found.more else Exit.OK


def _manifest(where: str) -> PluginFolder:
    path = Path(where)
    if "/" not in where and not path.exists() and (PLUGINS / where / FILE_NAME).is_file():
        path = PLUGINS / where
    alone = path.is_file()
    if not alone and not (path / FILE_NAME).is_file():
        raise CommandFailed(
            f"there is no {path / FILE_NAME}",
            hint="name a plugin's folder or its plugin.toml",
            status=Exit.USAGE,
        )
    problems = Problems()
    found = read_manifest(path.absolute(), read_toml, problems, alone=alone)
    problems.raise_if_any()
    assert found is not None
    return found


def _data(before: PluginFolder, after: PluginFolder, found: Difference) -> dict[str, object]:
    return {
        "old": {"name": before.manifest.name, "version": before.manifest.version},
        "new": {"name": after.manifest.name, "version": after.manifest.version},
        "wants_more": found.more,
        "wants": [
            {**dataclasses.asdict(want), "when": dict(want.when), "text": want.text} for want in found.wants
        ],
        "hooks": list(found.hooks),
        "requires": list(found.requires),
        "no_longer_wants": list(found.dropped),
        "settings": list(found.settings),
        "limits": list(found.limits),
        "python": found.python,
    }


def _show(before: PluginFolder, after: PluginFolder, found: Difference) -> None:
    old, new = before.manifest, after.manifest
    tell(f"{old.name} {old.version} -> {new.name} {new.version}")
    newly = [*map(_told, found.wants)]
    newly += [f"is asked at {hook}" for hook in found.hooks]
    newly += [f"imports {text}" for text in found.requires]
    _section("it newly", newly, mark="+", color="red")
    _section("no longer", found.dropped, mark="-", color="green")
    _section("settings", found.settings)
    _section("limits", [*found.limits, *([found.python] if found.python else [])])
    if not found.more:
        tell("It wants nothing that it did not want before.")


def _told(want: Want) -> str:
    return f'{want.text} (its reason: "{want.reason}")'


def _section(title: str, rows: tuple[str, ...] | list[str], *, mark: str = "~", color: str = "") -> None:
    if rows:
        tell()
        tell(f"{title}:")
    for row in rows:
        tell(f"  {mark} {row}", fg=color)
