"""What may be the value of a plugin's setting? What its manifest declares, and what the admin wrote."""

from __future__ import annotations

import os
from typing import Any, Final, Literal

from forkd.config.lines import KeyPath
from forkd.config.problems import Problems, Source
from forkd.config.reader import Reader
from forkd.config.schema import Setting


def check_bounds(source: Source, path: KeyPath, setting: Setting, problems: Problems) -> None:
    """A range is for numbers, choices are for texts, and something fits them."""
    for key, types in (
        ("min", ("integer", "number")),
        ("max", ("integer", "number")),
        ("choices", ("string", "strings")),
    ):
        if getattr(setting, key) not in (None, ()) and setting.type not in types:
            rule = f"this is for a setting of type {' or '.join(types)}, not {setting.type}"
            problems.add(source, (*path, key), rule)
    if setting.min is not None and setting.max is not None and setting.min > setting.max:
        problems.add(source, (*path, "min"), "this is at most max", value=setting.min)


def read_setting(reader: Reader, path: KeyPath, setting: Setting, raw: Any) -> Any:
    """A setting's value as the plugin gets it, JSON-able; None when it does not fit, which is noted.

    Paths become absolute, from the folder of the file they stand in: the entry's for the admin's
    values, the plugin's own for a default. An empty path stays empty: none.
    """
    before = len(reader.problems)
    value: Any = reader.value(path, raw, setting_type(setting))
    if len(reader.problems) > before:
        return None
    if slip := _out_of_range(setting, value):
        reader.bad(path, slip, value=raw)
        return None
    if setting.type == "path":
        return _absolute(reader, value)
    if setting.type == "paths":
        return [_absolute(reader, item) for item in value]
    return list(value) if setting.type == "strings" else value


def _out_of_range(setting: Setting, value: Any) -> str:
    """What a number should have been; empty: it is within min and max, or no number."""
    low, high = setting.min, setting.max
    if setting.type not in ("integer", "number") or (
        (low is None or low <= value) and (high is None or value <= high)
    ):
        return ""
    if low is not None and high is not None:
        return f"this is {_number(low)} to {_number(high)}"
    return f"this is at least {_number(low)}" if low is not None else f"this is at most {_number(high)}"


def _number(end: float | None) -> str:
    return str(int(end)) if end is not None and float(end).is_integer() else str(end)


def setting_type(setting: Setting) -> Any:
    """What the reader is to make of a value."""
    wanted = _TYPES[setting.type]
    if not setting.choices:
        return wanted
    word: Any = Literal[setting.choices]
    return tuple[word, ...] if setting.type == "strings" else word


def _absolute(reader: Reader, value: str) -> str:
    return os.fspath(reader.absolute(value)) if value else ""


_TYPES: Final[dict[str, Any]] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "strings": tuple[str, ...],
    "path": str,
    "paths": tuple[str, ...],
}
