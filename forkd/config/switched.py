"""What is a plugin that is switched on, whatever its kind? What its manifest and its entry make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forkd.config.grants import Around, Joining
from forkd.config.manifest import PluginFolder
from forkd.config.problems import display_path
from forkd.config.reader import Reader
from forkd.config.schema import API_VERSION, HOOKS, Entry, Hook, Manifest, Member, PluginConfig, Wants


def without_manifest(
    name: str,
    reader: Reader,
    entry: Entry,
    around: Around,
    notes: list[str],
    *,
    file: Path | None,
    hooks: tuple[Hook, ...],
    wants: Wants | None = None,
) -> Joining:
    """The entry beside what a manifest would say, if there were one.

    file  what is loaded or started; None: that is wrong, and noted.
    """
    manifest = Manifest(
        name=name,
        version="",
        api=API_VERSION,
        module=file.name if file else "",
        hooks=hooks,
        wants=wants or Wants(),
    )
    folder = file.parent if file else reader.source.folder
    return Joining(around, reader, entry, PluginFolder(folder, manifest, reader.source, frozenset()), notes)


def limits_given(raw: dict[str, Any]) -> frozenset[str]:
    """Names of the limits that the entry itself sets."""
    limits = raw.get("limits")
    return frozenset(limits) if isinstance(limits, dict) else frozenset()


def switched_on(one: Joining, settings: dict[str, Any], *, order: int, **own: Any) -> PluginConfig:
    """The plugin, where no problem was found.

    own  what is its kind's to say, as PluginConfig names it: powers, reads, files, limits, scope, and others
    """
    entry, manifest = one.entry, one.plugin.manifest
    member = Member(
        name=manifest.name,
        version=manifest.version,
        folder=one.plugin.folder,
        module=one.plugin.module,
        settings=settings,
        hooks=tuple(hook for hook in HOOKS if hook in manifest.hooks),
        secrets=tuple(name for name, setting in manifest.settings.items() if setting.secret),
        entry=one.reader.source.path,
    )
    return PluginConfig(
        name=member.name,
        version=member.version,
        folder=member.folder,
        module=member.module,
        kind=entry.kind,
        order=order,
        hooks=member.hooks,
        settings=settings,
        on_failure=entry.on_failure,
        mode=entry.mode,
        trusted=entry.trusted,
        uid=entry.uid,
        source=display_path(one.reader.source.path),
        members=(member,),
        **own,
    )
