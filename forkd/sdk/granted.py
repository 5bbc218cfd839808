"""What would the admin grant a plugin under test? All that its manifest wants with these settings.

The reading of [wants] is forkd's (its configuration package has it with all checks); here it is told to
the test kit, which needs the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class Granted:
    """Powers by name, each with what it covers ("" for those that cover everything), reads and capabilities.

    dns      suffixes of names, or "any"
    state    it may keep keys and values
    targets  names of those it may be connected to
    """

    __slots__ = ("dns", "powers", "reads", "state", "targets")

    def __init__(self, wants: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Take the manifest's table `wants`, and the settings with their defaults."""
        self.powers: dict[str, tuple[str, ...]] = {}
        for power, wanted in wants.get("powers", {}).items():
            if _holds(wanted, settings):
                self.powers[power] = _covered(wanted, settings)
        reads = wants.get("reads", {})
        self.reads = frozenset(part for part, wanted in reads.items() if _holds(wanted, settings))
        capabilities = {
            name: wanted for name, wanted in wants.get("capabilities", {}).items() if _holds(wanted, settings)
        }
        self.dns = frozenset(_suffixes(capabilities.get("dns", {}), settings))
        self.state = "state" in capabilities
        self.targets = frozenset(capabilities.get("connect", {}).get("targets", ()))

    @classmethod
    def united(cls, members: Iterable[Granted]) -> Granted:
        """What the members of a group are granted is the group's."""
        all_of_them = cls({}, {})
        for member in members:
            for power, covered in member.powers.items():
                all_of_them.powers[power] = (*all_of_them.powers.get(power, ()), *covered)
            all_of_them.reads |= member.reads
            all_of_them.dns |= member.dns
            all_of_them.state = all_of_them.state or member.state
            all_of_them.targets |= member.targets
        return all_of_them

    def covers(self, power: str, what: str = "") -> bool:
        """Is the power wanted, for this header name, export or domain where it goes by those?"""
        return any(_matches(grant.lower(), what.lower()) for grant in self.powers.get(power, ()))


def _holds(wanted: Any, settings: Mapping[str, Any]) -> bool:
    """A want is a reason, or a table whose `when` names the settings it depends on."""
    if isinstance(wanted, str):
        return bool(wanted)
    return all(settings.get(name) == value for name, value in wanted.get("when", {}).items())


def _covered(wanted: Any, settings: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(wanted, str) or wanted.keys().isdisjoint({"names", "names_in", "domains"}):
        return ("",)
    names = [*wanted.get("names", ()), *wanted.get("domains", ())]
    for setting in wanted.get("names_in", ()):
        value = settings.get(setting) or ()
        for text in [value] if isinstance(value, str) else value:
            names.append(text.partition(":")[0].strip())
    return tuple(name for name in names if name)


def _suffixes(wanted: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterable[str]:
    """Those named, and those that settings name: each text there, or what stands in it before a blank."""
    yield from wanted.get("suffixes", ())
    for setting in wanted.get("suffixes_in", ()):
        value = settings.get(setting) or ()
        for text in [value] if isinstance(value, str) else value:
            yield from text.split()[:1]


def _matches(grant: str, name: str) -> bool:
    return name.startswith(grant[:-1]) if grant.endswith("*") else name == grant
