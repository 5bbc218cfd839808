"""What does a role go by? Two values that are equal: its process need not be another one after a reload.

What it reads of the configuration, what else it is given, and the files that it reads once. Workers have no
row: they are always new, so that files which they read once (the users' file, resolv.conf, aliases) are read
anew. Anvil goes by nothing that can be set; its counts outlast reloads, and so does its log's format.

For qmgr the tables are named that it does not read, so that one which is added is not forgotten. That each
goes by all that it reads, tests/master/test_given.py looks up in the code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from forkd.config.schema import Config, QmailQueue
from forkd.master.next_hop_files import NextHopFiles

if TYPE_CHECKING:
    from forkd.config.load import LoadedConfig

NOT_QMGRS: Final = frozenset(
    {
        "certificate", "tls", "auth", "names", "networks", "limits", "timeouts", "sandbox",
        "state", "breaker", "crash", "plugins", "pool", "admin", "metrics", "probe",
    }
)  # fmt: skip
"""Tables that only concern clients, admins, and what is done before 250; of [server] it goes by our name."""

Stamp = tuple[int, ...]


def stamp(path: str | os.PathLike[str]) -> Stamp:
    """What tells a file from its successor; () when it is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


_RESOLVER: Final = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")


def _resolver() -> tuple[Stamp, ...]:
    return tuple(map(stamp, _RESOLVER))


def _broker(loaded: LoadedConfig, _ways: Mapping[str, str]) -> object:
    config = loaded.config
    granted = [
        (plugin.name, plugin.capabilities, plugin.limits.reuse)
        for plugin in loaded.plugins
        if plugin.capabilities.brokered
    ]
    traced = bool(config.trace.keep)  # then it has the way to admin's store
    counted = bool(config.metrics.listen)  # then it has a slot to count into
    return config.dns, config.state, config.log, traced, counted, granted, _resolver()


def _launcher(loaded: LoadedConfig, _ways: Mapping[str, str]) -> object:
    config = loaded.config
    programs = {name: table for name, table in config.transport.items() if isinstance(table, QmailQueue)}
    return config.log, config.queue.concurrency, programs


def _qmgr(loaded: LoadedConfig, ways: Mapping[str, str]) -> object:
    config = loaded.config
    tables = {field: getattr(config, field) for field in Config.__struct_fields__ if field not in NOT_QMGRS}
    tables["server"] = config.server.hostname
    tables["metrics"] = bool(config.metrics.listen)  # it counts, or not
    tables["route"] = tuple(config.route.items())  # the first that matches counts: their order too
    files = [stamp(path) for path in NextHopFiles(config).paths]
    return tables, dict(ways), dict(loaded.aliases.table), files, _resolver()


def _admin(loaded: LoadedConfig, _ways: Mapping[str, str]) -> object:
    return msgspec.to_builtins(loaded.config, enc_hook=str), stamp("/etc/passwd"), stamp("/etc/group")


_GIVEN: Final[Mapping[str, Callable[[LoadedConfig, Mapping[str, str]], object]]] = {
    "broker": _broker,
    "launcher": _launcher,
    "qmgr": _qmgr,
    "admin": _admin,
}


def given(role: str, loaded: LoadedConfig, ways: Mapping[str, str] | None = None) -> object:
    """A value to compare with another generation's.

    ways  paths of the sockets of those whom it asks, by name, where these may differ between generations
    """
    return _GIVEN[role](loaded, ways or {}) if role in _GIVEN else None
