"""What does a plugin say about itself? plugin.toml, written by its author, read without running it.

name = "block_senders"          # also its module, block_senders.py, unless `module` says otherwise
version = "1.0.0"
api = 1                         # of forkd.sdk
kind = "python"
description = "Refuses listed senders"
hooks = ["mail"]

[settings.list]                 # one table per setting
type = "path"                   # string integer number boolean strings path paths
default = ""                    # none: the admin must give it
description = "A list file"

[wants.powers]                  # everything it wants, each with the reason an admin reads
accept = "known partners skip the later checks"
edit_headers = { names = ["X-Score"], reason = "shows the score" }
[wants.reads]
headers = "the score looks at Subject"
[wants.files]
list = "the listed senders"     # the files that the setting `list` names

[limits]                        # suggested; see entry.py
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.config.later import Document
from forkd.config.lines import KeyPath
from forkd.config.problems import Problems, Source, display_path
from forkd.config.reader import Reader, nearest
from forkd.config.schema import API_VERSION, Manifest, Setting

FILE_NAME: Final = "plugin.toml"
PLUGIN_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""It becomes part of socket names, log fields and process titles."""
HEADER_NAMES: Final = re.compile(r"[!-)+-9;-~]+\*?|\*")
"""RFC 5322 3.6.8 field name; a * at the end stands for any rest."""

ReadToml = Callable[[Path, Problems], tuple[Source, dict[str, Any]]]


@dataclasses.dataclass(frozen=True, slots=True)
class PluginFolder:
    """A plugin as its author made it: a folder whose manifest was read and checked."""

    folder: Path
    manifest: Manifest
    source: Source
    suggested: frozenset[str]
    """Limits that the manifest itself sets."""

    @property
    def module(self) -> str:
        """File name of the plugin's module in its folder."""
        return self.manifest.module or f"{self.manifest.name}.py"


def read_manifest(folder: Path, read_toml: ReadToml, problems: Problems) -> PluginFolder | None:
    """The plugin in `folder`, or None when its manifest has a problem (which is noted)."""
    before = len(problems)
    source, raw = read_toml(folder / FILE_NAME, problems)
    if len(problems) > before:
        return None
    manifest = Reader(source, problems, Document.MANIFEST).table((), raw, Manifest)
    if manifest is None:
        return None
    suggested = raw.get("limits")
    plugin = PluginFolder(
        folder, manifest, source, frozenset(suggested if isinstance(suggested, dict) else ())
    )
    if len(problems) == before:
        _check_identity(plugin, problems)
        _check_wants(plugin, problems)
        _check_settings(plugin, problems)
    return plugin if len(problems) == before else None


def _check_identity(plugin: PluginFolder, problems: Problems) -> None:
    manifest, source = plugin.manifest, plugin.source
    if not PLUGIN_NAME.fullmatch(manifest.name):
        rule = "a plugin's name is a small letter, then small letters, digits, - and _; 32 at most"
        problems.add(source, ("name",), rule, value=manifest.name)
    if manifest.api != API_VERSION:
        rule = f"this forkd has version {API_VERSION} of the plugin API"
        problems.add(source, ("api",), rule, value=manifest.api)
    if not manifest.module and not problems.clean(source, ("name",)):
        return  # the module's name comes from it
    module = plugin.folder / plugin.module
    if Path(plugin.module).name != plugin.module or module.suffix != ".py":
        rule = "this is the name of a .py file in the plugin's folder"
        problems.add(source, ("module",), rule, value=plugin.module)
    elif not module.is_file():
        found = sorted(file.name for file in plugin.folder.glob("*.py"))
        key = "module" if manifest.module else "name"
        rule = f"there is no {display_path(module)}"
        problems.add(source, (key,), rule, value=getattr(manifest, key), hint=nearest(plugin.module, found))


def _check_wants(plugin: PluginFolder, problems: Problems) -> None:
    manifest, source, wants = plugin.manifest, plugin.source, plugin.manifest.wants
    if wants.powers.edit_headers is not None:
        path: KeyPath = ("wants", "powers", "edit_headers")
        for name in wants.powers.edit_headers.names:
            if not HEADER_NAMES.fullmatch(name):
                problems.add(source, path, "this is the name of a header field", value=name)
        if "message" not in manifest.hooks:
            problems.add(source, path, "headers are edited by the hook message, which is not in hooks")
    if wants.powers.discard and not {"rcpt", "data", "message"} & set(manifest.hooks):
        rule = "only rcpt, data and message can discard, and none of them is in hooks"
        problems.add(source, ("wants", "powers", "discard"), rule)
    for part in ("headers", "body"):
        if getattr(wants.reads, part) and "message" not in manifest.hooks:
            rule = f"only the hook message sees the {part}, and it is not in hooks"
            problems.add(source, ("wants", "reads", part), rule)
    for name in wants.files:
        setting = manifest.settings.get(name)
        if setting is None:
            rule = "files are named by a setting, and there is none of this name"
            problems.add(source, ("wants", "files", name), rule, hint=nearest(name, manifest.settings))
        elif setting.type not in ("path", "paths"):
            rule = f"the setting {name} must be of type path or paths to name files"
            problems.add(source, ("wants", "files", name), rule)


def _check_settings(plugin: PluginFolder, problems: Problems) -> None:
    for name, setting in plugin.manifest.settings.items():
        path: KeyPath = ("settings", name)
        if setting.type in ("path", "paths") and name not in plugin.manifest.wants.files:
            rule = "a path can only be read when it is wanted"
            hint = f'say why: {name} = "..." below [wants.files]'
            problems.add(plugin.source, path, rule, hint=hint)
        if setting.default is not msgspec.UNSET:
            reader = Reader(plugin.source, problems, Document.MANIFEST)
            read_setting(reader, (*path, "default"), setting, setting.default)


def read_setting(reader: Reader, path: KeyPath, setting: Setting, raw: Any) -> Any:
    """A setting's value as the plugin gets it, JSON-able; None when it does not fit, which is noted.

    Paths become absolute, from the folder of the file they stand in: the entry's for the admin's
    values, the plugin's own for a default. An empty path stays empty: none.
    """
    before = len(reader.problems)
    value: Any = reader.value(path, raw, _TYPES[setting.type])
    if len(reader.problems) > before:
        return None
    if setting.type == "path":
        return _absolute(reader, value)
    if setting.type == "paths":
        return [_absolute(reader, item) for item in value]
    return list(value) if setting.type == "strings" else value


def _absolute(reader: Reader, value: str) -> str:
    return os.fspath(reader.absolute(value)) if value else ""


_TYPES: Final[dict[str, Any]] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "strings": tuple[str, ...],
    "path": str,
    "paths": tuple[str, ...],
}
