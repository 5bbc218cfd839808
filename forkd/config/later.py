"""What is designed and not built yet? Keys and values that are refused by name, not as unknown.

An admin who follows the design page must hear "not in this version", not "did you mean ...": he would
look for a typing error that is not there. A row leaves this table when its feature is built.
Paths are matched part by part; `*` matches any one part.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from forkd.config.lines import KeyPath

_Row = TypeVar("_Row")


class Document(enum.Enum):
    """The three kinds of file we read."""

    CONFIG = "forkd.toml"
    ENTRY = "a plugins.d entry"
    MANIFEST = "plugin.toml"


_KEYS: Final[dict[Document, dict[KeyPath, str]]] = {
    Document.CONFIG: {},
    Document.ENTRY: {
        ("limits", "file_size"): "files a plugin may write",
    },
    Document.MANIFEST: {
        ("argv",): "a manifest of a program (an entry of kind program needs none)",
        ("limits", "processes"): "processes of a plugin's own",
        ("limits", "file_size"): "files a plugin may write",
    },
}

_WANTS: Final = {
    "processes": "processes of a plugin's own",
    "exec": "programs",
}
for _name, _feature in _WANTS.items():
    _KEYS[Document.MANIFEST][("wants", _name)] = _feature
    _KEYS[Document.MANIFEST][("wants", "powers", _name)] = _feature
    _KEYS[Document.MANIFEST][("wants", "capabilities", _name)] = _feature

_VALUES: Final[dict[Document, dict[KeyPath, dict[Any, str]]]] = {
    Document.CONFIG: {},
    Document.ENTRY: {},
    Document.MANIFEST: {
        ("kind",): {
            "program": "a manifest of a program (an entry of kind program needs none)",
        },
    },
}


def later_key(document: Document, path: KeyPath) -> str:
    """The feature this key belongs to, or empty: then the key is unknown."""
    return _match(_KEYS[document], path) or ""


def later_value(document: Document, path: KeyPath, value: Any) -> str:
    """The feature this value of a known key belongs to, or empty: then the value is wrong."""
    values = _match(_VALUES.get(document, {}), path)
    return values.get(value, "") if values and isinstance(value, str) else ""


def not_yet(feature: str) -> str:
    """The rule to print."""
    return f"not in this version of forkd: {feature} comes with a later one"


def _match(rows: Mapping[KeyPath, _Row], path: KeyPath) -> _Row | None:
    for pattern, row in rows.items():
        if len(pattern) == len(path) and all(
            want in ("*", part) for want, part in zip(pattern, path, strict=True)
        ):
            return row
    return None
