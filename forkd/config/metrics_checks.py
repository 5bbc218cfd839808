"""Can [metrics] be listened on, and does the world read what is meant for this machine?"""

from __future__ import annotations

import ipaddress

from forkd.config.checking import Check

_HINT = 'write "127.0.0.1:9252", "/run/forkd-metrics.sock", "auto", or "" for none'


def metrics(c: Check) -> None:
    """Of CHECKS."""
    path, listen = ("metrics", "listen"), c.config.metrics.listen
    if not c.clean(path) or listen in ("", "auto"):
        return
    if "/" in listen:
        if not listen.startswith("/") or "\0" in listen:
            c.bad(path, "the path of a socket is absolute", value=listen, hint=_HINT)
        return
    host = _host(listen)
    if host is None:
        c.bad(path, "this is an address and a port, or the path of a socket", value=listen, hint=_HINT)
    elif not host.is_loopback:
        c.notes.append(
            f"metrics.listen = {listen} is no loopback address: who can reach it reads how much mail there "
            "is, and which plugins look at it"
        )


def _host(listen: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        found = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    return found if bracketed == (found.version == 6) else None
