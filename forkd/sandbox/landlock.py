"""How is a process bounded by Landlock, as far as this kernel knows it? For zygotes (confine.py) and roles
(role_walls.py): what each may do is theirs to say, which rights there are is said here once.

A right that is handled is refused wherever no rule allows it; so with a newer kernel, which knows more of
them, more is refused. What a caller leaves is never handled.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Container, Iterable

from forkd.sandbox.linux import NUMBER, call, syscall

# linux/landlock.h
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
MAKE_CHAR = 1 << 6
REFER, TRUNCATE, RESOLVE_UNIX = 1 << 13, 1 << 14, 1 << 16
"""Linking and renaming from one folder to another; connecting to path sockets."""
BIND_TCP, CONNECT_TCP, UDP = 1, 1 << 1, 0b1100
FS_BITS = {1: 13, 2: 14, 3: 15, 5: 16, 9: 17}
"""ABI -> how many rights for files it knows. The last ones: linking elsewhere, truncating, ioctl on devices,
connecting to path sockets."""
NET_BITS = {4: 2, 10: 4}
"""Likewise for ports: TCP, and UDP."""
FILES_ABI, REFER_ABI, PORTS_ABI, SCOPES_ABI = 1, 2, 4, 6
"""From which there are any."""
SURE_ABI = 7
"""Where a later one refuses what we know of it, this."""

_LOG_FROM_ABI, _LOG_SAME_EXEC_OFF = 7, 1
_SCOPES = 0b11
"""Abstract unix sockets and signals."""
_OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
_RULE_PATH_BENEATH, _RULE_NET_PORT = 1, 2
_CREATE_RULESET_VERSION = 1
_DIRECTORY, _TYPE = 0o040000, 0o170000


Wanted = tuple[bool, bool, bool]
"""Are files, ports, scopes to be bounded?"""


class _Ruleset(ctypes.Structure):
    """struct landlock_ruleset_attr up to ABI 6. An older kernel takes it where what it does not know is 0."""

    _fields_ = (("files", ctypes.c_uint64), ("ports", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    """struct landlock_path_beneath_attr: packed."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    """struct landlock_net_port_attr."""

    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """The kernel's Landlock version; 0 when it has none or it is switched off."""
    version = syscall(NUMBER["landlock_create_ruleset"], None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, int(version))


def keeps_apart(layers: Container[str]) -> bool:
    """Does each run of a program get a domain of its own, where these layers are asked for?"""
    return "files" in layers and abi() >= FILES_ABI


def stand_apart(*, moving: bool = False) -> None:
    """A domain of its own for this process and what it starts. Raises OSError.

    Who is in one has ptrace's access to its own and those nested in it alone: not to its siblings, nor to
    what /proc shows of them. It handles one right, of those that no process here has.

    moving  it may rename and link from one folder to another, as far as it might before: every domain that
            does not say so refuses that (landlock(7), LANDLOCK_ACCESS_FS_REFER).
    """
    moving = moving and abi() >= REFER_ABI
    ruleset = create((MAKE_CHAR | (REFER if moving else 0), 0, 0))
    try:
        if moving:
            _allow_path(ruleset, "/", REFER, ())
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def rights(known: dict[int, int], version: int) -> int:
    """All of FS_BITS or NET_BITS that this version has."""
    return (1 << max((count for since, count in known.items() if since <= version), default=0)) - 1


def restrict(
    *,
    files: Iterable[tuple[str, int]] | None = None,
    ports: Iterable[int] | None = None,
    own_address: bool = False,
    scoped: bool = False,
    leave: tuple[int, int] = (0, 0),
    passed_over: tuple[type[OSError], ...] = (FileNotFoundError,),
    quiet: bool = False,
) -> None:
    """Bound this process, for good; of what is asked for, what the kernel does not know is left out.

    files        paths, and what may be done there and below; nothing else. None: files are left alone.
    ports        of TCP that may be connected to; nothing else. None: the network is left alone.
    own_address  a TCP socket may be bound to an address, and to no port that it chooses.
    scoped       signals and abstract unix sockets: to and of this process and what it starts, alone.
    leave        rights for files and for ports that are not bounded.
    passed_over  how a path may fail that gets no rule then.
    quiet        the kernel logs no refusal: who is refused in a loop would flood it.
    Raises OSError.
    """
    version = abi()
    wanted = (files is not None, ports is not None, scoped)
    bounded = handled(version, wanted, leave)
    if not any(bounded):
        return
    try:
        ruleset = create(bounded)
    except OSError:
        if version <= SURE_ABI:
            raise
        bounded = handled(SURE_ABI, wanted, leave)
        ruleset = create(bounded)
    try:
        for path, allowed in files or ():
            _allow_path(ruleset, path, allowed & bounded[0], passed_over)
        allowed_ports = [(CONNECT_TCP, port) for port in ports or ()] + [(BIND_TCP, 0)] * own_address
        for right, port in allowed_ports if version >= PORTS_ABI else ():
            rule = _NetPort(right, port)
            call("landlock_add_rule", ruleset, _RULE_NET_PORT, ctypes.byref(rule), 0)
        call(
            "landlock_restrict_self",
            ruleset,
            _LOG_SAME_EXEC_OFF if quiet and version >= _LOG_FROM_ABI else 0,
        )
    finally:
        os.close(ruleset)


def handled(version: int, wanted: Wanted, leave: tuple[int, int] = (0, 0)) -> tuple[int, int, int]:
    """Rights for files, for ports, and scopes: all that `version` knows of what is wanted and not left."""
    files, ports, scopes = wanted
    return (
        rights(FS_BITS, version) & ~leave[0] if files else 0,
        rights(NET_BITS, version) & ~leave[1] if ports else 0,
        _SCOPES if scopes and version >= SCOPES_ABI else 0,
    )


def create(bounded: tuple[int, int, int]) -> int:
    """A ruleset that handles these: its descriptor. Raises OSError."""
    attributes = _Ruleset(*bounded)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    return call("landlock_create_ruleset", ctypes.byref(attributes), size, 0)


def _allow_path(ruleset: int, path: str, allowed: int, passed_over: tuple[type[OSError], ...]) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except passed_over:
        return
    try:
        folder = os.fstat(beneath).st_mode & _TYPE == _DIRECTORY
        rule = _PathBeneath(allowed if folder else allowed & _OF_A_FILE, beneath)
        call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(beneath)
