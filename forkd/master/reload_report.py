"""What changed between two configurations, and what of it can be applied while we run? Pure.

Keys are told one by one, as `forkd config show` names them; what a manifest calls secret is told without its
value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from forkd.config.load import LoadedConfig
from forkd.config.problems import toml_key, toml_value
from forkd.config.show import as_data
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

MOST = 150
"""Keys told of one kind; beyond them their number."""
MAX_VALUE = 120
"""Characters of a value."""


@dataclasses.dataclass(frozen=True, slots=True)
class Changes:
    """By key, in the order of the file."""

    applied: tuple[Changed, ...]
    needs_restart: tuple[Changed, ...]
    unchanged: int


def pinned(old: LoadedConfig, new: LoadedConfig) -> LoadedConfig:
    """`new`, but what cannot be changed while we run is as in `old`."""
    config = new.config
    for key in AT_START:
        table, _, field = key.partition(".")
        value = getattr(getattr(old.config, table), field)
        changed = msgspec.structs.replace(getattr(config, table), **{field: value})
        config = msgspec.structs.replace(config, **{table: changed})
    return dataclasses.replace(new, config=config)


def changes(old: LoadedConfig, new: LoadedConfig) -> Changes:
    """From the configuration in force to what the files say now (before pinned())."""
    before, after = dict(_flat((), as_data(old))), dict(_flat((), as_data(new)))
    found = [
        Changed(key=key, old=before.get(key, ""), new=after.get(key, ""), why=AT_START.get(key, ""))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]
    told = {each.key for each in found}
    known = {plugin.name: plugin for plugin in old.plugins}
    for plugin in new.plugins:
        start = f"plugin.{toml_key(plugin.name)}"
        changed = plugin.name in known and known[plugin.name] != plugin
        if changed and not any(key.startswith(f"{start}.") for key in told):
            found.append(Changed(key=start))  # a secret, or what its manifest says
    if dict(old.aliases.table) != dict(new.aliases.table):
        found.append(Changed(key="aliases.files", new=f"{len(new.aliases)} aliases, were {len(old.aliases)}"))
    return Changes(
        applied=_bounded([each for each in found if not each.why]),
        needs_restart=_bounded([each for each in found if each.why]),
        unchanged=sum(before.get(key) == value for key, value in after.items()),
    )


def _flat(path: tuple[str, ...], data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in data.items():
        here = (*path, name)
        if isinstance(value, dict):
            yield from _flat(here, value)
        else:
            shown = toml_value(value)
            yield ".".join(map(toml_key, here)), shown[:MAX_VALUE] if len(shown) > MAX_VALUE else shown


def _bounded(found: list[Changed]) -> tuple[Changed, ...]:
    if len(found) <= MOST:
        return tuple(found)
    return (*found[:MOST], Changed(key=f"and {len(found) - MOST} more"))
