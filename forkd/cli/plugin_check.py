"""forkd plugin check: is a plugin's folder right? For its author, and for CI."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import click
import msgspec

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say, tell, tell_lines
from forkd.cli.options import json_option, print_json
from forkd.cli.plugin_kit import meanwhile, plugin_options, run
from forkd.config.differences import wants
from forkd.config.load import read_toml
from forkd.config.manifest import PluginFolder, read_manifest
from forkd.config.problems import ConfigError, Problems, display_path
from forkd.exits import Exit
from forkd.kit.configured import Given, Unusable, configured, find
from forkd.kit.stage import NotStarted, Stage
from forkd.kit.trial import refused_in_loading
from forkd.kit.uses import Use, unused, unwanted, uses
from forkd.master.plugin_files import Judge, digest, examine_folder


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One line of the answer. A note does not change the exit status."""

    level: Literal["problem", "note"]
    about: str
    """manifest | files | syntax | code | settings"""
    text: str


@click.command()
@plugin_options
@json_option
def check(
    *, path: str, settings: tuple[str, ...], connect: tuple[str, ...], python: Path | None, as_json: bool
) -> int:
    """Look at the plugin in the folder PATH as forkd would, and say everything that is wrong with it.

    Its manifest, who may write its files, its code against what the manifest wants; then it is loaded in
    a real sandbox, all its wants granted, to see whether plugin_init works and gives the hooks that the
    manifest declares. Exit status 0: nothing is wrong; 1: something is; 78: the manifest cannot be used.
    """
    try:
        folder = find(path)
    except Unusable as error:
        raise CommandFailed(str(error), status=Exit.USAGE) from error
    problems = Problems()
    plugin = read_manifest(folder, read_toml, problems)
    problems.raise_if_any()
    assert plugin is not None
    found = [*_files(folder), *_code(plugin)]
    if not any(one.about == "syntax" for one in found):
        found += _loaded(plugin, settings, connect, python)
    wrong = any(one.level == "problem" for one in found)
    manifest = plugin.manifest
    if as_json:
        print_json(
            {
                "ok": not wrong,
                "plugin": manifest.name,
                "version": manifest.version,
                "folder": str(folder),
                "sha256": digest(folder),
                "found": [dataclasses.asdict(one) for one in found],
            }
        )
        return Exit.FAILED if wrong else Exit.OK
    for one in found:
        if one.level == "problem":
            tell_lines(f"problem: {one.about}: {one.text}", fg="red")
        else:
            say(f"note: {one.about}: {one.text}")
    if not wrong:
        hooks = ", ".join(manifest.hooks)
        tell(f"{display_path(folder)}: fine; {manifest.name} {manifest.version} ({hooks})")
    return Exit.FAILED if wrong else Exit.OK


def _files(folder: Path) -> list[Found]:
    return [
        Found("note" if one.note else "problem", "files", one.text)
        for one in examine_folder(folder, Judge.of(None))
    ]


def _code(plugin: PluginFolder) -> list[Found]:
    """Its source against its wants; whatever needs no running."""
    try:
        seen = uses(plugin.folder)
    except SyntaxError as error:
        where = f"{display_path(Path(error.filename or plugin.module))}:{error.lineno}"
        return [Found("problem", "syntax", f"{where}: {error.msg}")]
    wanted = list(wants(plugin.manifest))
    found = [Found("problem", "code", _refused(use)) for use in unwanted(seen, wanted)]
    for want in unused(plugin.folder, wanted):
        text = f"plugin.toml wants {want.name}, and the code shows no use of it: a want less is a worry less"
        found.append(Found("note", "manifest", text))
    return found


def _refused(use: Use) -> str:
    table = "powers" if use.kind == "power" else "capabilities"
    what = f"{use.call.removesuffix('()')}({use.item!r})" if use.item else use.call
    wanted = f"{use.name} of {use.item!r}" if use.item else use.name
    return f"{use.where}: {what} will be refused: [wants.{table}] in plugin.toml does not want {wanted}"


def _loaded(
    plugin: PluginFolder, settings: tuple[str, ...], connect: tuple[str, ...], python: Path | None
) -> list[Found]:
    """What loading it in a sandbox shows."""
    given = {text.partition("=")[0] for text in settings}
    must = [name for name, one in plugin.manifest.settings.items() if one.default is msgspec.UNSET]
    if missing := [name for name in must if name not in given]:
        options = " ".join(f"--settings {name}=…" for name in missing)
        return [Found("note", "settings", f"it was not loaded: {options} must be given for that")]
    try:
        with configured(plugin.folder, settings=settings, targets=connect, python=python) as ready:
            stage = Stage(ready.plugin, ready.config, data_dir=ready.data_dir)
            try:
                run(_start(stage))
            except NotStarted as error:
                return [_not_loaded(error, ready, settings)]
            return [Found("note", "code", note) for note in stage.notes]
    except Unusable as error:
        raise CommandFailed(str(error), status=Exit.USAGE) from error
    except ConfigError as error:
        return [
            Found("problem", "settings", f"{one.rule} ({one.table} {one.key} = {one.value})")
            for one in error.problems
        ]


def _not_loaded(error: NotStarted, ready: Given, settings: tuple[str, ...]) -> Found:
    """Why; where it is the plugin's code, with the system calls that were refused it."""
    if error.phase == "settings":
        if not settings:
            text = f"plugin_init refuses its defaults: {error} (give it others by --settings)"
            return Found("note", "settings", text)
        return Found("problem", "settings", f"plugin_init refuses its settings: {error}")
    if error.phase == "load":
        error.refused = run(refused_in_loading(ready))
    return Found("problem", "code", "\n".join([str(error), *meanwhile(error)]))


async def _start(stage: Stage) -> None:
    async with stage:
        pass
