"""Which plugins share a sandbox, and what holds for them together?

Plugins of one `group` become one PluginConfig: one zygote, one fork per session, one round trip per
hook, for all members in order. What the members may do is then what the group may do, since nothing
but the kernel separates plugins, and it separates processes:

    hooks, powers, reads, files,
    capabilities, requires          of all members together
    limits                          each the largest of the members': one call asks all of them
    on_failure, mode, scope, trusted,
    python, uid, limits.fresh, limits.reuse      must be the same for all: a sandbox has one fate
    order                           the lowest
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from forkd.config.capabilities import ANY
from forkd.config.limits import SANDBOXES_PER_CPU
from forkd.config.lines import KeyPath
from forkd.config.problems import Problems, Source
from forkd.config.schema import HOOKS, Capabilities, PluginConfig, PluginLimits, Powers

_AGREED: Final[tuple[KeyPath, ...]] = (
    ("on_failure",),
    ("mode",),
    ("trusted",),
    ("python",),
    ("uid",),
    ("scope", "listeners"),
    ("scope", "networks"),
    ("scope", "domains"),
    ("limits", "fresh"),
    ("limits", "reuse"),
)


def merged(
    plugins: Sequence[tuple[Source, PluginConfig]], problems: Problems, notes: list[str]
) -> tuple[PluginConfig, ...]:
    """`plugins`, which come in their order, with those of each group in one; groups in their order."""
    groups: dict[str, list[tuple[Source, PluginConfig]]] = {}
    alone: dict[str, PluginConfig] = {}
    for source, plugin in plugins:
        if plugin.group:
            groups.setdefault(plugin.group, []).append((source, plugin))
        else:
            alone[plugin.name] = plugin
    result = list(alone.values())
    for name, members in groups.items():
        if name in alone:
            rule = f"{alone[name].source} has switched on a plugin of this name, which is not of the group"
            problems.add(members[0][0], ("group",), rule, value=name)
        _agree(members, problems)
        _agree_on_targets(members, problems)
        result.append(_group(name, [plugin for _, plugin in members]))
    result.sort(key=lambda plugin: (plugin.order, plugin.source))
    _say_between(groups, result, notes)
    return tuple(result)


def _agree(members: Sequence[tuple[Source, PluginConfig]], problems: Problems) -> None:
    """Problems for each member that wants another fate than the first."""
    _, first = members[0]
    for source, other in members[1:]:
        for path in _AGREED:
            here, there = _at(other, path), _at(first, path)
            if here == there:
                continue
            rule = (
                "the plugins of a group share a sandbox and cannot differ in this: "
                f"{first.source}, of group {first.group} too, has another {'.'.join(path)}"
            )
            problems.add(source, path, rule, value=here)


def _agree_on_targets(members: Sequence[tuple[Source, PluginConfig]], problems: Problems) -> None:
    """A target has one address: the group has one channel to the broker."""
    known: dict[str, tuple[str, str]] = {}
    for source, plugin in members:
        for name, address in plugin.capabilities.connect.items():
            first, there = known.setdefault(name, (plugin.source, address))
            if there != address:
                rule = (
                    "the plugins of a group share a sandbox and its connections: "
                    f"{first}, of group {plugin.group} too, has {there} for this target"
                )
                problems.add(source, ("grants", "connect", name), rule, value=address)


def _at(plugin: PluginConfig, path: KeyPath) -> Any:
    value: Any = plugin
    for part in path:
        value = getattr(value, part)
    return frozenset(value) if isinstance(value, tuple) else value


def _group(name: str, members: Sequence[PluginConfig]) -> PluginConfig:
    first = members[0]
    return PluginConfig(
        name=name,
        version="",
        folder=first.folder,
        module=first.module,
        order=first.order,
        hooks=tuple(hook for hook in HOOKS if any(hook in one.hooks for one in members)),
        settings={},
        powers=_powers([one.powers for one in members]),
        reads=tuple(
            part for part in ("envelope", "headers", "body") if any(part in one.reads for one in members)
        ),
        files=_united(one.files for one in members),
        capabilities=_capabilities([one.capabilities for one in members]),
        limits=_limits([one.limits for one in members]),
        on_failure=first.on_failure,
        mode=first.mode,
        trusted=first.trusted,
        python=first.python,
        requires=_united(one.requires for one in members),
        libraries=_united(one.libraries for one in members),
        uid=first.uid,
        source=first.source,
        group=name,
        scope=first.scope,
        members=tuple(member for one in members for member in one.members),
    )


def _united(lists: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Everything once, in the order in which it came."""
    return tuple(dict.fromkeys(item for one in lists for item in one))


def _powers(all_of_them: Sequence[Powers]) -> Powers:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Powers):
        given = [getattr(powers, field.name) for powers in all_of_them]
        values[field.name] = any(given) if isinstance(given[0], bool) else _united(given)
    if "*" in values["add_recipient"]:
        values["add_recipient"] = ("*",)
    return Powers(**values)


def _capabilities(all_of_them: Sequence[Capabilities]) -> Capabilities:
    suffixes = _united(one.dns for one in all_of_them)
    return Capabilities(
        dns=(ANY,) if ANY in suffixes else suffixes,
        state=any(one.state for one in all_of_them),
        connect={name: address for one in all_of_them for name, address in one.connect.items()},
        threads=max(one.threads for one in all_of_them),
    )


def _limits(all_of_them: Sequence[PluginLimits]) -> PluginLimits:
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(PluginLimits):
        given = [getattr(limits, field.name) for limits in all_of_them]
        values[field.name] = given[0] if isinstance(given[0], str) else max(given)
    if any(limits.sandboxes == 0 for limits in all_of_them):
        by_default = SANDBOXES_PER_CPU * len(os.sched_getaffinity(0))
        values["sandboxes"] = values["sandboxes"] if values["sandboxes"] > by_default else 0
    return PluginLimits(**values)


def _say_between(
    groups: dict[str, list[tuple[Source, PluginConfig]]], result: Sequence[PluginConfig], notes: list[str]
) -> None:
    """A group is asked as a whole: what stands between its members is asked after all of them."""
    for name, members in groups.items():
        low, high = members[0][1], members[-1][1]
        for plugin in result:
            if plugin.group == name or not (low.order, low.source) < (plugin.order, plugin.source):
                continue
            if (plugin.order, plugin.source) < (high.order, high.source):
                notes.append(
                    f"the group {name} is asked as a whole, at order {low.order}: "
                    f"{high.name} (order {high.order}) comes before {plugin.name} (order {plugin.order})"
                )
