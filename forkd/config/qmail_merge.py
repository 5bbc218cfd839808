"""How do qmail's control files and forkd.toml become one configuration? What the TOML says, counts.

`server.qmail_control = DIR`: a control file gives a value where forkd.toml leaves the key out. Where both say
something different, a note names both. Domains are taken together: [domain."NAME"] says more about one of
rcpthosts, or adds one. The files are read when the configuration is, not for each connection.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from forkd.config.domains import server_name
from forkd.config.limits import written
from forkd.config.problems import Problems, Source, display_path, toml_value
from forkd.config.qmail import Said, read_control
from forkd.config.schema import Bytes, Config, Domain, QmailQueue

_NO_MORE_THAN: Final = (("data_block", "data_total"), ("command", "idle_session"))
"""Timeouts: the first must not be longer than the second."""


def with_control(
    config: Config, source: Source, raw: dict[str, Any], problems: Problems, notes: list[str]
) -> tuple[Config, Said | None]:
    """The configuration with what server.qmail_control adds to it; that, too.

    config  as it was read: what the admin did not write is at its default
    raw     what he wrote
    """
    folder = config.server.qmail_control
    if folder is None:
        return config, None
    if not folder.is_dir():
        rule = "there is no such folder" if not folder.exists() else "this is not a folder"
        problems.add(source, ("server", "qmail_control"), rule, value=folder)
        return config, None
    said = read_control(folder, problems)
    notes += said.notes
    config = _settings(config, raw, said, notes)
    config = _relay(config, raw, said, notes)
    return _domains(config, said, notes), said


def as_toml(value: Any) -> str:
    """A setting's value as it is written in TOML."""
    return toml_value(written(value) if isinstance(value, float | Bytes) else value)


def _given(raw: dict[str, Any], table: str, key: str) -> bool:
    return isinstance(raw.get(table), dict) and key in raw[table]


def _with(config: Config, table: str, **values: Any) -> Config:
    return msgspec.structs.replace(
        config, **{table: msgspec.structs.replace(getattr(config, table), **values)}
    )


def _settings(config: Config, raw: dict[str, Any], said: Said, notes: list[str]) -> Config:
    for (table, key), setting in said.settings.items():
        if not _given(raw, table, key):
            config = _with(config, table, **{key: setting.value})
        elif (chosen := getattr(getattr(config, table), key)) != setting.value:
            file = display_path(said.folder / setting.file)
            notes.append(
                f"{table}.{key} = {as_toml(chosen)} counts, and not {file}, "
                f"which says {as_toml(setting.value)}"
            )
    for key, most in _NO_MORE_THAN:
        limit = getattr(config.timeouts, most)
        if not _given(raw, "timeouts", key) and getattr(config.timeouts, key) > limit:
            config = _with(config, "timeouts", **{key: limit})
    return config


def _relay(config: Config, raw: dict[str, Any], said: Said, notes: list[str]) -> Config:
    if not said.relay:
        return config
    first = next(iter(said.relay.values()))
    if _given(raw, "networks", "relay"):
        if set(config.networks.relay) != set(said.relay):
            notes.append(
                f"networks.relay counts, and not {display_path(said.folder / first.file)}, "
                "which says something else"
            )
        return config
    if not config.queue.relay_transport:
        if not isinstance(config.transport.get("local"), QmailQueue):
            rule = "these clients may relay, but queue.relay_transport does not say how their mail goes on"
            hint = 'set relay_transport in [queue], or [transport.local] to kind = "qmail-queue"'
            said.control.bad(first, rule, hint=hint)
            return config
        config = _with(config, "queue", relay_transport="local")
    return _with(config, "networks", relay=tuple(said.relay))


def _domains(config: Config, said: Said, notes: list[str]) -> Config:
    there = dict(config.domain)
    known = {_compared(name) for name in there}
    onward = config.queue.relay_transport
    for name in said.domains:
        if name not in known:
            there[name] = Domain(
                detail="", transport=onward if onward and name in said.elsewhere else Domain().transport
            )
    if extra := [name for name in config.domain if _compared(name) not in said.domains]:
        rcpthosts = display_path(said.folder / "rcpthosts")
        notes.append(f"{', '.join(extra[:3])}: taken, though {rcpthosts} has it not")
    queue = isinstance(config.transport.get("local"), QmailQueue)
    if said.elsewhere and not onward and not queue:
        shown = ", ".join(sorted(said.elsewhere)[:3]) + (", ..." if len(said.elsewhere) > 3 else "")
        notes.append(
            f"{shown}: in rcpthosts, and neither in locals nor in virtualdomains: qmail would pass this mail "
            "on to another host; forkd delivers it by transport local, unless queue.relay_transport is set"
        )
    return msgspec.structs.replace(config, domain=there)


def _compared(name: str) -> str:
    try:
        return server_name(name)
    except ValueError:
        return name
