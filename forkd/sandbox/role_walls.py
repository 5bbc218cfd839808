"""How does a role of ours wall itself in, before its first line runs? Landlock, then seccomp.

Called in the new process by master (master/child.py), after it has become its user and before the role's
`main`. What a kernel lacks is told by missing(), tried by the self-test (master/role_trial.py) and never
silently left out; what it has and refuses is an error, and the process ends.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import stat
from collections.abc import Iterable

from forkd.sandbox import confine, linux

READ, WRITE, TREE, TIDY = "read", "write", "tree", "tidy"

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_LOOK = _READ_FILE | _READ_DIR
_FILES = _LOOK | _WRITE_FILE | _MAKE_REG | _REMOVE_FILE | _REFER | _TRUNCATE
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

RIGHTS = {
    READ: _LOOK,
    WRITE: _FILES,
    TREE: _FILES | _MAKE_DIR | _REMOVE_DIR,
    TIDY: _LOOK | _REMOVE_FILE | _REMOVE_DIR,
}
"""In a folder and below: read; make, fill, rename and remove files; folders too; only list and remove.
On a file: read; or write."""

_BITS_BY_ABI = {2: 14, 3: 15, 4: 15, 5: 16}
FILES_ABI, NETWORK_ABI, SCOPE_ABI = 2, 4, 6
"""Landlock's versions: before 2 it refuses every rename from one folder to another, which spool and Maildirs
live by."""
_BIND_TCP, _CONNECT_TCP = 1, 2
_SCOPES = 0b11
"""Abstract unix sockets and signals."""
_PATH_BENEATH, _NET_PORT = 1, 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """What a role may still do.

    paths    (path, READ | WRITE | TREE | TIDY); one that is not there is left out
    ports    TCP ports it may connect to; it may bind none
    program  its seccomp filter
    """

    paths: tuple[tuple[str, str], ...]
    ports: tuple[int, ...] = ()
    program: bytes


class WallError(Exception):
    """A wall that this kernel has could not be raised: the process must not go on."""


def scoped() -> bool:
    """Landlock bounds signals and abstract sockets here."""
    return confine.landlock_abi() >= SCOPE_ABI


def missing() -> str:
    """What Landlock does not wall in on this machine, for people; empty: nothing."""
    abi = confine.landlock_abi()
    needs = {"files": FILES_ABI, "TCP": NETWORK_ABI, "signals and abstract sockets": SCOPE_ABI}
    lacking = [what for what, need in needs.items() if abi < need]
    have = f"Landlock ABI {abi}" if abi else "no Landlock"
    return f"{have}: {', '.join(lacking)} not confined" if lacking else ""


def raise_walls(walls: Walls) -> None:
    """Confine this process, for good. While it has one thread. Raises WallError."""
    try:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        _landlock(walls, confine.landlock_abi())
        confine.load_filter(linux.seccomp_filter(walls.program))
    except OSError as error:
        raise WallError(str(error)) from error


class _NetPort(ctypes.Structure):
    """struct landlock_net_port_attr."""

    _fields_ = (("allowed_access", ctypes.c_uint64), ("port", ctypes.c_uint64))


def _landlock(walls: Walls, abi: int) -> None:
    if abi < FILES_ABI:
        return
    attributes = linux.RulesetAttributes()
    files = (1 << _BITS_BY_ABI[min(abi, 5)]) - 1
    attributes.handled_access_fs = files
    size = 8
    if abi >= NETWORK_ABI:
        attributes.handled_access_net = _BIND_TCP | _CONNECT_TCP
        size = 16
    if abi >= SCOPE_ABI:
        attributes.scoped = _SCOPES
        size = 24
    ruleset = linux.call("landlock_create_ruleset", ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    try:
        for path, rights in _joined(walls.paths):
            _allow(ruleset, path, rights & files)
        if abi >= NETWORK_ABI:
            for port in walls.ports:
                rule = _NetPort(_CONNECT_TCP, port)
                linux.call("landlock_add_rule", ruleset, _NET_PORT, ctypes.byref(rule), 0)
        linux.call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _joined(paths: Iterable[tuple[str, str]]) -> list[tuple[str, int]]:
    joined: dict[str, int] = {}
    for path, right in paths:
        joined[path] = joined.get(path, 0) | RIGHTS[right]
    return list(joined.items())


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what its user cannot reach needs no rule
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= _OF_A_FILE
        rule = linux.PathBeneath(rights, beneath)
        linux.call("landlock_add_rule", ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(beneath)
