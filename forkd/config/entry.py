"""Which plugins are switched on, and does the admin allow what they want?

One file plugins.d/NN-name.toml per plugin. Manifest and entry are brought together here: every want
must be granted in so many words, or nothing starts; a plugin that was updated and wants more is
noticed by this, not trusted. Nothing a manifest says widens what the admin wrote or the defaults:

    powers, reads   what is wanted, when the entry grants it
    capabilities    likewise; where connections go, the entry says
    files           what the entry grants
    limits          the entry's; else the manifest's where it is stricter than the default; else the default

grants.py asks the questions about one plugin, groups.py brings together those that share a sandbox.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from forkd.config.capability_grants import capabilities
from forkd.config.grants import Around, Joining
from forkd.config.groups import merged
from forkd.config.indimail import read_compiled
from forkd.config.installed import GROUP, Environment, environment, looks_like_python, packages
from forkd.config.kinds import check_keys
from forkd.config.later import Document
from forkd.config.limits import limits_in_force
from forkd.config.manifest import PLUGIN_NAME, ReadToml, read_manifest
from forkd.config.plugin_checks import check_uids
from forkd.config.problems import Problems, Source, display_path, toml_value
from forkd.config.programs import read_program
from forkd.config.reader import Reader, nearest
from forkd.config.requirements import check_installed
from forkd.config.schema import Entry, PluginConfig
from forkd.config.stock import PLUGINS, stock_plugins
from forkd.config.switched import limits_given, switched_on

_ORDER: Final = re.compile(r"(\d{1,6})-")


def read_entries(
    files: Iterable[tuple[Source, dict[str, Any]]],
    around: Around,
    read_toml: ReadToml,
    problems: Problems,
    notes: list[str],
) -> tuple[PluginConfig, ...]:
    """The plugins that are on, in the order they are asked; those of one group are one."""
    plugins: list[tuple[Source, PluginConfig]] = []
    by_name: dict[str, str] = {}
    for source, raw in files:
        plugin = _read_entry(source, raw, around, read_toml, problems, notes=notes)
        if plugin is None:
            continue
        key = next((key for key in ("plugin", "package") if key in raw), "kind")
        if plugin.name in by_name:
            rule = f"{by_name[plugin.name]} has switched on a plugin of this name already"
            problems.add(source, (key,), rule, value=raw[key])
        elif {"headers", "body"} & set(plugin.reads) and not around.config.sandbox.message_copies:
            rule = "this plugin reads messages, and sandbox.message_copies allows no copies of them"
            problems.add(source, (key,), rule, value=raw[key])
        by_name.setdefault(plugin.name, plugin.source)
        plugins.append((source, plugin))
    plugins.sort(key=lambda one: (one[1].order, one[1].source))
    check_uids(plugins, around.config, problems, notes)
    return merged(plugins, problems, notes)


def _read_entry(
    source: Source,
    raw: dict[str, Any],
    around: Around,
    read_toml: ReadToml,
    problems: Problems,
    *,
    notes: list[str],
) -> PluginConfig | None:
    before = len(problems)
    reader = Reader(source, problems, Document.ENTRY)
    entry = reader.table((), raw, Entry)
    order = _order(reader, entry)
    if entry is None or not entry.enabled:
        return None
    if reader.problems.clean(source, ("kind",)) and not check_keys(reader, raw, entry.kind):
        return None
    if entry.kind == "indimail":
        return read_compiled(_name(source), reader, entry, raw, around, order=order, notes=notes)
    if entry.kind == "program":
        return read_program(_name(source), reader, entry, raw, around, order=order, notes=notes)
    if entry.group and not PLUGIN_NAME.fullmatch(entry.group):
        rule = "a group's name is a small letter, then small letters, digits, - and _; 32 at most"
        reader.bad(("group",), rule, value=entry.group)
    there = _interpreter(reader, entry)
    folder = _find(reader, entry, there)
    plugin = read_manifest(folder, read_toml, problems) if folder else None
    if plugin is None:
        return None
    if there is not None:
        key = "python" if entry.python else "package" if entry.package else "plugin"
        check_installed(plugin.manifest, there, problems, source=source, key=(key,))
    one = Joining(around, reader, entry, plugin, notes)
    settings = one.settings()
    wants = one.wants(settings)
    powers = one.powers(wants)
    reads = one.reads(wants)
    allowed = capabilities(one, settings)
    files = one.files(settings)
    one.mode()
    limits = limits_in_force(one, limits_given(raw))
    one.failure_policy(wants)
    scope = one.scope()
    if len(problems) > before or there is None:
        return None
    return switched_on(
        one,
        settings,
        order=order,
        powers=powers,
        reads=reads,
        files=files,
        capabilities=allowed,
        limits=limits,
        scope=scope,
        python=entry.python,
        requires=plugin.manifest.requires,
        libraries=there.folders if entry.python or plugin.manifest.requires else (),
        group=entry.group,
    )


def _name(source: Source) -> str:
    """Of a plugin without a manifest: that of its entry's file, without number and ending."""
    file = source.path.name if source.path else ""
    return _ORDER.sub("", file.removesuffix(".toml"), count=1)


def _order(reader: Reader, entry: Entry | None) -> int:
    if entry is not None and entry.order is not None:
        return entry.order
    file = reader.source.path
    numbered = _ORDER.match(file.name) if file else None
    if numbered is None and entry is not None and reader.problems.clean(reader.source, ("order",)):
        name = file.name if file else "name.toml"
        rule = "nothing says when this plugin is asked"
        reader.bad(("order",), rule, hint=f"set order, or name the file 50-{name}")
    return int(numbered.group(1)) if numbered else 0


def _interpreter(reader: Reader, entry: Entry) -> Environment | None:
    """What its interpreter has; None when there is no such interpreter, which is noted."""
    python = entry.python
    if python is not None and not python.is_file():
        hint = (
            f"python3 -m venv {display_path(python.parent.parent)} makes it"
            if python.parent.name == "bin"
            else ""
        )
        reader.bad(("python",), "there is no such file", value=display_path(python), hint=hint)
        return None
    if python is not None and not os.access(python, os.X_OK):
        reader.bad(("python",), "this is no program that can be executed", value=display_path(python))
        return None
    if python is not None and not looks_like_python(python):
        rule = "nothing says that this is Python: its name does not, and it is in no virtual environment"
        hint = "name a python3, or the bin/python of a virtual environment"
        reader.bad(("python",), rule, value=display_path(python), hint=hint)
        return None
    return environment(python)


def _find(reader: Reader, entry: Entry, there: Environment | None) -> Path | None:
    """The plugin's folder."""
    if entry.plugin and entry.package:
        rule = "this plugin has a folder (plugin) already, and can only be one"
        reader.bad(("package",), rule, value=entry.package, hint="leave one of them out")
    elif entry.plugin:
        return _in_folder(reader, entry.plugin)
    elif entry.package:
        return None if there is None else _in_package(reader, entry.package, there)
    elif reader.problems.clean(reader.source, ("plugin",), ("package",)):
        rule = "this key must be set, or package: which plugin does this file switch on?"
        reader.bad(("plugin",), rule)
    return None


def _in_folder(reader: Reader, wanted: str) -> Path | None:
    """A path when it has a slash in it, else the name of a stock plugin."""
    if "/" in wanted:
        folder = reader.absolute(wanted)
        if (folder / "plugin.toml").is_file():
            return folder
        hint = ""
        if folder.suffix == ".py":
            hint = f"name the plugin's folder: {toml_value(str(Path(wanted).parent))}"
        rule = f"there is no {display_path(folder / 'plugin.toml')}"
    else:
        folder = PLUGINS / wanted
        if wanted not in (".", "..") and (folder / "plugin.toml").is_file():
            return folder
        rule, hint = "no plugin of this name comes with forkd", nearest(wanted, stock_plugins())
        if (reader.source.folder / wanted).is_dir():
            hint = f'a path has a slash in it: write "./{wanted}"'
    reader.bad(("plugin",), rule, value=wanted, hint=hint)
    return None


def _in_package(reader: Reader, wanted: str, there: Environment) -> Path | None:
    """The folder of a plugin that was installed as a Python package; nothing of it is imported here."""
    known = packages(there)
    found = [one for one in known if one.name == wanted]
    where = there.python or "the Python that runs forkd"
    if not found:
        rule = f"no package installed for {where} has an entry point of this name in {GROUP}"
        reader.bad(("package",), rule, value=wanted, hint=nearest(wanted, [one.name for one in known]))
    elif len(found) > 1:
        names = " and ".join(one.distribution for one in found)
        reader.bad(("package",), f"two packages have an entry point of this name: {names}", value=wanted)
    elif not (found[0].folder / "plugin.toml").is_file():
        rule = f"its package {found[0].distribution} has no {display_path(found[0].folder / 'plugin.toml')}"
        reader.bad(("package",), rule, value=wanted)
    else:
        return found[0].folder
    return None
