"""How does a role of ours wall itself in, before its first line runs? Landlock, then seccomp.

Called in the new process by master (master/child.py), after it has become its user and before the role's
`main`. What a kernel lacks is told by missing(), tried by the self-test (master/role_trial.py) and never
silently left out; what it has and refuses is an error, and the process ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from forkd.sandbox import confine, landlock, linux

READ, WRITE, TREE, TIDY = "read", "write", "tree", "tidy"

_LOOK = landlock.READ_FILE | landlock.READ_DIR
_FILES = (
    _LOOK
    | landlock.WRITE_FILE
    | landlock.MAKE_REG
    | landlock.REMOVE_FILE
    | landlock.REFER
    | landlock.TRUNCATE
)

RIGHTS = {
    READ: _LOOK,
    WRITE: _FILES,
    TREE: _FILES | landlock.MAKE_DIR | landlock.REMOVE_DIR,
    TIDY: _LOOK | landlock.REMOVE_FILE | landlock.REMOVE_DIR,
}
"""In a folder and below: read; make, fill, rename and remove files; folders too; only list and remove.
On a file: read; or write."""

FILES_ABI = 2
"""Before it Landlock refuses every rename from one folder to another, which spool and Maildirs live by."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """What a role may still do.

    paths    (path, READ | WRITE | TREE | TIDY); one that is not there is left out
    ports    TCP ports it may connect to; it may bind none
    own_address  it may bind a socket to an address, leaving the port to the kernel
    udp      it may ask by UDP
    program  its seccomp filter
    """

    paths: tuple[tuple[str, str], ...]
    ports: tuple[int, ...] = ()
    own_address: bool = False
    udp: bool = False
    program: bytes


class WallError(Exception):
    """A wall that this kernel has could not be raised: the process must not go on."""


def scoped() -> bool:
    """Landlock bounds signals and abstract sockets here."""
    return landlock.abi() >= landlock.SCOPES_ABI


def missing() -> str:
    """What Landlock does not wall in on this machine, for people; empty: nothing."""
    abi = landlock.abi()
    needs = {
        "files": FILES_ABI,
        "TCP": landlock.PORTS_ABI,
        "signals and abstract sockets": landlock.SCOPES_ABI,
    }
    lacking = [what for what, need in needs.items() if abi < need]
    have = f"Landlock ABI {abi}" if abi else "no Landlock"
    return f"{have}: {', '.join(lacking)} not confined" if lacking else ""


def raise_walls(walls: Walls) -> None:
    """Confine this process, for good. While it has one thread. Raises WallError."""
    try:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        _landlock(walls)
        confine.load_filter(linux.seccomp_filter(walls.program))
    except OSError as error:
        raise WallError(str(error)) from error


def left(walls: Walls) -> tuple[int, int]:
    """What is not bounded: path sockets, by which roles talk to each other and to what the admin runs, and
    where it asks name servers, UDP."""
    return landlock.RESOLVE_UNIX, landlock.UDP if walls.udp else 0


def _landlock(walls: Walls) -> None:
    if landlock.abi() < FILES_ABI:
        return
    landlock.restrict(
        files=_joined(walls.paths),
        ports=walls.ports,
        own_address=walls.own_address,
        scoped=True,
        leave=left(walls),
        passed_over=(FileNotFoundError, NotADirectoryError, PermissionError),  # not its user's to reach
    )


def _joined(paths: Iterable[tuple[str, str]]) -> list[tuple[str, int]]:
    joined: dict[str, int] = {}
    for path, right in paths:
        joined[path] = joined.get(path, 0) | RIGHTS[right]
    return list(joined.items())
