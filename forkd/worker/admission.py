"""May this peer connect now? Per-client limits over all workers, asked before a word is said."""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Sequence

from forkd.config.schema import Config
from forkd.rpc.channel import RequestClient, Unavailable
from forkd.rpc.messages import ClientConnect, ClientDisconnect
from forkd.smtp import replies
from forkd.smtp.reply import Reply

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CACHED_ADDRESSES = 4096


@functools.lru_cache(_CACHED_ADDRESSES)
def peer_address(text: str) -> Address:
    """The address of an accepted peer, IPv4-mapped ones unmapped (RFC 4291 2.5.5.2)."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def client_key(address: Address) -> str:
    """What limits count by: the IPv4 address, or the IPv6 /64 that one customer usually has."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


class Networks:
    """Does an address lie in one of these networks? Answers are remembered, the tables are small."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(n, strict=False) for n in networks)
        self._known: dict[Address, bool] = {}

    def __contains__(self, address: Address) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _CACHED_ADDRESSES:
                self._known.clear()
            known = any(address in network for network in self._networks)
            self._known[address] = known
        return known


class Admission:
    """Counts this worker's sessions and asks anvil about clients that are not trusted.

    When anvil does not answer, each worker applies the limit divided by the number of workers,
    so that the limit over all still holds.
    """

    ANVIL_TIMEOUT_S = 1.0

    def __init__(self, config: Config, *, workers: int, anvil: RequestClient) -> None:
        self._limits = config.limits
        self._workers = max(1, workers)
        self._anvil = anvil
        self._trusted = Networks(config.networks.trusted)
        self._here: Counter[str] = Counter()
        self._sessions = 0

    def enter(self, address: Address) -> Reply | str | None:
        """Count a new connection in: a refusal, the key to ask anvil for, or None (welcome).

        Every enter() that did not return a Reply is followed by one leave().
        """
        if self._sessions >= self._limits.sessions:
            return replies.OVERLOAD_CLOSE
        self._sessions += 1
        if address in self._trusted:
            return None
        key = client_key(address)
        self._here[key] += 1
        return key

    async def ask(self, key: str) -> Reply | None:
        """The answer over all workers for a key from enter(): a refusal, or None.

        Blocks for one round trip to anvil, ANVIL_TIMEOUT_S at most.
        """
        limits = self._limits
        try:
            counts = await self._anvil.request(
                lambda n: ClientConnect(n=n, client=key), timeout_s=self.ANVIL_TIMEOUT_S
            )
        except Unavailable:
            if self._here[key] > max(1, limits.sessions_per_client // self._workers):
                return replies.TOO_MANY_CONNECTIONS
            return None
        if counts.sessions > limits.sessions_per_client:
            return replies.TOO_MANY_CONNECTIONS
        if 0 < limits.connections_per_minute < counts.connections_last_minute:
            return replies.TOO_MANY_CONNECTIONS
        return None

    def leave(self, key: str | None) -> None:
        """Count a connection out; `key` is what enter() gave."""
        self._sessions -= 1
        if key is None:
            return
        self._here[key] -= 1
        if self._here[key] <= 0:
            del self._here[key]
        self._anvil.post(ClientDisconnect(client=key))
