"""Where does mail for a domain go? To the hosts of its MX records (RFC 5321 5.1), or to those an admin names.

What DNS says is remembered by the resolver (lookups/resolver.py), for its time to live. Whatever stands
there was written by whoever has the domain: numbers of hosts and addresses are bounded, and a host that is
ourselves ends the list, since mail would go in circles.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import itertools
import random
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol

from forkd.lookups.resolver import Answer
from forkd.smtp.address import a_labels

MAX_HOSTS: Final = 10
"""MX hosts whose addresses are looked up; a list of more is no more reliable."""
MAX_HOPS: Final = 20
SYSTEM_TTL_S: Final = 60.0
"""How long addresses are kept that the machine told us of a host: it says nothing of their time to live."""
_VERSIONS: Final = {"any": (6, 4), "ipv4": (4,), "ipv6": (6,)}
_KINDS: Final = {6: "aaaa", 4: "a"}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclasses.dataclass(frozen=True, slots=True)
class Hop:
    """One address that can be tried; two that are equal may share a connection.

    name      of the host, in A-labels; its address where it has none; "localhost" for a unix socket
    address   IP address as text; of a unix socket its path
    port      0: a unix socket
    domain    the recipient's, where the host was found by MX and must prove that it serves this one
    """

    name: str
    address: str
    port: int
    domain: str = ""


class NoHops(Exception):  # noqa: N818 - a state of the world
    """Nobody takes mail for that domain; or nobody can say now who does (status "deferred")."""

    def __init__(self, status: Literal["deferred", "failed"], enhanced: str, text: str) -> None:
        super().__init__(text)
        self.status: Literal["deferred", "failed"] = status
        self.enhanced = enhanced
        self.text = text


class Lookups(Protocol):
    """Who is asked: lookups.resolver.Resolver."""

    async def look(self, name: tuple[str, ...], kind: str) -> Answer: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ourselves:
    """Who we are, for others' MX records: names in A-labels, and (address, port) of our listeners."""

    names: frozenset[str] = frozenset()
    listeners: tuple[tuple[str, int], ...] = ()

    def listen_at(self, hop: Hop) -> bool:
        """Mail for it would come back to us."""
        address = ipaddress.ip_address(hop.address)
        for text, port in self.listeners:
            listening = ipaddress.ip_address(text)
            same = port == hop.port and listening.version == address.version
            if same and (listening == address or (listening.is_unspecified and _is_local(address))):
                return True
        return False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What of a transport's settings decides where its mail goes.

    fixed    next hops as (host, port), or (path, 0) of a unix socket; empty: MX
    port     of MX hosts
    family   "any", "ipv4" or "ipv6"
    proven   hosts found by MX must prove that they serve the recipient's domain (Hop.domain)
    system   addresses of `fixed` are asked of this machine (/etc/hosts, then DNS), not of the resolver
    """

    fixed: tuple[tuple[str, int], ...] = ()
    port: int = 25
    family: str = "any"
    proven: bool = False
    system: bool = True
    ourselves: Ourselves = Ourselves()


class Hosts:
    """Of one transport. For one event loop."""

    def __init__(
        self, settings: Settings, lookups: Lookups, *, shuffler: random.Random | None = None
    ) -> None:
        self._settings = settings
        self._lookups = lookups
        self._random = shuffler or random.Random()  # noqa: S311 - the load, not a secret
        self._of_system: dict[str, tuple[float, list[str]]] = {}
        """Of fixed hosts: until when (monotonic), and their addresses."""

    @property
    def by_domain(self) -> bool:
        """Hops depend on the recipient's domain."""
        return not self._settings.fixed

    async def hops(self, domain: str) -> tuple[Hop, ...]:
        """In the order in which they are to be tried: MX by preference, equal ones shuffled, each with its
        addresses, those of both families in turns; fixed hosts as they are written.

        domain  as in the envelope: a name in any script, or an address literal
        Raises  NoHops, after a few times dns.timeout at most.
        """
        if self._settings.fixed:
            return await self._fixed()
        if domain.startswith("["):
            return self._literal(domain)
        try:
            name = a_labels(domain.removesuffix("."))
        except ValueError:
            raise NoHops("failed", "5.1.2", f"{domain} is no domain name") from None
        return await self._by_mx(name)

    # --- MX -------------------------------------------------------------------------------------------

    async def _by_mx(self, name: str) -> tuple[Hop, ...]:
        answer = await self._look(name, "mx")
        match answer.status:
            case "temporary":
                raise NoHops("deferred", "4.4.3", f"no answer from DNS about the MX records of {name}")
            case "no_such_name":
                raise NoHops("failed", "5.1.2", f"the domain {name} does not exist")
            case "no_data":
                records: Sequence[tuple[int, str]] = [(0, name)]  # RFC 5321 5.1: an implicit MX
            case _:
                records = answer.records
        if all(not host for _, host in records):
            raise NoHops("failed", "5.1.10", f"the domain {name} takes no mail (null MX, RFC 7505)")
        ourselves = self._settings.ourselves
        hosts = in_order([(number, host) for number, host in records if host], self._random)
        before = list(itertools.takewhile(lambda each: each[1] not in ourselves.names, hosts))
        better = [each for each in before if len(before) == len(hosts) or each[0] < hosts[len(before)][0]]
        if not better:
            raise _loops(name)
        return await self._addresses(name, better[:MAX_HOSTS], implicit=answer.status == "no_data")

    async def _addresses(
        self, name: str, hosts: Sequence[tuple[int, str]], *, implicit: bool
    ) -> tuple[Hop, ...]:
        """The addresses of those MX hosts, up to the preference of one that is ours."""
        domain = name if self._settings.proven else ""
        found = await asyncio.gather(*(self._of_host(host) for _, host in hosts))
        hops: list[tuple[int, Hop]] = []
        for (preference, host), (addresses, _) in zip(hosts, found, strict=True):
            hops += [(preference, Hop(host, text, self._settings.port, domain)) for text in addresses]
        ours = min(
            (preference for preference, hop in hops if self._settings.ourselves.listen_at(hop)), default=None
        )
        better = [hop for preference, hop in hops if ours is None or preference < ours]
        if better:
            return tuple(better[:MAX_HOPS])
        if any(temporary for _, temporary in found):
            raise NoHops("deferred", "4.4.3", f"no answer from DNS about the mail servers of {name}")
        if ours is not None:
            raise _loops(name)
        if implicit:
            raise NoHops("failed", "5.1.2", f"the domain {name} has no mail server")
        shown = ", ".join(host for _, host in hosts[:3])
        raise NoHops("failed", "5.4.4", f"no mail server of {name} has an address ({shown})")

    async def _of_host(self, host: str) -> tuple[list[str], bool]:
        """A host's addresses, as they are to be tried; True: of some we could not hear."""
        versions = _VERSIONS[self._settings.family]
        answers = await asyncio.gather(*(self._look(host, _KINDS[version]) for version in versions))
        families = [[text for text in answer.records if usable(text)] for answer in answers]
        for texts in families:
            self._random.shuffle(texts)
        return in_turns(families), any(answer.status == "temporary" for answer in answers)

    def _literal(self, domain: str) -> tuple[Hop, ...]:
        """An address literal (RFC 5321 4.1.3): that host, and no other."""
        text = domain[1:].removesuffix("]")
        if text[:5].lower() == "ipv6:":
            text = text[5:]
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise NoHops("failed", "5.1.2", f"{domain} is no address that mail could go to") from None
        if address.version not in _VERSIONS[self._settings.family] or not usable(str(address)):
            raise NoHops("failed", "5.4.4", f"no mail goes to {domain} from here")
        hop = Hop(str(address), str(address), self._settings.port, domain if self._settings.proven else "")
        if self._settings.ourselves.listen_at(hop):
            raise _loops(domain)
        return (hop,)

    async def _look(self, name: str, kind: str) -> Answer:
        labels = tuple(name.split("."))
        if len(name) > 253 or not all(0 < len(label) < 64 for label in labels) or not name.isascii():
            return Answer("no_such_name")
        return await self._lookups.look(labels, kind)

    # --- fixed hosts ----------------------------------------------------------------------------------

    async def _fixed(self) -> tuple[Hop, ...]:
        hops: list[Hop] = []
        why = ""
        for host, port in self._settings.fixed:
            if not port:
                hops.append(Hop("localhost", host, 0))
                continue
            try:
                hops += [Hop(host, text, port) for text in await self._of_fixed(host)]
            except OSError as error:
                why = why or f"{host}: {error.strerror or error}"
        if not hops:
            # An admin named them: he or his name server can mend it.
            raise NoHops("deferred", "4.4.3", f"the next hop has no address: {why}")
        return tuple(hops[:MAX_HOPS])

    async def _of_fixed(self, host: str) -> list[str]:
        """Raises OSError where none is known."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        if not self._settings.system:
            addresses, temporary = await self._of_host(host)
            if not addresses:
                raise OSError("no answer from DNS" if temporary else "no such host, or no address of it")
            return addresses
        until, known = self._of_system.get(host, (0.0, []))
        if time.monotonic() >= until:
            known = await _of_system(host, _VERSIONS[self._settings.family])
            self._of_system[host] = time.monotonic() + SYSTEM_TTL_S, known
        return known


# --- pure ------------------------------------------------------------------------------------------------


def in_order(records: Iterable[tuple[int, str]], shuffler: random.Random) -> list[tuple[int, str]]:
    """MX records by preference, those of the same one in any order, each time another (RFC 5321 5.1)."""
    mixed = list(dict.fromkeys(records))
    shuffler.shuffle(mixed)
    return sorted(mixed, key=lambda record: record[0])


def in_turns(lists: Iterable[Sequence[str]]) -> list[str]:
    """The first of each, the second of each …: where one family does not work, the other is tried soon."""
    return [text for turn in itertools.zip_longest(*lists) for text in turn if text is not None]


def usable(address: str) -> bool:
    """One that a host may have. 0.0.0.0 would be ourselves, and a group is nobody."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    each: Iterator[Address] = iter((parsed, mapped) if mapped else (parsed,))
    return not any(one.is_unspecified or one.is_multicast or int(one) == 0xFFFFFFFF for one in each)


def _loops(name: str) -> NoHops:
    return NoHops(
        "failed", "5.4.6", f"mail for {name} would come back: we are its best mail server ourselves"
    )


# --- this machine ----------------------------------------------------------------------------------------


def _is_local(address: Address) -> bool:
    """An address of this machine's own: to it the kernel would send from it. Nothing is sent."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((str(address), 9))
            return ipaddress.ip_address(str(asking.getsockname()[0]).partition("%")[0]) == address
    except OSError:
        return False  # no way there at all


async def _of_system(host: str, versions: Sequence[int]) -> list[str]:
    """What this machine says of a name, in /etc/hosts and beyond. Raises OSError."""
    found: list[tuple[Any, ...]] = await asyncio.get_running_loop().getaddrinfo(
        host, None, type=socket.SOCK_STREAM
    )
    texts = dict.fromkeys(str(each[4][0]) for each in found)
    parsed = [(ipaddress.ip_address(text.partition("%")[0]).version, text) for text in texts]
    addresses = in_turns([[text for have, text in parsed if have == want] for want in versions])
    if not addresses:
        raise OSError(f"it has no {' or '.join(f'IPv{version}' for version in versions)} address")
    return addresses
