"""Which plugins are there, for `plugin list` and `plugin show`? Those in entries, and those that could be."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from forkd.cli.control import control_socket, request
from forkd.cli.failure import CommandFailed
from forkd.config.installed import environment, packages
from forkd.config.load import LoadedConfig, read_toml
from forkd.config.manifest import FILE_NAME, PluginFolder, read_manifest
from forkd.config.problems import ConfigError, Problems
from forkd.config.schema import Member, PluginConfig
from forkd.config.stock import PLUGINS, stock_plugins


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """A plugin. `source`: stock | package | folder, or the kind of one without a folder of its own; `entry`:
    the file that names it."""

    name: str
    version: str
    folder: Path
    source: str
    description: str = ""
    entry: Path | None = None
    plugin: PluginConfig | None = None
    """What it is in force as: itself, or its group."""
    member: Member | None = None
    unusable: str = ""
    """What is wrong with it, of one that is off."""


def manifest_of(folder: Path) -> PluginFolder:
    """What its author says. Raises ConfigError."""
    problems = Problems()
    found = read_manifest(folder, read_toml, problems)
    problems.raise_if_any()
    assert found is not None
    return found


def known(loaded: LoadedConfig) -> list[Known]:
    """Those that are on, in their order; then those that are off, by name."""
    on = [
        _bare(plugin, member)
        if plugin.kind != "python"
        else _named(member.folder, plugin=plugin, member=member)
        for plugin in loaded.plugins
        for member in plugin.members
    ]
    off: dict[Path, Known] = {}
    for entry, folder, source in _switched_off(loaded):
        off.setdefault(folder, _off(folder, folder.name, entry=entry, source=source))
    for name in stock_plugins():
        off.setdefault(PLUGINS / name, _off(PLUGINS / name, name))
    for package in packages(environment(None)):
        if (package.folder / FILE_NAME).is_file():
            off.setdefault(package.folder, _off(package.folder, package.name, source="package"))
    there = {one.folder for one in on}
    return [*on, *sorted((one for one in off.values() if one.folder not in there), key=lambda one: one.name)]


def find(name: str, loaded: LoadedConfig) -> Known:
    """The plugin of that name, or in that folder. Raises CommandFailed."""
    everything = known(loaded)
    folder = Path(name).absolute()
    if (folder / FILE_NAME).is_file():
        return next((one for one in everything if one.folder == folder), None) or _named(folder)
    for one in everything:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in everything)
    raise CommandFailed(f"there is no plugin {name}", hint=f"there is {names}; or name its folder")


def zygotes(loaded: LoadedConfig) -> dict[str, dict[str, Any]]:
    """Plugin or group -> its zygote as the running daemon has it; empty: none runs.

    With failures by cause since forkd was started, and how many workers have its breaker open.
    """
    data_dir = loaded.config.server.data_dir
    if not control_socket(data_dir).exists():
        return {}
    try:
        status = request(data_dir, "status")
    except CommandFailed:
        return {}
    processes = status.get("processes", ())
    found = {
        one["name"]: dict(one, failures={}, breaker_open=0)
        for one in processes
        if one.get("role") == "zygote"
    }
    for counted in (status.get("ended", {}), *(process.get("counters", {}) for process in processes)):
        for counter, count in counted.items():
            # plugin.NAME.failed.CAUSE (forkd/worker/failures.py)
            name, _, cause = counter.removeprefix("plugin.").partition(".failed.")
            if cause and name in found and count:
                failures = found[name]["failures"]
                failures[cause] = failures.get(cause, 0) + count
    for process in processes:
        for name, zygote in found.items():
            zygote["breaker_open"] += f"breaker.{name}" in process.get("info", {})
    return found


def _named(
    folder: Path,
    *,
    source: str = "",
    entry: Path | None = None,
    plugin: PluginConfig | None = None,
    member: Member | None = None,
) -> Known:
    manifest = manifest_of(folder).manifest
    if not source:
        source = "stock" if folder.parent == PLUGINS else "folder"
        if any(folder.is_relative_to(place) for place in (plugin.libraries if plugin else ())):
            source = "package"
    return Known(
        name=manifest.name,
        version=manifest.version,
        folder=folder,
        source=source,
        description=manifest.description,
        entry=member.entry if member else entry,
        plugin=plugin,
        member=member,
    )


def _bare(plugin: PluginConfig, member: Member) -> Known:
    """One that has no manifest: compiled, or a program."""
    return Known(
        name=member.name,
        version="",
        folder=member.folder,
        source=plugin.kind,
        description=", ".join(file.name for file in plugin.code),
        entry=member.entry,
        plugin=plugin,
        member=member,
    )


def _off(folder: Path, name: str, *, source: str = "", entry: Path | None = None) -> Known:
    """One that is off may be broken: that is its own affair."""
    try:
        return _named(folder, source=source, entry=entry)
    except ConfigError as error:
        wrong = str(error.problems[0])
    return Known(name=name, version="", folder=folder, source=source or "folder", entry=entry, unusable=wrong)


def _switched_off(loaded: LoadedConfig) -> Iterator[tuple[Path, Path, str]]:
    """Entries with enabled = false, the folders they name, and "package" where they name one."""
    for file in _entries(loaded.config.plugins.dir):
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
        if raw.get("enabled") is not False:
            continue
        if package := raw.get("package", ""):
            python = file.parent / raw["python"] if "python" in raw else None
            folders = [one.folder for one in packages(environment(python)) if one.name == package]
        else:
            wanted = raw.get("plugin", "")
            folders = [(file.parent / wanted).resolve() if "/" in wanted else PLUGINS / wanted]
        for folder in folders:
            if (folder / FILE_NAME).is_file():
                yield file, folder, "package" if package else ""


def _entries(folder: Path | None) -> Iterable[Path]:
    return sorted(folder.glob("[!.]*.toml")) if folder is not None else ()
