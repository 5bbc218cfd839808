"""How does a listening socket end and cut nobody off? First the kernel lets nobody new in.

A socket that nobody has any more resets whoever the kernel has shaken hands with for it. Where an address
changes to one that includes it (127.0.0.1 to 0.0.0.0), those clients were to be served by the next socket.
So master hushes the old one, waits for handshakes under way, and only then tells its workers; they see it on
the socket, accept whom it still has, and close it.

By the least TTL a segment must have (RFC 5082): hardly anybody's arrive with 255. A client whose SYN is
dropped sends it again after a second, and meets the next socket; the end of a handshake that has begun is
not looked at. A socket filter in BPF could tell a SYN, but wants CAP_NET_ADMIN on a TCP socket (Linux 6.18).

What is accepted has the listening socket's TTL as it was when the handshake ended, so that it hears nothing
until it is lifted(): its client sends again what was not heard.
"""

from __future__ import annotations

import socket

_NONE = 255
_LEAST_TTL = {
    socket.AF_INET: (socket.IPPROTO_IP, 21),  # IP_MINTTL
    socket.AF_INET6: (socket.IPPROTO_IPV6, 73),  # IPV6_MINHOPCOUNT
}
"""linux/in.h, linux/in6.h."""


def hush(sock: socket.socket) -> None:
    """Let no new handshake begin on a TCP socket; for all processes that have it."""
    sock.setsockopt(*_LEAST_TTL[sock.family], _NONE)


def hushed(sock: socket.socket) -> bool:
    """Was that done to it?"""
    option = _LEAST_TTL.get(sock.family)
    return option is not None and sock.getsockopt(*option) == _NONE


def lift(descriptor: int) -> None:
    """Let a connection hear its client, whatever was done to the socket that it came by."""
    with socket.socket(fileno=descriptor) as sock:
        try:
            if hushed(sock):
                sock.setsockopt(*_LEAST_TTL[sock.family], 0)
        finally:
            sock.detach()
