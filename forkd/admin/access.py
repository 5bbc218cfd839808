"""Who asks, and what may he ask? The kernel says who; the [admin] table says which of three roles he has.

A role has what the one before it has:

    view      looks
    operate   does what mail survives and a client only notices: flush, hold, release, kick
    admin     does what cannot be taken back: remove, bounce, stop, drain

Root, and the user we run as, are admins; nobody else is anything unless [admin] says so. Who asks is what
the kernel says of the socket's other end (SO_PEERCRED, SO_PEERGROUPS), as it was when he connected: the
groups are those of his process, so that a new entry in /etc/group counts from his next login on. Who is in
more than 256 of them has roles by his user and his first group alone.

Names are looked up (NSS) once in RESOLVED_S: where users come from a directory somewhere that takes time.

In a user namespace that does not know every uid, all the others show as one, the overflow uid (65534,
user_namespaces(7)). That one is nobody: he has no role, even where it is the number of a user of ours.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import grp
import pwd
import socket
import struct
import time
from collections.abc import Container

from forkd.config.schema import Admin

_SO_PEERGROUPS = 59
"""asm-generic/socket.h; Python has no name for it. Since Linux 4.13."""
_MOST_GROUPS = 256
"""What one call of getsockopt() may bring in Python. Who is in more of them has none of their roles:
those of his name need not be his process' any more."""

RESOLVED_S = 30.0
"""What a name stands for is believed for so long at most."""


class Access(enum.IntEnum):
    """A role. Each may do what the ones below it may."""

    NONE = 0
    VIEW = 1
    OPERATE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """As the configuration calls it."""
        return self.name.lower()


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection, as the kernel says."""

    pid: int
    uid: int
    gids: frozenset[int]

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """Raises OSError where the other end cannot be known: nobody is to be believed then."""
        pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return cls(pid, uid & 0xFFFF_FFFF, frozenset({gid & 0xFFFF_FFFF, *_groups(connection)}))

    @property
    def name(self) -> str:
        """Of the user; `uid 1000` where nobody knows it."""
        return user_name(self.uid)

    def __str__(self) -> str:
        return f"{self.name}[{self.pid}]"


class Roles:
    """The [admin] table, asked.

    own       the uid we run as
    overflow  uid and gid by which those are shown whom this user namespace does not know; -1: it knows all
    """

    def __init__(self, table: Admin, *, own: int, overflow: tuple[int, int] = (-1, -1)) -> None:
        self._tables = (
            (Access.ADMIN, table.admin),
            (Access.OPERATE, table.operate),
            (Access.VIEW, table.view),
        )
        self._all = frozenset({0, own})
        self._overflow_uid, self._overflow_gid = overflow

    def of(self, peer: Peer) -> Access:
        """The highest role that he has. Blocks for NSS where [admin] has names, unless he is known()."""
        if peer.uid == self._overflow_uid:
            return Access.NONE
        if self.known(peer):
            return Access.ADMIN
        gids = peer.gids - {self._overflow_gid}
        for access, entries in self._tables:
            if any(_is(entry, peer.uid, gids) for entry in entries):
                return access
        return Access.NONE

    def known(self, peer: Peer) -> bool:
        """Is he root, or our own user? Nothing has to be looked up for that."""
        return peer.uid in self._all

    def look_up(self, peer: Peer) -> Access:
        """As of(), for a thread: names for the log are asked for here too, and then known for a while."""
        user_name(peer.uid)
        return self.of(peer)

    def refusal(self, peer: Peer) -> str:
        """To somebody without a role: why, and what would be right."""
        if peer.uid == self._overflow_uid:
            return (
                f"uid {peer.uid} stands here for every user whom forkd's user namespace does not know: "
                "ask from inside of its container"
            )
        others = ", ".join(sorted(user_name(uid) for uid in self._all - {0}))
        who = f"root and {others}" if others else "root"
        return (
            f"user {peer.name} has no role here: {who} may control this forkd, and who stands below "
            "[admin] in its configuration"
        )


def user_name(uid: int) -> str:
    """The name of the user; `uid 1000` where nobody knows it. Blocks for NSS."""
    return _name(uid, _period())


def _period() -> int:
    return int(time.monotonic() // RESOLVED_S)


@functools.lru_cache(maxsize=1024)
def _name(uid: int, _: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@functools.lru_cache(maxsize=1024)
def _number(entry: str, _: int) -> int:
    """Of the user or %group of [admin]; -1: there is none."""
    name = entry.removeprefix("%")
    try:
        if entry.startswith("%"):
            return grp.getgrnam(name).gr_gid
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return -1


def _is(entry: str, uid: int, gids: Container[int]) -> bool:
    """Does that entry of [admin] name him? By number, since several names may have one."""
    name = entry.removeprefix("%")
    number = int(name) if name.isdecimal() else _number(entry, _period())
    return number in gids if entry.startswith("%") else number == uid


def _groups(connection: socket.socket) -> tuple[int, ...]:
    """Supplementary groups of who connected."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS)
    except OSError:
        return ()  # more than we can be told (ERANGE)
    return struct.unpack(f"{len(raw) // 4}I", raw)
