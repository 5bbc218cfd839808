"""Where do the SMTP sockets come from? From systemd (sd_listen_fds(3)) where the address fits, or bound here.

One socket for each [listener], shared by all workers: with SO_REUSEPORT a worker that stops takes the
connections in its own backlog with it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, MutableMapping

from forkd import log
from forkd.config.schema import Listener
from forkd.exits import Exit
from forkd.master.errors import StartError

FIRST_PASSED = 3
"""SD_LISTEN_FDS_START."""


def split(address: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPv6]:PORT`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r}: HOST:PORT is wanted, IPv6 as [::1]:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port)


def shown(sock: socket.socket) -> str:
    """The address a socket is bound to, as split() reads it."""
    name = sock.getsockname()
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def passed(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets systemd handed to this very process; taken out of the environment for good."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = []
    for descriptor in range(FIRST_PASSED, FIRST_PASSED + int(count)):
        os.set_inheritable(descriptor, False)
        sockets.append(socket.socket(fileno=descriptor))
    return sockets


def open_all(listeners: Mapping[str, Listener], inherited: list[socket.socket]) -> dict[str, socket.socket]:
    """Listener name -> listening, non-blocking socket. Raises StartError, with all sockets closed again.

    An inherited socket that no listener names is closed, and said so: it would otherwise fill up with
    clients that nobody serves.
    """
    opened: dict[str, socket.socket] = {}
    rest = list(inherited)
    try:
        for name, listener in listeners.items():
            wanted = _resolve(name, listener.address)
            match = next((sock for sock in rest if _matches(sock, wanted)), None)
            if match is not None:
                rest.remove(match)
                # Again, with our backlog: systemd's own is its socket unit's.
                match.listen(listener.backlog)
            sock = match if match is not None else _bind(name, listener, wanted)
            sock.setblocking(False)
            opened[name] = sock
            log.listening(listener=name, address=shown(sock), inherited=match is not None)
    except StartError:
        for sock in (*opened.values(), *rest):
            sock.close()
        raise
    for sock in rest:
        log.config_note(note=f"the socket passed for {shown(sock) if _is_tcp(sock) else 'no TCP address'} "
                             f"fits no [listener] and is closed")  # fmt: skip
        sock.close()
    return opened


Address = tuple[socket.AddressFamily, tuple[str, int]]


def _resolve(name: str, address: str) -> Address:
    try:
        host, port = split(address)
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (ValueError, socket.gaierror) as error:
        raise StartError(Exit.CONFIG, f"[listener.{name}] address = {address!r}: {error}") from error
    family, _, _, _, where = found[0]
    return family, (str(where[0]), int(where[1]))


def _is_tcp(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM


def _matches(sock: socket.socket, wanted: Address) -> bool:
    return _is_tcp(sock) and sock.family == wanted[0] and sock.getsockname()[:2] == wanted[1]


def _bind(name: str, listener: Listener, wanted: Address) -> socket.socket:
    family, where = wanted
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One meaning everywhere: [::] is IPv6, and 0.0.0.0 is a listener of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(listener.backlog)
    except OSError as error:
        sock.close()
        said = f"[listener.{name}] cannot listen on {listener.address}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            raise StartError(Exit.IN_USE, f"{said}; `ss -ltnp` shows by whom") from error
        if error.errno == errno.EACCES:
            raise StartError(Exit.SYSTEM, f"{said}; ports below 1024 need root, systemd's forkd.socket, "
                                          f"or CAP_NET_BIND_SERVICE") from error  # fmt: skip
        raise StartError(Exit.SYSTEM, said) from error
    return sock
