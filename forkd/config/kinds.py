"""Which keys of an entry belong to which kind of plugin, and what may stand in its environment?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from forkd.config.manifest import PLUGIN_NAME
from forkd.config.reader import Reader, one_of
from forkd.config.schema import Entry

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "plugin": ("python",),
    "package": ("python",),
    "python": ("python",),
    "group": ("python",),
    "settings": ("python",),
    "so": ("indimail",),
    "dir": ("indimail",),
    "base": ("indimail",),
    "symbol": ("indimail",),
    "refusal": ("indimail",),
    "data_at": ("indimail",),
    "environment": ("indimail", "program"),
    "argv": ("program",),
    "unchanged_if_empty": ("program",),
}
"""Key -> the kinds that have it; what is not here belongs to all."""

SESSION: Final = re.compile(r"TCP.*|RELAYCLIENT|AUTHENTICATED|SPFRESULT")
"""Variables that forkd sets from the session: what the admin wrote would be true for some clients only."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_MOST, _MOST_OCTETS = 64, 1000


def check_keys(reader: Reader, raw: dict[str, Any], kind: str) -> bool:
    """A problem for each key that this kind of plugin has no use for; True: there is none."""
    wrong = [key for key in raw if kind not in KEYS.get(key, (kind,))]
    for key in wrong:
        kinds = KEYS[key]
        hint = f"write kind = {one_of(kinds)}, or leave it out" if "kind" not in raw else "leave it out"
        reader.bad((key,), f"this key is for plugins of kind {one_of(kinds)}", hint=hint)
    return not wrong


def check_without_manifest(reader: Reader, entry: Entry, name: str) -> None:
    """A kind that has none: its name is that of the entry's file, what it reads stands in its grants."""
    if not PLUGIN_NAME.fullmatch(name):
        rule = (
            "its name comes from this file, NN-name.toml: a small letter, then small letters, digits, - and "
            "_; 32 at most"
        )
        reader.bad(("kind",), rule, value=entry.kind, hint="rename the file")
    for file in entry.grants.files:
        if not file.exists():
            reader.bad(("grants", "files"), "there is no such file", value=file)


def check_environment(
    reader: Reader, environment: dict[str, str], reserved: Iterable[re.Pattern[str]]
) -> None:
    """Names are names, values fit into an environment, and none of them is forkd's to set (`reserved`)."""
    reserved = tuple(reserved)
    for name, value in environment.items():
        slip = environment_slip(name, value)
        if any(pattern.fullmatch(name) for pattern in reserved):
            slip = "forkd sets this one itself, from what it knows of the session"
        if slip:
            reader.bad(("environment", name), slip, value=value)
    if len(environment) > _MOST:
        reader.bad(("environment",), f"{len(environment)} variables, {_MOST} are allowed")


def environment_slip(name: str, value: str) -> str:
    """Why this is no variable; empty: it is one."""
    if not _NAME.fullmatch(name):
        return "a variable's name is a letter or _, then letters, digits and _; 64 at most"
    if "\0" in value or len(value.encode("utf-8", "surrogatepass")) > _MOST_OCTETS:
        return f"a variable's value has {_MOST_OCTETS} octets at most, and no NUL"
    return ""
