"""What does its address alone tell about a client? The keys it is counted by, and the networks it is in."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Sequence

from forkd.config.schema import Config

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CACHED_ADDRESSES = 4096


@functools.lru_cache(CACHED_ADDRESSES)
def peer_address(text: str) -> Address:
    """The address of an accepted peer, IPv4-mapped ones unmapped (RFC 4291 2.5.5.2).

    Raises ValueError for what is no address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def client_key(address: Address) -> str:
    """What limits count by: the IPv4 address, or the IPv6 /64 that one customer usually has."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def network_key(address: Address, *, v4: int, v6: int) -> str:
    """What limits per network count by; never equal to the key of a client."""
    prefix = v4 if address.version == 4 else v6
    return f"network {ipaddress.ip_network((address, prefix), strict=False)}"


@dataclasses.dataclass(frozen=True, slots=True)
class Client:
    """One client address; all its sessions in this worker share the value.

    key       for limits per client; empty for trusted clients: they are exempt
    network   for limits and shares per network; empty for trusted clients
    relay     may send to any domain (networks.relay)
    proxy     may say by a PROXY header who the client is
    xclient   may say by XCLIENT who the client is
    wire      how its bare line ends are met, None: as its listener says
    """

    address: Address
    key: str
    network: str
    relay: bool
    proxy: bool
    xclient: bool
    wire: str | None

    @property
    def trusted(self) -> bool:
        """Exempt from limits per address, and never from relay rules (networks.trusted)."""
        return not self.key


class Clients:
    """The tables of [networks]; what was found is remembered, for they are walked one by one."""

    def __init__(self, config: Config) -> None:
        networks = config.networks
        self._trusted = _parsed(networks.trusted)
        self._relay = _parsed(networks.relay)
        self._proxy = _parsed(networks.proxy)
        self._xclient = _parsed(networks.xclient)
        self._wire = sorted(
            [(network, "reject") for network in _parsed(networks.wire_reject)]
            + [(network, "normalize") for network in _parsed(networks.wire_normalize)],
            key=lambda row: row[0].prefixlen,
            reverse=True,
        )
        self._prefix_v4 = config.limits.network_prefix_v4
        self._prefix_v6 = config.limits.network_prefix_v6
        self._known: dict[str, Client] = {}

    def find(self, text: str) -> Client:
        """The client of an address as text. Raises ValueError for what is no address."""
        client = self._known.get(text)
        if client is None:
            client = self._look(peer_address(text))
            if len(self._known) >= CACHED_ADDRESSES:
                self._known.clear()
            self._known[text] = client
        return client

    def _look(self, address: Address) -> Client:
        trusted = _within(address, self._trusted)
        return Client(
            address=address,
            key="" if trusted else client_key(address),
            network="" if trusted else network_key(address, v4=self._prefix_v4, v6=self._prefix_v6),
            relay=_within(address, self._relay),
            proxy=_within(address, self._proxy),
            xclient=_within(address, self._xclient),
            # The narrowest network is the first.
            wire=next((wire for network, wire in self._wire if address in network), None),
        )


def _parsed(networks: Sequence[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(network, strict=False) for network in networks)


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
