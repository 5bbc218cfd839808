"""Whom does a list name? Clients by address, network or reverse name; senders, recipients and users by name.

The form in which the stock plugins take their exceptions, in a setting or in a file (see listfile):

    client 192.0.2.1, client 192.0.2.0/24       this address, this network
    client mail.example.com                     the client with this reverse name, verified both ways
    client .example.com                         every client whose name lies below it, itself not
    sender user@example.com                     this address; likewise recipient
    sender example.com                          every address at this domain, its sub-domains not
    sender .example.com                         every address at its sub-domains, however deep
    sender user@                                this local part at any domain
    sender <>                                   the null sender
    user alice                                  who authenticated by this name
"""

from __future__ import annotations

import ipaddress

from forkd.sdk.listfile import EntryError, domain_name, given, read_entries, take_all, unquoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from forkd.sdk.address import Address
    from forkd.sdk.views import Session


class Domains:
    """Domain names: one by one, or all below one."""

    __slots__ = ("_below", "_these")

    def __init__(self) -> None:
        self._these: set[str] = set()
        self._below: set[str] = set()

    def add(self, entry: str) -> None:
        """`example.com`, or `.example.com` for all below it. Raises EntryError."""
        entry = entry.removeprefix("*")
        if entry.startswith("."):
            self._below.add(domain_name(entry[1:]))
        else:
            self._these.add(domain_name(entry))

    def __bool__(self) -> bool:
        return bool(self._these or self._below)

    def names(self, domain: str) -> bool:
        """Is it one of them? `domain` in lower case."""
        if domain in self._these:
            return True
        while self._below and (dot := domain.find(".")) >= 0:
            domain = domain[dot + 1 :]
            if domain in self._below:
                return True
        return False


class Networks:
    """Addresses and networks of both families; looked up in one step per length of prefix."""

    __slots__ = ("_by_prefix",)

    def __init__(self, *entries: str) -> None:
        self._by_prefix: dict[tuple[int, int], set[int]] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: str) -> None:
        """`192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`. Raises EntryError."""
        try:
            network = ipaddress.ip_network(entry)
        except ValueError as why:
            raise EntryError(f"no address and no network: {why}") from None
        key = (network.version, network.prefixlen)
        value = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
        self._by_prefix.setdefault(key, set()).add(value)

    def names(self, address: str) -> bool:
        """Does it lie in one of them? False for what is no address."""
        try:
            client = ipaddress.ip_address(address)
        except ValueError:
            return False
        value = int(client)
        return any(
            version == client.version and value >> (client.max_prefixlen - prefix) in networks
            for (version, prefix), networks in self._by_prefix.items()
        )


PRIVATE = Networks(
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16", "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""What no client has on the Internet (RFC 6890): hosts of one's own. Those for documentation are not here."""


class Clients:
    """Clients by address, network or reverse name."""

    __slots__ = ("_domains", "_networks")

    def __init__(self) -> None:
        self._networks = Networks()
        self._domains = Domains()

    def add(self, entry: str) -> None:
        """An address, a network, a name, or all names below `.example.com`. Raises EntryError."""
        if ":" in entry or not entry.strip("0123456789./"):
            self._networks.add(entry)
        else:
            self._domains.add(entry)

    def names(self, session: Session) -> bool:
        """Is this session's client one of them? A reverse name counts only verified, as forkd tells it."""
        return self._networks.names(session.client_ip) or self._domains.names(session.client_name.lower())


class Addresses:
    """Mailboxes: one by one, by domain, or by local part."""

    __slots__ = ("_addresses", "_domains", "_null", "_users")

    def __init__(self) -> None:
        self._addresses: set[str] = set()
        self._users: set[str] = set()
        self._domains = Domains()
        self._null = False

    def add(self, entry: str) -> None:
        """One of the forms above. Raises EntryError."""
        local, at, domain = entry.lower().rpartition("@")
        if entry == "<>":
            self._null = True
        elif not at or local in ("", "*"):
            self._domains.add(domain)
        elif domain in ("", "*"):
            self._users.add(unquoted(local))
        else:
            self._addresses.add(f"{unquoted(local)}@{domain_name(domain)}")

    def __bool__(self) -> bool:
        return self._null or bool(self._addresses or self._users or self._domains)

    def names(self, address: Address) -> bool:
        """Is this address one of them?"""
        if not address:
            return self._null
        local, domain = address.local.lower(), address.domain.lower()
        return local in self._users or f"{local}@{domain}" in self._addresses or self._domains.names(domain)


class Exceptions:
    """Whom a plugin leaves alone: lines `KIND ENTRY` as above."""

    __slots__ = ("_kinds", "clients", "recipients", "senders", "users")

    def __init__(self) -> None:
        self.clients = Clients()
        self.senders = Addresses()
        self.recipients = Addresses()
        self.users: set[str] = set()
        self._kinds: dict[str, Callable[[str], object]] = {
            "client": self.clients.add,
            "sender": self.senders.add,
            "recipient": self.recipients.add,
            "user": lambda name: self.users.add(name.lower()),
        }

    def add(self, line: str) -> None:
        """Take one line. Raises EntryError."""
        kind, _, entry = line.partition(" ")
        entry = entry.strip()
        if kind not in self._kinds or not entry or len(entry.split()) > 1:
            raise EntryError(f"write one of {', '.join(self._kinds)}, a blank, and whom: client 192.0.2.1")
        self._kinds[kind](entry)


def exceptions(setting: str, lines: Iterable[str], files: Iterable[str] = ()) -> Exceptions:
    """What a setting and list files name. Raises EntryError with every bad line, OSError for a file."""
    named = Exceptions()
    take_all(given(setting, lines), named.add, what="these name nobody")
    for file in files:
        take_all(read_entries(file), named.add, what="these name nobody")
    return named
