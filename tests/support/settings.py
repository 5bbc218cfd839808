"""Another value for a setting: of its type, not that which it has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from forkd.config.load import LoadedConfig
from forkd.config.problems import toml_key
from forkd.config.schema import Bytes, Seconds, Table


def other(value: Any) -> Any:
    """Whether it may be set is not looked at."""
    match value:
        case bool():
            return not value
        case Seconds() | Bytes() | int() | float():
            return type(value)(value + 1)
        case str():
            return f"{value}x"
        case Path():
            return value / "x"
        case None:
            return Path("x")
        case tuple():
            return (*value, "x")
        case dict():
            return {**value, "x": "x"}
    raise AssertionError(f"a setting of a new type: {value!r}")


def every(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to each setting in a table, and in those in it."""
    if isinstance(value, Table):
        for name in value.__struct_fields__:
            yield from every(getattr(value, name), (*path, name))
    elif isinstance(value, dict) and any(isinstance(each, Table) for each in value.values()):
        for name, table in value.items():
            yield from every(table, (*path, name))
    else:
        yield path


def key(path: tuple[str, ...]) -> str:
    """As `forkd config show` names it."""
    return ".".join(map(toml_key, path))


def at(value: Any, path: tuple[str, ...]) -> Any:
    """What stands there."""
    for name in path:
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def put(table: Any, path: tuple[str, ...], value: Any) -> Any:
    """The same table with that value there."""
    if not path:
        return value
    inner = put(at(table, path[:1]), path[1:], value)
    if isinstance(table, dict):
        return table | {path[0]: inner}
    return msgspec.structs.replace(table, **{path[0]: inner})


def changed(loaded: LoadedConfig, path: tuple[str, ...]) -> LoadedConfig:
    """With another value of that one setting."""
    value = other(at(loaded.config, path))
    return dataclasses.replace(loaded, config=put(loaded.config, path, value))
