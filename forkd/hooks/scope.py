"""Is this plugin asked about this session, this recipient, this message? The admin's [scope] of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from forkd.hooks.addresses import compared
from forkd.hooks.given import ScopeLike
from forkd.smtp.address import Mailbox


class Reach:
    """One plugin's scope, made once per worker: what is empty matches all, what is given must all match."""

    __slots__ = ("_domains", "_listeners", "_networks")

    def __init__(self, scope: ScopeLike) -> None:
        """Take the scope of a checked configuration; networks in any notation of ipaddress."""
        self._listeners = frozenset(scope.listeners)
        self._networks = tuple(ipaddress.ip_network(network, strict=False) for network in scope.networks)
        self._domains = frozenset(map(compared, scope.domains))

    @property
    def by_domain(self) -> bool:
        """It depends on recipients: nothing is asked before there is one."""
        return bool(self._domains)

    @property
    def everything(self) -> bool:
        """There is nothing to look up."""
        return not (self._domains or self._networks or self._listeners)

    def session(self, listener: str, client_ip: str) -> bool:
        """Are the listener and the client's address in it?"""
        if self._listeners and listener not in self._listeners:
            return False
        if not self._networks:
            return True
        try:
            address = ipaddress.ip_address(client_ip)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def recipients(self, recipients: Iterable[Mailbox]) -> bool:
        """Is one of them in it?"""
        return not self._domains or any(compared(to.domain) in self._domains for to in recipients)
