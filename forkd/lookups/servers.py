"""Which name servers are asked, and how long? What resolv.conf says, or the configuration in its place."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

import dns.asyncresolver
import dns.nameserver
import dns.resolver

from forkd import log

EDNS_BYTES: Final = 1232
"""What fits into one packet on any path (DNS flag day 2020)."""


def stub(
    servers: Iterable[str],
    timeout_s: float,
    kind: type[dns.nameserver.Do53Nameserver] = dns.nameserver.Do53Nameserver,
) -> dns.asyncresolver.Resolver | None:
    """One that asks those servers; none given: the machine's. `kind` is how one is asked.

    None where there is no name server to ask: the log says why.
    """
    resolver = dns.asyncresolver.Resolver(configure=False)
    asked = list(servers)
    if not asked:
        try:
            found = dns.asyncresolver.Resolver(configure=True)
        except (dns.resolver.NoResolverConfiguration, OSError) as error:
            log.service(act="no_resolver", level="warning", detail=str(error))
            return None
        asked = [str(server) for server in found.nameservers]
    resolver.nameservers = [kind(*endpoint(server)) for server in asked]
    # Two tries within the time: one packet may be lost.
    resolver.timeout = timeout_s / 2
    resolver.lifetime = timeout_s
    resolver.use_edns(0, 0, EDNS_BYTES)
    return resolver


def endpoint(server: str) -> tuple[str, int]:
    """Of "192.0.2.1", "192.0.2.1:53", "2001:db8::1" or "[2001:db8::1]:53"."""
    try:
        return str(ipaddress.ip_address(server.strip("[]"))), 53
    except ValueError:
        host, _, port = server.rpartition(":")
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
