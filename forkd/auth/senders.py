"""Which addresses may a user send from? Pure: a table of domains, what the user has, an address.

A user with addresses may use these: `name@domain`, every name of `@domain`, or `*` for everything. One
without has his own: the login where it is an address, else the login as local part in each of our domains.
The detail of an address in a domain of ours (anna+news@) is its owner's to choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from forkd.config.folding import folded
from forkd.config.schema import Domain
from forkd.smtp.address import a_labels

EVERYTHING: Final = "*"


def address_problem(address: str) -> str:
    """Why this cannot stand in a user's `send=`, or empty."""
    if address == EVERYTHING:
        return ""
    local, at, domain = address.rpartition("@")
    if not at or not domain or any(character.isspace() or character == "," for character in address):
        return "name@domain, @domain or * is wanted"
    try:
        a_labels(domain)
    except ValueError:
        return f"{domain} is no domain name"
    return "" if local or address == f"@{domain}" else "name@domain, @domain or * is wanted"


class Senders:
    """Built once from the [domain] tables."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self._detail = {a_labels(name): domain.detail for name, domain in domains.items()}

    def may_send(self, login: str, addresses: Iterable[str], local: str, domain: str) -> bool:
        """May `login`, who has `addresses`, send as local@domain?"""
        name, where = folded(local), _domain(domain)
        names = {name}
        if separator := self._detail.get(where, ""):
            names.add(name.partition(separator)[0])
        for address in tuple(addresses) or self._own(login):
            if address == EVERYTHING:
                return True
            allowed, _, theirs = address.rpartition("@")
            if _domain(theirs) == where and (not allowed or folded(allowed) in names):
                return True
        return False

    def _own(self, login: str) -> tuple[str, ...]:
        if "@" in login:
            return (login,)
        return tuple(f"{login}@{domain}" for domain in self._detail)


def _domain(name: str) -> str:
    try:
        return a_labels(name)
    except ValueError:
        return name
