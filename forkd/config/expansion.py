"""Which recipients exist, and who gets the mail of those that stand for others? What a worker asks at RCPT.

The table of recipients with the aliases in front of it. An alias counts before a mailbox of its name, and
needs none. Its members are those that exist: a mailbox, or an address elsewhere, which the admin's own line
may relay to, whoever the client is. An alias of which no member exists is no recipient either.

qmgr never asks for aliases but when it writes a report: the envelope has the members, so what a message was
accepted for is settled, whatever is written into the files while it waits.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Final

from forkd.config.aliases import MOST_ADDRESSES, MOST_DEPTH, Aliases, Key, Member, TooMany
from forkd.config.recipients import POSTMASTER, Accepted, NotLocal, Recipients, Unknown
from forkd.smtp.address import split_address

CACHE: Final = 256
"""Expansions remembered per worker ..."""
CACHED_ADDRESSES: Final = 3 * MOST_ADDRESSES
"""... and so many addresses in them, about 9 MiB."""


@dataclasses.dataclass(frozen=True, slots=True)
class Expanded:
    """An alias: the recipient exists, and these stand in its place. At least one."""

    members: dict[Key, Member]
    """By the address as it is compared: over several aliases of a message each gets it once."""
    transports: frozenset[str]
    """Names of the [transport]s that they go to."""

    @property
    def owners(self) -> frozenset[str]:
        """Senders that their mail has; empty: the message's."""
        return frozenset(member.owner for member in self.members.values())


@dataclasses.dataclass(frozen=True, slots=True)
class Unexpandable:
    """More addresses than aliases.MOST_ADDRESSES: 450 4.2.4, until an admin has seen to it.

    Where a line alone is too long, that is said when the file is read; whole domains meet only here.
    """


AliasResolution = Accepted | Expanded | NotLocal | Unknown | Unexpandable
TAKEN: Final = (Accepted, Expanded)
"""Of these: the recipient exists."""

_UNKNOWN: Final = Unknown()
_UNEXPANDABLE: Final = Unexpandable()


class AliasedRecipients:
    """The table with its aliases; it never changes."""

    __slots__ = ("_aliases", "_cache", "_cached", "_table")

    def __init__(self, table: Recipients, aliases: Aliases) -> None:
        self._table = table
        self._aliases = aliases
        self._cache: OrderedDict[tuple[Key, str], Expanded | Unknown | Unexpandable] = OrderedDict()
        self._cached = 0
        """Addresses in it."""

    def resolve(self, local: str, domain: str, *, may_relay: bool) -> AliasResolution:
        """What becomes of mail to that address; as Recipients.resolve, and aliases.

        The first time for a list of 10,000 it takes about 0.1 s.
        """
        table = self._table
        if not self._aliases:
            return table.resolve(local, domain, may_relay=may_relay)
        at = domain or (next(iter(table.domains), "") if local.lower() == POSTMASTER else "")
        line = self._aliases.find(local, at, table.detail_of(at)) if table.is_ours(at) else None
        if line is None:
            return table.resolve(local, domain, may_relay=may_relay)
        at, line = self._onward(local, at, line)
        # One line for a whole domain says something else for each address in it.
        key = line, "" if line[0] else local
        found = self._cache.get(key)
        if found is None:
            found = self.expand(local, at)
            self._remember(key, found)
        else:
            self._cache.move_to_end(key)
        return found

    def _onward(self, local: str, domain: str, line: Key) -> tuple[str, Key]:
        """The domain and the line that count in the end. `@old: @new` alone says no more than the address in
        the other domain does; else a client that makes up `list+1@old`, `list+2@old` … had a long list
        expanded for each of them."""
        aliases = self._aliases
        for _ in range(MOST_DEPTH):
            targets = aliases.table[line].targets
            if line[0] or len(targets) != 1 or not targets[0].startswith("@"):
                break
            onward = targets[0][1:]
            after = aliases.find(local, onward, self._table.detail_of(onward))
            if after is None:
                break
            domain, line = onward, after
        return domain, line

    def _remember(self, key: tuple[Key, str], found: Expanded | Unknown | Unexpandable) -> None:
        cache = self._cache
        cache[key] = found
        self._cached += _size(found)
        while len(cache) > CACHE or self._cached > CACHED_ADDRESSES:
            self._cached -= _size(cache.popitem(last=False)[1])

    def expand(self, local: str, domain: str) -> Expanded | Unknown | Unexpandable:
        """The members of an alias that there is."""
        table = self._table
        try:
            whole = self._aliases.expand(local, domain, table.detail_of)
        except TooMany:
            return _UNEXPANDABLE
        members: dict[Key, Member] = {}
        transports: set[str] = set()
        for key, member in whole.items():
            found = table.resolve(*split_address(member.address), may_relay=True)
            if isinstance(found, Accepted):
                members[key] = member
                transports.add(found.transport)
        return Expanded(members, frozenset(transports)) if members else _UNKNOWN


def _size(found: Expanded | Unknown | Unexpandable) -> int:
    return len(found.members) if isinstance(found, Expanded) else 0
