"""What do transports of kind "smtp" and "lmtp" need of the network and of this machine's files? Pure.

No more than the configuration's: without one that goes over IP qmgr has no IP sockets; with one it may
connect to its ports and to name servers', and bind nothing, but for the choice of a source address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from forkd.config.addresses import parse_host, parse_server
from forkd.config.next_hop_schema import Lmtp, NextHop, Smtp
from forkd.config.schema import Config

DNS_PORT = 53


def over_ip(config: Config) -> bool:
    """Some transport leaves this machine, or could."""
    return any(isinstance(table, NextHop) and not table.unix for table in config.transport.values())


def ports(config: Config) -> set[int]:
    """Of TCP: where next hops listen, and name servers, for answers too large for UDP."""
    if not over_ip(config):
        return set()
    found = {DNS_PORT, *(parse_server(server)[1] for server in config.dns.servers)}
    for table in config.transport.values():
        if isinstance(table, Smtp):
            found |= {port or table.usual_port for _, port in map(parse_host, table.hosts)}
            found |= set() if table.hosts else {table.usual_port}
        elif isinstance(table, Lmtp) and not table.unix:
            found.add(parse_host(table.address)[1])
    return found


def from_own_address(config: Config) -> bool:
    """A socket is bound to an address of ours, and to no port."""
    return any(
        isinstance(table, Smtp) and bool(table.source_ipv4 or table.source_ipv6)
        for table in config.transport.values()
    )


def by_system(config: Config) -> bool:
    """This machine is asked for addresses (/etc/hosts, and what libc reads)."""
    return not config.dns.servers and any(not _is_address(host) for host in _fixed(config))


def _fixed(config: Config) -> Iterator[str]:
    for table in config.transport.values():
        if isinstance(table, Smtp):
            yield from (parse_host(text)[0] for text in table.hosts)
        elif isinstance(table, Lmtp) and not table.unix:
            yield parse_host(table.address)[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
