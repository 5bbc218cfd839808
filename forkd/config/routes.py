"""Which mail goes another way than its domain's? The table of [route], first match. Pure.

    [route."PATTERN"]     user@example.org     one address, with or without a detail
                          example.org          a domain
                          *.example.org        all its sub-domains, however deep
                          *                    everything

In the order of the file; what no route matches goes by its [domain], or by queue.relay_transport. Looking up
costs as many steps as the domain has labels, however many routes there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import msgspec

from forkd.config.domains import EVERY_SUBDOMAIN, is_domain
from forkd.config.folding import folded
from forkd.config.schema import Config, Route
from forkd.smtp.address import a_labels, split_address

EVERYTHING: Final = "*"

Key = tuple[str, str]
"""Local part (folded; empty: every one) and domain, or "*.NAME", or "*"."""


@dataclasses.dataclass(frozen=True, slots=True)
class Routes:
    """The table; make it with from_config()."""

    by_key: Mapping[Key, tuple[int, str]]
    """Pattern, with its place in the file."""
    routes: Mapping[str, Route]
    """By pattern."""

    @classmethod
    def from_config(cls, routes: Mapping[str, Route]) -> Routes:
        """Of [route] as it was loaded and checked. Raises ValueError for what is no pattern."""
        by_key: dict[Key, tuple[int, str]] = {}
        for place, pattern in enumerate(routes):
            by_key.setdefault(key_of(pattern), (place, pattern))
        return cls(by_key, routes)

    def find(self, local: str, domain: str, *, mailbox: str = "") -> Route | None:
        """The route of the first pattern that matches; None: none does. As match()."""
        if not self.by_key:
            return None
        pattern = self.match(local, domain, mailbox=mailbox)
        return self.routes[pattern] if pattern else None

    def match(self, local: str, domain: str, *, mailbox: str = "") -> str:
        """The first pattern that matches; empty: none does.

        local    without quotes and escapes, as in Mailbox
        domain   in any script and case
        mailbox  the local part without its detail, where that is known
        """
        name = _name(domain)
        keys = [(folded(local), name), *_above(name)]
        if mailbox:
            keys.append((folded(mailbox), name))
        found = [self.by_key[key] for key in keys if key in self.by_key]
        return min(found)[1] if found else ""


def in_force(config: Config, route: Route | None) -> Route:
    """A route with what it leaves to [queue] and [reports] filled in; None: mail that no route matches."""
    route = route or Route()
    queue = config.queue
    return msgspec.structs.replace(
        route,
        retry_first=route.retry_first or queue.retry_first,
        retry_max=route.retry_max or queue.retry_max,
        give_up=route.give_up or queue.give_up,
        warn_after=route.warn_after or config.reports.warn_after,
        concurrency=route.concurrency or queue.concurrency,
    )


def key_of(pattern: str) -> Key:
    """What a pattern matches. Raises ValueError, whose text is the rule that does not hold."""
    local, domain = split_address(pattern) if "@" in pattern else ("", pattern)
    if "@" in pattern and not local:
        raise ValueError("an address has a part before the @; a domain stands without it")
    if domain == EVERYTHING and not local:
        return "", EVERYTHING
    if domain.startswith(EVERY_SUBDOMAIN) and not local:
        if is_domain(domain[2:]):
            return "", EVERY_SUBDOMAIN + a_labels(domain[2:])
    elif is_domain(domain) or (domain.startswith("[") and domain.endswith("]")):
        return folded(local), _name(domain)
    raise ValueError('this is "user@example.org", "example.org", "*.example.org" or "*"')


def hidden(patterns: Mapping[str, Route]) -> list[tuple[str, str]]:
    """Patterns that never match, each with the one before it that takes all of its mail."""
    before: dict[Key, str] = {}
    found: list[tuple[str, str]] = []
    for pattern in patterns:
        local, name = key = key_of(pattern)
        wider = _above(name) if not name.startswith(EVERYTHING) else _around(name)
        by = next((before[one] for one in (key, *wider) if one in before), None)
        if by is not None:
            found.append((pattern, by))
        before.setdefault((local, name), pattern)
    return found


def _name(domain: str) -> str:
    """As patterns have it; what is no name matches nothing but "*"."""
    try:
        return a_labels(domain)
    except ValueError:
        return domain


def _above(name: str) -> list[Key]:
    """Keys without a local part that match an address in that domain."""
    return [("", name), *_around(name)]


def _around(name: str) -> list[Key]:
    """Patterns for more than that domain, or than that pattern."""
    keys: list[Key] = [("", EVERYTHING)]
    rest = name.removeprefix(EVERY_SUBDOMAIN)
    while (dot := rest.find(".")) >= 0 and not rest.startswith("["):
        rest = rest[dot + 1 :]
        keys.append(("", EVERY_SUBDOMAIN + rest))
    return keys
