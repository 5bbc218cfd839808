"""What do the lines of `zones` say, and what do a list's answers mean?

    ZONE [PATTERN] [WEIGHT] [=> TEXT]

A zone may stand in several lines, each with a pattern of its own; it is asked once.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from forkd.sdk.listfile import EntryError, domain_name, given, take_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_RANGE = re.compile(r"([0-9]{1,3})(?:\.\.([0-9]{1,3}))?")
_PLACES = re.compile(r"\.".join([r"(\[[0-9.;]+\]|[0-9]{1,3})"] * 4))
_WEIGHT = re.compile(r"[+-]?[0-9]{1,4}")
_DATA_QUERY = ".dq.spamhaus.net"
"""Below this, the first label is the customer's key: not for clients, not for logs."""

Pattern = tuple[frozenset[int], ...]
"""Of each octet of an answer: the values that match."""


class Rule(NamedTuple):
    """One line: what a zone's answer of this pattern weighs, and what its client is told."""

    pattern: Pattern | None
    weight: int
    text: str

    def matches(self, answers: Iterable[str]) -> bool:
        """Is there such an answer among these? Without a pattern, any that usable() has let through."""
        return any(
            self.pattern is None
            or all(
                int(octet) in values for octet, values in zip(answer.split("."), self.pattern, strict=True)
            )
            for answer in answers
        )


class Zone(NamedTuple):
    """One list and its rules."""

    name: str
    rules: tuple[Rule, ...]

    @property
    def shown(self) -> str:
        """Its name as others may see it."""
        return self.name.partition(".")[2] if self.name.endswith(_DATA_QUERY) else self.name

    @property
    def most(self) -> int:
        """What it can add to a score at most."""
        return sum(max(0, rule.weight) for rule in self.rules)

    @property
    def least(self) -> int:
        """What it can take off, as a number below 0; or 0."""
        return sum(min(0, rule.weight) for rule in self.rules)


def read_zones(setting: str, lines: Sequence[str]) -> tuple[Zone, ...]:
    """The zones of a setting; those that can take something off come first, so that asking can end early.

    Raises EntryError with every bad line.
    """
    rules: dict[str, list[Rule]] = {}

    def take(line: str) -> None:
        name, rule = read_line(line)
        rules.setdefault(name, []).append(rule)

    take_all(given(setting, lines), take, what="these are no zones")
    zones = [Zone(name, tuple(found)) for name, found in rules.items()]
    return tuple(sorted(zones, key=lambda zone: zone.least == 0))


def read_line(line: str) -> tuple[str, Rule]:
    """Name and rule of one line. Raises EntryError."""
    said, arrow, text = line.partition(" => ")
    words = said.split()
    name = domain_name(words[0]) if words else ""
    if "." not in name or name.startswith("["):
        raise EntryError(
            "no zone: write ZONE [PATTERN] [WEIGHT] [=> TEXT], as in zen.spamhaus.org 127.0.0.[2..11] 3"
        )
    if arrow and not text.strip():
        raise EntryError("there is no text behind =>")
    pattern, weight = None, 1
    rest = words[1:]
    if rest and not _WEIGHT.fullmatch(rest[0]):
        pattern = read_pattern(rest.pop(0))
    if rest and _WEIGHT.fullmatch(rest[0]):
        weight = int(rest.pop(0))
    if rest:
        raise EntryError(
            f"{rest[0]!r} is too much: a line has a zone, a pattern as 127.0.0.2 and a weight as 3"
        )
    if not weight:
        raise EntryError("a weight of 0 says nothing: leave the line out")
    return name, Rule(pattern, weight, text.strip())


def read_pattern(text: str) -> Pattern:
    """`127.0.0.[2..11]`, `127.0.[0..255].[1;3..5]`. Raises EntryError."""
    found = _PLACES.fullmatch(text)
    if found is None:
        raise EntryError(f"{text!r} is no pattern: four places as in 127.0.0.2 or 127.0.0.[2..4;10]")
    pattern = tuple(_values(place.strip("[]"), text) for place in found.groups())
    if pattern[0] != {127}:
        raise EntryError(
            f"{text!r}: answers of a list begin with 127 (RFC 5782 2.1); others are not believed"
        )
    return pattern


def _values(place: str, text: str) -> frozenset[int]:
    values: set[int] = set()
    for part in place.split(";"):
        found = _RANGE.fullmatch(part)
        if found is None:
            raise EntryError(f"{text!r}: {place!r} is no number and no range as in 2..11")
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last or last > 255:
            raise EntryError(f"{text!r}: {part} is no range within 0 to 255")
        values.update(range(first, last + 1))
    return frozenset(values)


def usable(answers: Iterable[str]) -> tuple[list[str], str]:
    """The answers that say something of who was asked for; and what is wrong with the others, or empty."""
    fine: list[str] = []
    wrong = ""
    for answer in answers:
        if answer.startswith("127.255.255.") or answer == "127.0.1.255":
            # Spamhaus: a mistyped zone, a public resolver, too many questions; an address asked of the DBL.
            wrong = f"it answers {answer}: not to this resolver, not so often, or not to such a question"
        elif answer == "127.0.0.1":
            # URIBL's refusal; RFC 5782 5 forbids it as an entry.
            wrong = "it answers 127.0.0.1, which stands for no entry"
        elif answer.startswith("127."):
            fine.append(answer)
        else:
            # A resolver that sells names that do not exist, or a list whose domain is for sale.
            wrong = f"it answers {answer}, which is outside 127.0.0.0/8"
    return fine, wrong


def reverse(address: str) -> str:
    """How an address is asked for: octets or, in IPv6, nibbles, backwards (RFC 5782 2.1, 2.4)."""
    ip = ipaddress.ip_address(address)
    digits = str(ip).split(".") if ip.version == 4 else f"{int(ip):032x}"
    return ".".join(reversed(digits))
