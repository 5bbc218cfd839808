"""Where do the SMTP sockets come from? From systemd (sd_listen_fds(3)) where the address fits, or bound here.

One socket for each [listener], shared by all workers: with SO_REUSEPORT a worker that stops takes the
connections in its own backlog with it.

What systemd passed is kept open as long as we live, and a listener has a duplicate: what one reload drops
another can take up again, though systemd has the address and nobody else could bind it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence

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


@dataclasses.dataclass(frozen=True, slots=True)
class Passed:
    """A socket of systemd's. `name` is its FileDescriptorName=, else that of its unit; for people alone."""

    sock: socket.socket
    name: str = "forkd.socket"

    @property
    def shown(self) -> str:
        """Its address as a [listener] would name it, or what it is instead."""
        if _is_tcp(self.sock):
            return shown(self.sock)
        return f"a {self.sock.family.name} {self.sock.type.name} socket {self.sock.getsockname()!r}"

    @property
    def takes_ipv4_too(self) -> bool:
        """[::] without BindIPv6Only=ipv6-only: 0.0.0.0 of that port is taken by it."""
        if not _is_tcp(self.sock) or self.sock.family != socket.AF_INET6:
            return False
        only = self.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return not only and self.sock.getsockname()[0] == "::"


def passed(environ: MutableMapping[str, str] = os.environ) -> list[Passed]:
    """The sockets systemd handed to this very process; taken out of the environment for good."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for number in range(int(count)):
        descriptor = FIRST_PASSED + number
        os.set_inheritable(descriptor, False)
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):  # ListenFIFO= and the like
            log.config_note(note=f"systemd passed descriptor {descriptor}, which is no socket: it is closed")
            os.close(descriptor)
            continue
        name = names[number] if number < len(names) and names[number] else "forkd.socket"
        found.append(Passed(socket.socket(fileno=descriptor), name))
    return found


Bound = Mapping[str, tuple[socket.socket, str]]
"""Name of a listener -> its socket, and its address as it was configured."""


def open_all(
    listeners: Mapping[str, Listener], inherited: Sequence[Passed], bound: Bound | None = None
) -> dict[str, socket.socket]:
    """Listener name -> listening, non-blocking socket. Raises StartError, with all that it opened closed.

    bound       those of the generation before: whose address is the same goes over, whatever its name. The
                others serve on, and stay open

    inherited   stay the caller's
    """
    opened: dict[str, socket.socket] = {}
    fresh: list[socket.socket] = []
    bound = bound or {}
    try:
        for name, listener in listeners.items():
            wanted = _resolve(name, listener.address)
            if (had := _had(name, listener, wanted, bound)) is not None:
                had.listen(listener.backlog)
                opened[name] = had
                continue
            match = next((each.sock for each in inherited if _matches(each.sock, wanted)), None)
            if match is not None:
                sock = match.dup()
                # Again, with our backlog: systemd's own is its socket unit's.
                sock.listen(listener.backlog)
            else:
                sock = _bind(name, listener, wanted, inherited, [each for each, _ in bound.values()])
            fresh.append(sock)
            sock.setblocking(False)
            opened[name] = sock
            log.listening(listener=name, address=shown(sock), inherited=match is not None)
    except StartError:
        for sock in fresh:
            sock.close()
        raise
    return opened


def mismatches(opened: Mapping[str, socket.socket], inherited: Sequence[Passed]) -> list[str]:
    """Where systemd passed sockets: which of them have no listener, and which listener has none of them.

    We cannot close systemd's: shutdown(2) would, and make its socket unit fail.
    """
    if not inherited:
        return []
    ours = {shown(sock) for sock in opened.values()}
    theirs = {each.shown for each in inherited}
    notes = [
        f"{each.name} of systemd holds {each.shown}, which no [listener] of forkd.toml has: who connects "
        f'there waits for nobody. Give it one (address = "{each.shown}"), or take its ListenStream= out of '
        f"the socket unit"
        for each in inherited
        if each.shown not in ours
    ]
    notes += [
        f"[listener.{name}] {shown(sock)} did not come from systemd, as others did, and is opened by forkd "
        f"itself: it refuses connections during a restart. Add ListenStream={shown(sock)} to the socket unit"
        for name, sock in opened.items()
        if shown(sock) not in theirs
    ]
    notes += [
        f"{each.shown} of systemd takes IPv4 too, whose clients look like ::ffff:192.0.2.1: add "
        f"BindIPv6Only=ipv6-only to the socket unit, and a ListenStream= for IPv4"
        for each in inherited
        if each.takes_ipv4_too and each.shown in ours
    ]
    return notes


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


def _had(name: str, listener: Listener, wanted: Address, bound: Bound) -> socket.socket | None:
    """The socket that serves this address already. A port that the kernel chose stays the same listener's."""
    if not wanted[1][1]:
        return bound[name][0] if name in bound and bound[name][1] == listener.address else None
    return next((sock for sock, _ in bound.values() if _matches(sock, wanted)), None)


@contextlib.contextmanager
def beside(sock: socket.socket, others: Iterable[socket.socket]) -> Iterator[None]:
    """Inside, `sock` may be bound and listen beside sockets of ours that have its port at an address which
    includes its own, or is included (0.0.0.0 and 127.0.0.1). Afterwards nobody can join them (SO_REUSEPORT
    is looked at when a socket is bound and when it begins to listen)."""
    together = [sock, *others]
    try:
        for each in together:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield
    finally:
        for each in together:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)


def _bind(
    name: str,
    listener: Listener,
    wanted: Address,
    inherited: Sequence[Passed],
    ours: Sequence[socket.socket],
) -> socket.socket:
    family, where = wanted
    same_port = [
        each for each in ours if each.family == family and where[1] and each.getsockname()[1] == where[1]
    ]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One meaning everywhere: [::] is IPv6, and 0.0.0.0 is a listener of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with beside(sock, same_port) if same_port else contextlib.nullcontext():
            sock.bind(where)
            sock.listen(listener.backlog)
    except OSError as error:
        sock.close()
        said = f"[listener.{name}] cannot listen on {listener.address}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            if any(each.takes_ipv4_too and each.sock.getsockname()[1] == where[1] for each in inherited):
                said += (
                    f": [::]:{where[1]} of systemd takes IPv4 too; BindIPv6Only=ipv6-only is missing there"
                )
                raise StartError(Exit.IN_USE, said) from error
            raise StartError(Exit.IN_USE, f"{said}; `ss -ltnp` shows by whom") from error
        if error.errno == errno.EACCES:
            raise StartError(Exit.SYSTEM, f"{said}; ports below 1024 need root, systemd's forkd.socket, "
                                          f"or CAP_NET_BIND_SERVICE") from error  # fmt: skip
        raise StartError(Exit.SYSTEM, said) from error
    return sock
