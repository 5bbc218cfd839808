"""Which plugins are switched on, and does the admin allow what they want?

One file plugins.d/NN-name.toml per plugin. Manifest and entry are brought together here: every want
must be granted in so many words, or nothing starts; a plugin that was updated and wants more is
noticed by this, not trusted. Nothing a manifest says widens what the admin wrote or the defaults:

    powers, reads   what is wanted, when the entry grants it
    files           what the entry grants
    limits          the entry's; else the manifest's where it is stricter than the default; else the default
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.config.later import Document
from forkd.config.lines import KeyPath
from forkd.config.manifest import HEADER_NAMES, PluginFolder, ReadToml, read_manifest, read_setting
from forkd.config.problems import NOT_GIVEN, Problems, Source, display_path, toml_value
from forkd.config.reader import Reader, nearest
from forkd.config.schema import Entry, PluginConfig, PluginLimits, Powers
from forkd.config.stock import PLUGINS, stock_plugins
from forkd.config.units import Bytes, Seconds, format_duration, format_size

SANDBOXES_PER_CPU: Final = 64
"""What `sandboxes = 0` means; a suggestion below it is stricter on any machine."""

_ORDER = re.compile(r"(\d{1,6})-")


def read_entries(
    files: Iterable[tuple[Source, dict[str, Any]]],
    read_toml: ReadToml,
    problems: Problems,
    notes: list[str],
    *,
    copies: Bytes,
) -> tuple[PluginConfig, ...]:
    """The plugins that are on, in the order they are asked. `copies` is sandbox.message_copies."""
    plugins: list[PluginConfig] = []
    by_name: dict[str, str] = {}
    for source, raw in files:
        plugin = _read_entry(source, raw, read_toml, problems, notes)
        if plugin is None:
            continue
        if plugin.name in by_name:
            rule = f"{by_name[plugin.name]} has switched on a plugin of this name already"
            problems.add(source, ("plugin",), rule, value=raw["plugin"])
        elif {"headers", "body"} & set(plugin.reads) and not copies:
            rule = "this plugin reads messages, and sandbox.message_copies allows no copies of them"
            problems.add(source, ("plugin",), rule, value=raw["plugin"])
        by_name.setdefault(plugin.name, plugin.source)
        plugins.append(plugin)
    return tuple(sorted(plugins, key=lambda plugin: (plugin.order, plugin.source)))


def _read_entry(
    source: Source, raw: dict[str, Any], read_toml: ReadToml, problems: Problems, notes: list[str]
) -> PluginConfig | None:
    before = len(problems)
    reader = Reader(source, problems, Document.ENTRY)
    entry = reader.table((), raw, Entry)
    order = _order(reader, entry)
    if entry is None or not entry.enabled:
        return None
    folder = _find(reader, entry.plugin)
    plugin = read_manifest(folder, read_toml, problems) if folder else None
    if plugin is None:
        return None
    one = _Joining(reader, entry, plugin, notes)
    settings = one.settings()
    one.powers()
    one.reads()
    one.files(settings)
    limits = one.limits(frozenset(raw["limits"]) if isinstance(raw.get("limits"), dict) else frozenset())
    one.failure_policy()
    if len(problems) > before:
        return None
    wants = plugin.manifest.wants
    return PluginConfig(
        name=plugin.manifest.name,
        version=plugin.manifest.version,
        folder=plugin.folder,
        module=plugin.module,
        order=order,
        hooks=plugin.manifest.hooks,
        settings=settings,
        powers=Powers(
            accept=bool(wants.powers.accept),
            discard=bool(wants.powers.discard),
            edit_headers=wants.powers.edit_headers.names if wants.powers.edit_headers else (),
        ),
        reads=tuple(part for part in ("envelope", "headers", "body") if getattr(wants.reads, part)),
        files=entry.grants.files if wants.files else (),
        limits=limits,
        on_failure=entry.on_failure,
        trusted=entry.trusted,
        source=display_path(source.path),
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Joining:
    """One entry beside one manifest; each method is one question about the two."""

    reader: Reader
    entry: Entry
    plugin: PluginFolder
    notes: list[str]

    def settings(self) -> dict[str, Any]:
        """The entry's settings over the manifest's defaults, each of its declared type."""
        declared = self.plugin.manifest.settings
        self.reader.unknown_keys(("settings",), self.entry.settings, list(declared))
        by_author = Reader(self.plugin.source, self.reader.problems, Document.MANIFEST)
        values: dict[str, Any] = {}
        for name, setting in declared.items():
            path: KeyPath = ("settings", name)
            if name in self.entry.settings:
                values[name] = read_setting(self.reader, path, setting, self.entry.settings[name])
            elif setting.default is not msgspec.UNSET:
                values[name] = read_setting(by_author, path, setting, setting.default)
            else:
                said = f": {setting.description}" if setting.description else ""
                self.reader.bad(path, f"this setting must be given ({setting.type}){said}")
        return values

    def powers(self) -> None:
        """Every wanted power is granted; a grant beyond that is said and does nothing."""
        wanted, granted = self.plugin.manifest.wants.powers, self.entry.grants
        for power in ("accept", "discard"):
            reason = getattr(wanted, power)
            if reason and not getattr(granted, power):
                self._not_granted(power, f"the power {power}", f"{power} = true", reason)
            elif getattr(granted, power) and not reason:
                self._not_wanted(power)
        for name in granted.edit_headers:
            if not HEADER_NAMES.fullmatch(name):
                rule = "this is the name of a header field, or its beginning and a *"
                self.reader.bad(("grants", "edit_headers"), rule, value=name)
        if wanted.edit_headers is None:
            if granted.edit_headers:
                self._not_wanted("edit_headers")
            return
        names = wanted.edit_headers.names
        missing = [name for name in names if not any(covers(grant, name) for grant in granted.edit_headers)]
        if missing:
            whole = [*granted.edit_headers, *missing]
            line = f"edit_headers = {toml_value(whole)}"
            self._not_granted(
                "edit_headers", f"to add the header {', '.join(missing)}", line, wanted.edit_headers.reason
            )

    def reads(self) -> None:
        """Every part of the mail it wants to read is granted."""
        wanted, granted = self.plugin.manifest.wants.reads, self.entry.grants.reads
        parts = {part: getattr(wanted, part) for part in ("envelope", "headers", "body")}
        missing = [part for part, reason in parts.items() if reason and part not in granted]
        whole = [part for part in parts if part in granted or part in missing]
        for part in missing:
            self._not_granted("reads", f"to read the {part}", f"reads = {toml_value(whole)}", parts[part])
        for part in granted:
            if not parts[part]:
                self._not_wanted(f"reads {part}")

    def files(self, settings: dict[str, Any]) -> None:
        """Files that settings name can be read, and are there."""
        wanted, granted = self.plugin.manifest.wants.files, self.entry.grants.files
        for file in granted:
            if not file.exists():
                self.reader.bad(("grants", "files"), "there is no such file", value=file)
        for name, reason in wanted.items():
            value = settings.get(name)
            for text in [value] if isinstance(value, str) else value or []:
                file = Path(text)
                inside = [*granted, self.plugin.folder]
                if text and not any(file == root or root in file.parents for root in inside):
                    line = f"files = {toml_value([display_path(f) for f in (*granted, file)])}"
                    self._not_granted("files", f"to read {display_path(file)}", line, reason)
                elif text and not file.exists():
                    self.reader.bad(("settings", name), "there is no such file", value=file)
        if granted and not wanted:
            self._not_wanted("files")

    def limits(self, given: frozenset[str]) -> PluginLimits:
        """The limits in force; a suggestion that would loosen one is said and does nothing."""
        default, suggested, manifest = PluginLimits(), self.plugin.suggested, self.plugin.manifest
        values: dict[str, Any] = {}
        for field in msgspec.structs.fields(PluginLimits):
            name = field.name
            if name in given:
                values[name] = getattr(self.entry.limits, name)
            elif name in suggested:
                value = getattr(manifest.limits, name)
                if _stricter(name, value, getattr(default, name)):
                    values[name] = value
                else:
                    self.notes.append(
                        f"plugin {manifest.name} suggests {name} = {written(value)}; the default, "
                        f"{written(getattr(default, name))}, stays in force unless its [limits] say so"
                    )
        return PluginLimits(**values)

    def failure_policy(self) -> None:
        """A message whose edit is missing is not the message the admin asked for."""
        if self.entry.on_failure == "skip" and self.plugin.manifest.wants.powers.edit_headers is not None:
            rule = "a plugin that edits messages cannot be skipped: mail would go on without its edit"
            self.reader.bad(("on_failure",), rule, value="skip", hint='write "disconnect", "defer" or "deny"')

    def _not_granted(self, key: str, what: str, line: str, reason: str) -> None:
        name = self.plugin.manifest.name
        rule = f'the plugin {name} wants {what}, which is not granted; its reason: "{reason}"'
        self.reader.bad(
            ("grants", key), rule, value=NOT_GIVEN, hint=f"write {line} below [grants], or switch it off"
        )

    def _not_wanted(self, what: str) -> None:
        source = display_path(self.reader.source.path)
        self.notes.append(f"{source}: grants {what}, which {self.plugin.manifest.name} does not want")


def covers(granted: str, wanted: str) -> bool:
    """Does a granted header name, or its beginning with a *, allow a wanted one? Case does not count."""
    granted, wanted = granted.lower(), wanted.lower()
    if granted.endswith("*"):
        return wanted.startswith(granted[:-1])
    return granted == wanted


def written(value: Any) -> str:
    """A limit as it is written in TOML, without quotes."""
    if isinstance(value, Seconds):
        return format_duration(value)
    return format_size(value) if isinstance(value, Bytes) else str(value)


def _stricter(name: str, value: float, default: float) -> bool:
    if name == "sandboxes":
        return 0 < value <= SANDBOXES_PER_CPU
    return value <= default
