"""What does a new version of a plugin want that the old one did not? Two manifests in, words out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from forkd.config.capabilities import normal_suffix, suffix_covers
from forkd.config.grants import covers
from forkd.config.limits import written
from forkd.config.plainly import Kind, sentence
from forkd.config.schema import Manifest, PluginLimits, Wanted
from forkd.config.wants import FLAGS, PARTS


@dataclasses.dataclass(frozen=True, slots=True)
class Want:
    """One single thing that a manifest wants. `setting`: the one in which the admin names it."""

    kind: Kind
    name: str
    item: str = ""
    reason: str = ""
    when: tuple[tuple[str, str], ...] = ()
    """Settings = values with which it is wanted; empty: always."""

    @property
    def text(self) -> str:
        """In plain words, with its condition."""
        when = " and ".join(f"{name} = {value}" for name, value in self.when)
        said = sentence(self.kind, self.name, (self.item,) if self.item else ())
        return f"{said} (with {when})" if when else said


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """From one version to the next. `wants` and `hooks` and `requires` need the admin's consent."""

    wants: tuple[Want, ...]
    hooks: tuple[str, ...]
    requires: tuple[str, ...]
    dropped: tuple[str, ...]
    """What it wanted and does not want any more."""
    settings: tuple[str, ...]
    limits: tuple[str, ...]
    python: str

    @property
    def more(self) -> bool:
        """It wants something that it did not."""
        return bool(self.wants or self.hooks or self.requires)


def difference(old: Manifest, new: Manifest) -> Difference:
    """What changed, from the point of view of who grants."""
    before, after = list(wants(old)), list(wants(new))
    return Difference(
        wants=tuple(want for want in after if not any(_within(want, known) for known in before)),
        hooks=tuple(hook for hook in new.hooks if hook not in old.hooks),
        requires=tuple(text for text in new.requires if text not in old.requires),
        dropped=(
            *(want.text for want in before if not any(_within(want, known) for known in after)),
            *(f"the hook {hook}" for hook in old.hooks if hook not in new.hooks),
            *(f"requires {text}" for text in old.requires if text not in new.requires),
        ),
        settings=tuple(_settings(old, new)),
        limits=tuple(_limits(old, new)),
        python=f"Python {new.python or 'any'}, was {old.python or 'any'}" if new.python != old.python else "",
    )


def wants(manifest: Manifest) -> Iterator[Want]:
    """One by one, what can hurt most first."""
    asked = manifest.wants
    for name in FLAGS:
        if (wanted := getattr(asked.powers, name)) is not None:
            yield _want("power", name, "", wanted)
    for name in ("edit_headers", "export"):
        if (wanted := getattr(asked.powers, name)) is not None:
            for item in (*wanted.names, *(_of_setting(key) for key in wanted.names_in)):
                yield _want("power", name, item, wanted)
    if asked.powers.add_recipient is not None:
        for item in asked.powers.add_recipient.domains:
            yield _want("power", "add_recipient", item, asked.powers.add_recipient)
    dns = asked.capabilities.dns
    if dns is not None:
        for item in (*dns.suffixes, *(_of_setting(key) for key in dns.suffixes_in)):
            yield _want("capability", "dns", item, dns)
    if asked.capabilities.connect is not None:
        for item in asked.capabilities.connect.targets:
            yield _want("capability", "connect", item, asked.capabilities.connect)
    if asked.capabilities.state is not None:
        yield _want("capability", "state", "", asked.capabilities.state)
    if asked.capabilities.threads is not None:
        wanted = asked.capabilities.threads
        yield _want("capability", "threads", str(wanted.count), wanted)
    for part in PARTS:
        if (wanted := getattr(asked.reads, part)) is not None:
            yield _want("reads", part, "", wanted)
    for name, reason in asked.files.items():
        yield Want("files", "files", _of_setting(name), reason)


def _of_setting(key: str) -> str:
    return f"what the setting {key} names"


def _want(kind: Kind, name: str, item: str, wanted: str | Wanted) -> Want:
    if isinstance(wanted, str):
        return Want(kind, name, item, wanted)
    when = tuple(sorted((key, str(value)) for key, value in wanted.when.items()))
    return Want(kind, name, item, wanted.reason, when)


def _suffix_covers(old: str, new: str) -> bool:
    if "setting" in old or "setting" in new:
        return old == new
    return suffix_covers(normal_suffix(old), normal_suffix(new))


_COVERS: Final[dict[str, Callable[[str, str], bool]]] = {
    "edit_headers": covers,
    "add_recipient": lambda old, new: old in ("*", new),
    "dns": _suffix_covers,
    "threads": lambda old, new: int(new) <= int(old),
}
"""Want -> does what was wanted of it cover what is wanted now? Others: the same text."""


def _within(new: Want, old: Want) -> bool:
    """Nothing more than that was wanted; conditions that are the same, or fewer before."""
    if (new.kind, new.name) != (old.kind, old.name) or not set(old.when) <= set(new.when):
        return False
    return new.item == old.item or _COVERS.get(new.name, str.__eq__)(old.item, new.item)


def _settings(old: Manifest, new: Manifest) -> Iterator[str]:
    for name, setting in new.settings.items():
        must = " (must be given)" if setting.default is msgspec.UNSET else ""
        if name not in old.settings:
            yield f"new setting {name}: {setting.type}{must}"
            continue
        known = old.settings[name]
        changed = [
            f"{field} is {_shown(getattr(setting, field))}, was {_shown(getattr(known, field))}"
            for field in ("type", "default", "min", "max", "choices")
            if getattr(setting, field) != getattr(known, field)
        ]
        if changed:
            yield f"setting {name}: {'; '.join(changed)}"
    yield from (f"no setting {name} any more" for name in old.settings if name not in new.settings)


def _shown(value: Any) -> str:
    if value is msgspec.UNSET:
        return "not set"
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _limits(old: Manifest, new: Manifest) -> Iterator[str]:
    for field in msgspec.structs.fields(PluginLimits):
        here, there = getattr(new.limits, field.name), getattr(old.limits, field.name)
        if here != there:
            yield f"suggests {field.name} = {written(here)}, was {written(there)}"
