"""How are addresses and networks written, and what was probably meant by one that is none?"""

from __future__ import annotations

import ipaddress

from forkd.config.domains import is_domain
from forkd.smtp.address import a_labels

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:25` or `[::1]:25` as host and port; port 0 lets the kernel choose (for tests).

    Raises ValueError, its text being the rule. Host names are refused: which of its addresses is meant,
    and whether it can be looked up at boot, is nothing to find out by trying.
    """
    rule = "this is HOST:PORT with an IP address, as in 127.0.0.1:25, 0.0.0.0:25 or [::]:25"
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(rule)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(rule) from None
    if bracketed != (address.version == 6):
        raise ValueError(rule)
    return str(address), int(port)


def parse_server(text: str) -> tuple[str, int]:
    """`192.0.2.53`, `192.0.2.53:5353`, `[2001:db8::53]:5353` as host and port; 53 by default.

    Raises ValueError, its text being the rule.
    """
    try:
        return str(ipaddress.ip_address(text)), 53
    except ValueError:
        pass
    try:
        host, port = parse_address(text)
    except ValueError:
        port = 0
    if not port:
        raise ValueError("this is a name server's IP address, as in 192.0.2.53 or 192.0.2.53:5353")
    return host, port


def parse_host(text: str) -> tuple[str, int]:
    """`mail.example.org`, `192.0.2.1`, `[2001:db8::1]`, each perhaps with `:25`: name or address in its one
    form (A-labels, no brackets) and port; port 0: none is given.

    Raises ValueError, its text being the rule.
    """
    rule = "this is a host, as in mail.example.org, 192.0.2.1 or [2001:db8::1], with :PORT if need be"
    host, colon, port = (text, "", "") if text.endswith("]") else text.rpartition(":")
    if not colon:
        host, port = text, "0"
    elif not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65_535):
        raise ValueError(rule)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        if bracketed or not is_domain(host) or host.rpartition(".")[2].isdecimal():
            raise ValueError(rule) from None
        return a_labels(host), int(port)
    if bracketed != (address.version == 6):
        raise ValueError(rule)
    return str(address), int(port)


def parse_network(text: str) -> Network:
    """A network or a single address. Raises NetworkError."""
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError:
        rule = "this is a network, as in 192.0.2.0/24 or 2001:db8::/32, or an address"
        raise NetworkError(rule, _network_slip(text)) from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
        mapped = network.network_address.ipv4_mapped
        raise NetworkError("clients over IPv4 are seen with their IPv4 address", f"write {mapped}")
    return network


class NetworkError(ValueError):
    """Not a network; the text is the rule, `hint` what was probably meant (or empty)."""

    def __init__(self, rule: str, hint: str) -> None:
        super().__init__(rule)
        self.hint = hint


def overlap(one: str, other: str) -> bool:
    """One address, or one of them is every address of the same family."""
    if one == other:
        return True
    same_family = (":" in one) == (":" in other)
    return same_family and any(ipaddress.ip_address(host).is_unspecified for host in (one, other))


def address_slip(text: str) -> str:
    """A hint for a text that parse_address() refuses, or empty."""
    host, colon, port = text.rpartition(":")
    if host in ("*", "") and colon:
        return f'write "0.0.0.0:{port}" or "[::]:{port}"'
    if host == "localhost":
        return f'write "127.0.0.1:{port}" or "[::1]:{port}"'
    if host.count(":") > 1 and not host.startswith("["):
        return f'write "[{host}]:{port}"'
    if not colon and "." in text:
        return f'write "{text}:25"'
    return f'write "127.0.0.1:{text}"' if text.isdecimal() else ""


def _network_slip(text: str) -> str:
    try:
        return f'write "{ipaddress.ip_network(text, strict=False)}"'
    except ValueError:
        return ""
