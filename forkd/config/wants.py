"""What does a plugin want with the settings it is given?

A manifest says what its plugin may ever want; `when` and `names_in` make a want depend on settings, so
that a feature that is off needs no grant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from forkd.config.domains import is_domain
from forkd.config.schema import Wanted, WantedNames, Wants

FLAGS: Final = (
    "accept",
    "discard",
    "quarantine",
    "edit_body",
    "delete_recipient",
    "rewrite_recipient",
    "change_sender",
    "auth",
)
"""Powers that are there or not; the others come with a list."""
PARTS: Final = ("envelope", "headers", "body")
"""Of a mail; what wants.reads names."""


@dataclasses.dataclass(frozen=True, slots=True)
class InForce:
    """The wants that hold. A power or part that is in none of these is not wanted."""

    powers: Mapping[str, str]
    """Power -> reason."""
    names: Mapping[str, tuple[str, ...]]
    """edit_headers, export, add_recipient -> what is wanted of it; not empty."""
    reads: Mapping[str, str]
    """Part -> reason."""


def in_force(wants: Wants, settings: Mapping[str, Any]) -> InForce:
    """`wants` with these settings, which have their defaults filled in."""
    powers = {power: reason(getattr(wants.powers, power), settings) for power in FLAGS}
    names: dict[str, tuple[str, ...]] = {}
    for power in ("edit_headers", "export"):
        wanted = getattr(wants.powers, power)
        if wanted is not None and reason(wanted, settings):
            names[power] = _names(wanted, settings)
            powers[power] = wanted.reason if names[power] else ""
    added = wants.powers.add_recipient
    if added is not None and reason(added, settings):
        names["add_recipient"] = added.domains
        powers["add_recipient"] = added.reason
    reads = {part: reason(getattr(wants.reads, part), settings) for part in PARTS}
    return InForce(
        powers={power: why for power, why in powers.items() if why},
        names={power: found for power, found in names.items() if found},
        reads={part: why for part, why in reads.items() if why},
    )


def reason(wanted: str | Wanted | None, settings: Mapping[str, Any]) -> str:
    """Why it is wanted with these settings; empty: it is not."""
    if wanted is None:
        return ""
    if isinstance(wanted, str):
        return wanted
    holds = all(settings.get(name) == value for name, value in wanted.when.items())
    return wanted.reason if holds else ""


def named(value: Any) -> tuple[str, ...]:
    """What a setting of names_in names: each of its texts, up to a colon."""
    texts = [value] if isinstance(value, str) else value or []
    return tuple(name for text in texts if (name := text.partition(":")[0].strip()))


def is_wanted_domain(name: str) -> bool:
    """A domain that a manifest may want to add recipients of."""
    return name == "*" or is_domain(name)


def _names(wanted: WantedNames, settings: Mapping[str, Any]) -> tuple[str, ...]:
    by_admin = (name for key in wanted.names_in for name in named(settings.get(key)))
    return tuple(dict.fromkeys((*wanted.names, *by_admin)))
