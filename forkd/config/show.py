"""What is in force, written so that it can be read again: as TOML, or as plain data for JSON.

Settings that a plugin's manifest calls secret are not shown; nothing else here is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.config.load import LoadedConfig
from forkd.config.problems import display_path, table_name, toml_key, toml_value
from forkd.config.schema import Capabilities, Member, PluginConfig, Table
from forkd.config.units import Bytes, Seconds, format_duration, format_size

HIDDEN: Final = "(hidden)"
"""In the place of a secret."""


def as_data(loaded: LoadedConfig, *, everything: bool = True) -> dict[str, Any]:
    """Nested dicts, lists, strings, numbers; durations, sizes and paths as they are written in TOML.

    everything   False: only what differs from the defaults, and no plugins
    """
    data = _table(loaded.config, everything=everything)
    if everything and loaded.plugins:
        data["plugin"] = {plugin.name: _plugin(plugin) for plugin in loaded.plugins}
    return data


def as_toml(loaded: LoadedConfig, *, everything: bool = True) -> str:
    """The same as valid TOML, headed by comments that say where it comes from."""
    rows = [f"# from {display_path(loaded.file)}"]
    rows += [f"# note: {note}" for note in loaded.notes]
    if everything and loaded.plugins:
        rows.append("# [plugin.NAME] shows what plugins.d switched on; it is not read from forkd.toml")
    data = as_data(loaded, everything=everything)
    return "\n".join([*rows, *_rows((), data)]) + "\n"


def _table(table: Table, *, everything: bool) -> dict[str, Any]:
    config = table.__struct_config__
    data: dict[str, Any] = {config.tag_field: config.tag} if config.tag_field else {}
    for field in msgspec.structs.fields(table):
        value = getattr(table, field.name)
        if isinstance(value, Table):
            inner = _table(value, everything=everything)
            if inner or everything:
                data[field.encode_name] = inner
        elif isinstance(value, dict):
            tables = {
                key: _table(item, everything=everything) if isinstance(item, Table) else item
                for key, item in value.items()
            }
            if tables:
                data[field.encode_name] = tables
        elif everything or value != field.default:
            data[field.encode_name] = "" if value is None else _plain(value)
    return data


_OF_KINDS: Final = {
    field.name: {} if field.name == "environment" else field.default
    for field in msgspec.structs.fields(PluginConfig)
    if field.name
    in ("kind", "code", "environment", "argv", "unchanged_if_empty", "symbol", "refusal", "data_at")
}
"""What other kinds have."""


def _plugin(plugin: PluginConfig) -> dict[str, Any]:
    """A plugin, or a group with a table for each member."""
    data: dict[str, Any] = {}
    for field in msgspec.structs.fields(plugin):
        value = getattr(plugin, field.name)
        if field.name in ("name", "members", "settings"):
            continue  # the table's own name; shown below
        if field.name in _OF_KINDS and value == _OF_KINDS[field.name]:
            continue  # a Python plugin has none
        if plugin.group and field.name in ("version", "folder", "module"):
            continue  # each member's
        data[field.name] = _field(value)
    if plugin.group:
        data["member"] = {member.name: _member(member) for member in plugin.members}
    else:
        data["settings"] = _settings(plugin.members[0])
    return data


def _field(value: Any) -> Any:
    if isinstance(value, Table):
        return _table(value, everything=True)
    if isinstance(value, Capabilities):
        return _plain(msgspec.structs.asdict(value))
    return "" if value is None else _plain(value)


def _member(member: Member) -> dict[str, Any]:
    return {
        "version": member.version,
        "folder": str(member.folder),
        "module": member.module,
        "hooks": list(member.hooks),
        "settings": _settings(member),
    }


def _settings(member: Member) -> dict[str, Any]:
    return {
        name: HIDDEN if name in member.secrets and value else _plain(value)
        for name, value in member.settings.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Seconds):
        return format_duration(value)
    if isinstance(value, Bytes):
        return format_size(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _rows(path: tuple[str, ...], table: dict[str, Any]) -> Iterator[str]:
    """A table's own keys before its sub-tables, as TOML wants it."""
    own = {key: value for key, value in table.items() if not isinstance(value, dict)}
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    if path and (own or not inner):
        yield ""
        yield table_name(path)
    for key, value in own.items():
        yield f"{toml_key(key)} = {toml_value(value)}"
    for key, value in inner.items():
        yield from _rows((*path, key), value)
