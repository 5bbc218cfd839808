"""forkd config: is this configuration right, and what does it say? import-qmail and where stand beside it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.import_qmail import import_qmail
from forkd.cli.lines import say, tell
from forkd.cli.options import file_argument, json_option, print_document, print_json
from forkd.cli.where import where
from forkd.config.load import LoadedConfig, load
from forkd.config.problems import display_path
from forkd.config.show import as_data, as_toml
from forkd.exits import Exit
from forkd.master import plugin_files


@click.group()
def config() -> None:
    """Check a configuration; show what is in force; tell where mail goes; make one from qmail's files."""


config.add_command(import_qmail)
config.add_command(where)


@config.command()
@file_argument
@json_option
def check(config: Path | None, as_json: bool) -> int:
    """Read FILE and its plugins.d as `forkd run` would; say everything that is wrong with them.

    Exit status 0: nothing is wrong; 78: it would not start. Nothing is started, opened or written: rules and
    lists that only a plugin itself understands are looked at by `forkd run`.
    """
    loaded = load(config)
    notes = [*loaded.notes, *_files(loaded), *_left_out(loaded)]
    if as_json:
        print_json(
            {
                "ok": True,
                "file": str(loaded.file) if loaded.file else None,
                "plugins": [plugin.name for plugin in loaded.plugins],
                "notes": notes,
                "problems": [],
            }
        )
        return 0
    for note in notes:
        say(f"note: {note}")
    tell(f"{display_path(loaded.file)}: fine; {_summary(loaded)}")
    return 0


@config.command()
@file_argument
@click.option("--effective", is_flag=True, help="Everything in force: defaults and plugins too.")
@json_option
def show(config: Path | None, effective: bool, as_json: bool) -> int:
    """Print, as TOML, what FILE sets, or with --effective everything that is in force.

    Paths are absolute, and what depends on the machine (the host name) is filled in.
    """
    loaded = load(config)
    if as_json:
        print_json(as_data(loaded, everything=effective))
    else:
        print_document(as_toml(loaded, everything=effective))
    return 0


def _files(loaded: LoadedConfig) -> list[str]:
    """Notes on who else could write plugins' files. Raises CommandFailed for what `forkd run` refuses."""
    notes = []
    # Where root does not start it, it may be another user's service: that of whose configuration it is.
    service = {loaded.file.stat().st_uid} if loaded.file is not None and os.geteuid() != 0 else set()
    for index, plugin in enumerate(loaded.plugins):
        uid = plugin.uid or loaded.config.sandbox.uid_base + index if os.geteuid() == 0 else None
        for found in plugin_files.examine(plugin, uid, also=service):
            if not found.note:
                raise CommandFailed(f"plugin {plugin.name!r}: {found.text}", status=Exit.CONFIG)
            notes.append(f"plugin {plugin.name}: {found.text}")
        notes += plugin_files.examine_entries(plugin)
    return notes


def _left_out(loaded: LoadedConfig) -> list[str]:
    """What was not looked at: plugins are not run, and some of their settings only they understand."""
    members = [member for plugin in loaded.plugins for member in plugin.members]
    names = ", ".join(member.name for member in members if member.settings)
    told = "what only the plugin itself can check of its settings (rules, lists) is looked at by `forkd run`"
    return [f"{names}: {told}"] if names else []


def _summary(loaded: LoadedConfig) -> str:
    config = loaded.config
    parts = [
        _count(len(config.listener), "listener"),
        _count(len(config.domain), "domain"),
        *([_count(len(loaded.aliases), "alias", "aliases")] if config.aliases.files else ()),
        _count(len(loaded.plugins), "plugin"),
    ]
    names = ", ".join(plugin.name for plugin in loaded.plugins)
    return ", ".join(parts) + (f" ({names})" if names else "")


def _count(number: int, noun: str, several: str = "") -> str:
    return f"{number} {noun if number == 1 else several or noun + 's'}"
