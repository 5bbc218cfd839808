"""Which limits hold for a plugin: its entry's, what its author suggests, or the default?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from forkd.config.grants import Joining
from forkd.config.schema import PluginLimits
from forkd.config.units import Bytes, Seconds, format_duration, format_size

SANDBOXES_PER_CPU: Final = 64
"""What `sandboxes = 0` means; a suggestion below it is stricter on any machine."""


def limits_in_force(one: Joining, given: frozenset[str]) -> PluginLimits:
    """The limits in force; a suggestion that would loosen one is said and does nothing."""
    default, suggested, manifest = PluginLimits(), one.plugin.suggested, one.plugin.manifest
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(PluginLimits):
        name = field.name
        if name in given:
            values[name] = getattr(one.entry.limits, name)
        elif name in suggested:
            value = getattr(manifest.limits, name)
            if _stricter(name, value, getattr(default, name)):
                values[name] = value
            else:
                one.notes.append(
                    f"plugin {manifest.name} suggests {name} = {written(value)}; the default, "
                    f"{written(getattr(default, name))}, stays in force unless its [limits] say so"
                )
    limits = PluginLimits(**values)
    _contradictions(one, limits, given)
    return limits


def origins(
    limits: PluginLimits, members: Sequence[tuple[str, frozenset[str], frozenset[str]]]
) -> dict[str, str]:
    """Limit -> where its value comes from, in words.

    members   of each its name, the limits that its entry sets, and those that its author suggests
    """
    found = {}
    for field in msgspec.structs.fields(PluginLimits):
        name = field.name
        by_entry = [who for who, given, _ in members if name in given]
        by_author = [who for who, given, suggested in members if name in suggested and name not in given]
        if by_entry:
            said = f"the entry of {', '.join(by_entry)}" if len(members) > 1 else "its entry"
        elif by_author and getattr(limits, name) != field.default:
            said = f"suggested by {', '.join(by_author)}" if len(members) > 1 else "suggested by its author"
        else:
            said = "default"
        found[name] = said
    return found


def _contradictions(one: Joining, limits: PluginLimits, given: frozenset[str]) -> None:
    if limits.reuse > 1 and limits.fresh == "call":
        key = "reuse" if "reuse" in given else "fresh"
        rule = 'a sandbox that is new for each call (fresh = "call") cannot serve several sessions (reuse)'
        one.reader.bad(("limits", key), rule, value=getattr(limits, key), hint="leave one of them out")
    for key, hook in (("timeout", ""), ("message_timeout", "message")):
        value, whole = getattr(limits, key), limits.session_time
        if value <= whole or not {key, "session_time"} & given:
            continue
        if hook and hook not in one.plugin.manifest.hooks:
            continue
        rule = (
            f"{key} ({format_duration(value)}) is longer than session_time ({format_duration(whole)}): "
            "all calls of a session would be over before one could be late"
        )
        blamed = key if key in given else "session_time"
        one.reader.bad(("limits", blamed), rule, value=format_duration(getattr(limits, blamed)))


def written(value: Any) -> str:
    """A limit as it is written in TOML, without quotes."""
    if isinstance(value, Seconds):
        return format_duration(value)
    return format_size(value) if isinstance(value, Bytes) else str(value)


def in_words(name: str, value: Any) -> str:
    """The same for eyes, where a number stands for something else."""
    return f"{SANDBOXES_PER_CPU} per CPU" if name == "sandboxes" and value == 0 else written(value)


def _stricter(name: str, value: Any, default: Any) -> bool:
    if name == "sandboxes":
        return bool(0 < value <= SANDBOXES_PER_CPU)
    if name == "fresh":
        return bool(value == "call")
    return bool(value <= default)
