"""What changed between two configurations, and what of it can be applied while we run? Pure.

Keys are told one by one, as `forkd config show` names them; what a manifest calls secret is told without its
value. A table by name (NAMED), or a plugin, that comes or goes is one of them, with what differs from the
defaults. Where the order of tables in the file means something it is told as a key of its own (ORDERED).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from forkd.config.load import LoadedConfig
from forkd.config.problems import toml_key, toml_value
from forkd.config.schema import PluginConfig
from forkd.config.show import HIDDEN, as_data
from forkd.rpc.messages_reload import Changed

AT_START: Final = {
    "server.data_dir": "everything that is open lies there",
    "server.user": "folders and sockets are given to users at the start",
    "server.queue_user": "folders and sockets are given to users at the start",
    "server.admin_user": "folders and sockets are given to users at the start",
    "server.broker_user": "folders and sockets are given to users at the start",
    "server.launcher_user": "folders and sockets are given to users at the start",
    "sandbox.uid_base": "running plugins have their uids from it",
}
"""Key -> why it stays as it was until forkd starts again."""
LOG: Final = "log.format"
"""Stays as it was where it was, or is to be, `journal`."""

NAMED: Final = ("listener", "certificate", "domain", "route", "transport")
"""Tables of which there are as many as the file has, each with a name."""
ORDERED: Final = ("certificate", "route")
"""Tables of which the first counts: for clients that ask for no name, for mail that two patterns match."""
MOST = 150
"""Keys told of one kind; beyond them their number."""
MAX_VALUE = 120
"""Characters of a value: of a longer one those where it differs."""
KEPT_BEFORE = 20
"""Characters of what is the same before them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """By key, in the order of the file."""

    applied: tuple[Changed, ...]
    needs_restart: tuple[Changed, ...]
    unchanged: int


def pinned(old: LoadedConfig, new: LoadedConfig) -> LoadedConfig:
    """`new`, but what cannot be changed while we run is as in `old`."""
    config = new.config
    for key in (*AT_START, LOG):
        table, _, field = key.partition(".")
        value, wanted = (getattr(getattr(each, table), field) for each in (old.config, config))
        if _stays(key, value, wanted):
            changed = msgspec.structs.replace(getattr(config, table), **{field: value})
            config = msgspec.structs.replace(config, **{table: changed})
    return dataclasses.replace(new, config=config)


def _stays(key: str, old: object, new: object) -> str:
    """Why it stays as it was; empty: it need not. The values are those of the configuration."""
    if key == LOG and "journal" in (old, new):
        return "the log's way to the journal is opened at the start"
    return AT_START.get(key, "")


def changes(old: LoadedConfig, new: LoadedConfig) -> Changes:
    """From the configuration in force to what the files say now (before pinned())."""
    before, after = _keys(old), _keys(new)
    there, here = _tables(old), _tables(new)
    moved = there.keys() ^ here.keys()
    found: list[Changed] = []
    for path in dict.fromkeys([*before, *after]):
        if (table := _key(path[:2])) in moved:
            if not found or found[-1].key != table:  # its keys follow each other
                found.append(_changed(table, there.get(table, ""), here.get(table, "")))
        elif before.get(path) != after.get(path):
            found.append(_changed(_key(path), before.get(path, ""), after.get(path, "")))
    found += _reordered(old, new)
    told = {each.key for each in found}
    known = {plugin.name: plugin for plugin in old.plugins}
    for plugin in new.plugins:
        start = f"plugin.{toml_key(plugin.name)}"
        was = known.get(plugin.name, plugin)
        secrets = [
            Changed(key=key, old=HIDDEN, new=HIDDEN)
            for key in _secrets(was).keys() | _secrets(plugin).keys()
            if key not in told and _secrets(was).get(key) != _secrets(plugin).get(key)
        ]
        found += sorted(secrets, key=lambda each: each.key)
        if was != plugin and not secrets and not any(key.startswith(f"{start}.") for key in told):
            found.append(Changed(key=start))  # what its manifest says
    if dict(old.aliases.table) != dict(new.aliases.table):
        found.append(Changed(key="aliases.files", new=f"{len(new.aliases)} aliases, were {len(old.aliases)}"))
    return Changes(
        applied=_bounded([each for each in found if not each.why]),
        needs_restart=_bounded([each for each in found if each.why]),
        unchanged=sum(before.get(key) == value for key, value in after.items()),
    )


Path = tuple[str, ...]


def _key(path: Path) -> str:
    return ".".join(map(toml_key, path))


def _keys(loaded: LoadedConfig) -> dict[Path, str]:
    return dict(_flat((), as_data(loaded)))


def _flat(path: Path, data: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    for name, value in data.items():
        here = (*path, name)
        if isinstance(value, dict):
            yield from _flat(here, value)
        else:
            yield here, toml_value(value)


def _tables(loaded: LoadedConfig) -> dict[str, str]:
    """Each table by name, and each plugin: what tells it from others."""
    short, whole = as_data(loaded, everything=False), as_data(loaded)
    found = {
        _key((table, name)): toml_value(short.get(table, {}).get(name) or {})
        for table in NAMED
        for name in getattr(loaded.config, table)
    }
    for name, data in whole.get("plugin", {}).items():
        told = {key: data[key] for key in ("version", "source") if key in data}
        found[_key(("plugin", name))] = toml_value(told)
    return found


def _secrets(plugin: PluginConfig) -> dict[str, Any]:
    """Key as `forkd config show` names it -> value, of those whose value is not to be told."""
    start = f"plugin.{toml_key(plugin.name)}"
    found: dict[str, Any] = {}
    for member in plugin.members:
        settings = f"{start}.member.{toml_key(member.name)}.settings" if plugin.group else f"{start}.settings"
        found |= {f"{settings}.{toml_key(name)}": member.settings.get(name) for name in member.secrets}
    return found


def _reordered(old: LoadedConfig, new: LoadedConfig) -> Iterator[Changed]:
    for table in ORDERED:
        before, after = list(getattr(old.config, table)), list(getattr(new.config, table))
        if [name for name in before if name in after] != [name for name in after if name in before]:
            yield _changed(f"{table} (the order)", toml_value(before), toml_value(after))


def _changed(key: str, old: str, new: str) -> Changed:
    if max(len(old), len(new)) > MAX_VALUE:
        pairs = enumerate(zip(old, new, strict=False))
        differ = next((at for at, (one, other) in pairs if one != other), min(len(old), len(new)))
        same = max(0, differ - KEPT_BEFORE)
        old, new = (_cut(value, same) for value in (old, new))
    return Changed(key=key, old=old, new=new, why=_stays(key, old.strip('"'), new.strip('"')))


def _cut(value: str, start: int) -> str:
    """Some of a long value, from there on; empty: it is not set."""
    end = start + MAX_VALUE
    return ("…" if start and value else "") + value[start:end] + ("…" if len(value) > end else "")


def _bounded(found: list[Changed]) -> tuple[Changed, ...]:
    if len(found) <= MOST:
        return tuple(found)
    return (*found[:MOST], Changed(key=f"and {len(found) - MOST} more"))
