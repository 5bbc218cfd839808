"""Which plugins are switched on, and does the admin allow what they want?

One file plugins.d/NN-name.toml per plugin. Manifest and entry are brought together here: every want
must be granted in so many words, or nothing starts; a plugin that was updated and wants more is
noticed by this, not trusted. Nothing a manifest says widens what the admin wrote or the defaults:

    powers, reads   what is wanted, when the entry grants it
    files           what the entry grants
    limits          the entry's; else the manifest's where it is stricter than the default; else the default

grants.py asks the questions about one plugin, groups.py brings together those that share a sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from forkd.config.grants import Around, Joining
from forkd.config.groups import merged
from forkd.config.later import Document
from forkd.config.manifest import PLUGIN_NAME, ReadToml, read_manifest
from forkd.config.problems import Problems, Source, display_path, toml_value
from forkd.config.reader import Reader, nearest
from forkd.config.schema import HOOKS, Entry, Member, PluginConfig
from forkd.config.stock import PLUGINS, stock_plugins

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
        if plugin.name in by_name:
            rule = f"{by_name[plugin.name]} has switched on a plugin of this name already"
            problems.add(source, ("plugin",), rule, value=raw["plugin"])
        elif {"headers", "body"} & set(plugin.reads) and not around.config.sandbox.message_copies:
            rule = "this plugin reads messages, and sandbox.message_copies allows no copies of them"
            problems.add(source, ("plugin",), rule, value=raw["plugin"])
        by_name.setdefault(plugin.name, plugin.source)
        plugins.append((source, plugin))
    plugins.sort(key=lambda one: (one[1].order, one[1].source))
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
    if entry.group and not PLUGIN_NAME.fullmatch(entry.group):
        rule = "a group's name is a small letter, then small letters, digits, - and _; 32 at most"
        reader.bad(("group",), rule, value=entry.group)
    folder = _find(reader, entry.plugin)
    plugin = read_manifest(folder, read_toml, problems) if folder else None
    if plugin is None:
        return None
    one = Joining(around, reader, entry, plugin, notes)
    settings = one.settings()
    wants = one.wants(settings)
    powers = one.powers(wants)
    reads = one.reads(wants)
    one.files(settings)
    limits = one.limits(frozenset(raw["limits"]) if isinstance(raw.get("limits"), dict) else frozenset())
    one.failure_policy(wants)
    scope = one.scope()
    if len(problems) > before:
        return None
    manifest = plugin.manifest
    member = Member(
        name=manifest.name,
        version=manifest.version,
        folder=plugin.folder,
        module=plugin.module,
        settings=settings,
        hooks=tuple(hook for hook in HOOKS if hook in manifest.hooks),
        secrets=tuple(name for name, setting in manifest.settings.items() if setting.secret),
    )
    return PluginConfig(
        name=member.name,
        version=member.version,
        folder=member.folder,
        module=member.module,
        order=order,
        hooks=member.hooks,
        settings=settings,
        powers=powers,
        reads=reads,
        files=entry.grants.files if manifest.wants.files else (),
        limits=limits,
        on_failure=entry.on_failure,
        trusted=entry.trusted,
        source=display_path(source.path),
        group=entry.group,
        scope=scope,
        members=(member,),
    )


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


def _find(reader: Reader, wanted: str) -> Path | None:
    """The plugin's folder: a path when it has a slash in it, else the name of a stock plugin."""
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
