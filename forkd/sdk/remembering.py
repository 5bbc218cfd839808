"""What do plugins that keep something in `session.state` need? Keys that fit, networks of clients, periods.

    key = state_key("seen", network_of(session.client_ip, 24, 64), str(sender))
    session.state.add(key, 1, ttl=period("2d"))

What is too much for a key is hashed, what is no address is its own network, what is no period is refused.
"""

from __future__ import annotations

import ipaddress
import re
from _blake2 import blake2b  # hashlib would bring libcrypto along, half a megabyte in every sandbox

from forkd.sdk.capabilities import MAX_KEY_OCTETS

_LONGEST = 400 * 86_400
"""Seconds; more is a slip of the pen, and a store that never forgets fills up."""
_PERIOD = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WORDS = {"d": "day", "h": "hour", "m": "minute", "s": "second"}


def state_key(*parts: str) -> str:
    """A key of these parts that fits whatever their length; a different one for other parts.

    Readable as long as it fits, so that one can see in the store who is meant; the end of a longer one is
    a hash over the whole.
    """
    # A blank within a part would let two lists of parts meet in one key; %~ then stands nowhere else.
    key = " ".join(part.replace("%", "%25").replace(" ", "%20") for part in parts)
    octets = key.encode("utf-8", "replace")
    if len(octets) <= MAX_KEY_OCTETS:
        return octets.decode()
    digest = blake2b(octets, digest_size=20).hexdigest()
    return f"{octets[: MAX_KEY_OCTETS - 42].decode('utf-8', 'ignore')}%~{digest}"


def network_of(address: str, ipv4_prefix: int, ipv6_prefix: int) -> str:
    """The client's network, by which hosts that send together are taken for one; itself with 32 and 128.

    What is no address, as of a client on a unix socket, stays as it is.
    """
    try:
        client = ipaddress.ip_address(address)
    except ValueError:
        return address
    prefix = ipv4_prefix if client.version == 4 else ipv6_prefix
    if prefix >= client.max_prefixlen:
        return str(client)
    return str(ipaddress.ip_network((client, prefix), strict=False))


def period(text: str) -> int:
    """Seconds of `30s`, `5m`, `1h`, `36d`. Raises ValueError."""
    found = _PERIOD.fullmatch(text)
    if found is None:
        raise ValueError(f'a period is a whole number and one of s, m, h, d, as in "5m", not {text!r}')
    seconds = int(found[1]) * _UNITS[found[2]]
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f'a period is between "1s" and "{_LONGEST // 86_400}d", not {text!r}')
    return seconds


def spoken(seconds: int) -> str:
    """`5 minutes`: a period for people to read, exact."""
    for unit, size in _UNITS.items():
        count, rest = divmod(seconds, size)
        if count and not rest:
            return f"{count} {_WORDS[unit]}{'s' if count > 1 else ''}"
    return "no time"
