"""Which walls does a zygote put around itself before it loads the plugin, and in which order?

The order is the list in confine(): what needs rights or open files comes first, Landlock before
seccomp (whose table kills landlock_*), and the system call filter last, so that it covers all the rest.
What a kernel lacks is reported as absent, never skipped in silence: master decides by sandbox.require.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable

from forkd.sandbox import linux
from forkd.sandbox.linux import call, prctl, set_limit

LAYERS = ("rlimits", "no_new_privs", "non_dumpable", "files", "network", "signals", "seccomp")
"""Those that confine() sets up, in its order; a test switches each off in turn and must see it missed."""

_SIGKILL = 9
_LOAD_MEMORY = 1 << 30
"""Address space for loading a plugin, above its own limit: tables are built from text, then freed."""
_STACK_BYTES = 8 << 20

# linux/landlock.h
_FS_EXECUTE, _FS_WRITE_FILE, _FS_READ_FILE, _FS_READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_FS_BITS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_BIND_CONNECT_TCP = 0b11
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1, 2
_RULE_PATH_BENEATH = 1
_CREATE_RULESET_VERSION = 1


class ConfinementError(Exception):
    """A wall that this kernel has could not be raised: the zygote must not go on."""


def confine(
    *,
    layers: Iterable[str],
    parent: int,
    read_paths: Iterable[str],
    execute_paths: Iterable[str] = (),
    write_paths: Iterable[str] = (),
    limits: dict[str, int],
    program: bytes,
) -> dict[str, str]:
    """Raise every wall in `layers`; return layer -> on | absent | off.

    parent       pid of master, for the parent-death signal's race.
    read_paths   files and folders that may be read from now on; nothing else can be opened.
    execute_paths, write_paths   those that may be executed as well, or written.
    limits       memory, zygote_files, processes (-1: no limit of its own uid's processes).
    program      the seccomp program.
    Raises ConfinementError.
    """
    wanted = frozenset(layers)
    state = dict.fromkeys(LAYERS, "off")
    try:
        if "rlimits" in wanted:
            _limit(limits)
            state["rlimits"] = "on"
        prctl(linux.PR_SET_PDEATHSIG, _SIGKILL)
        if os.getppid() != parent:
            raise ConfinementError("master is gone")
        if "non_dumpable" in wanted:
            prctl(linux.PR_SET_DUMPABLE, 0)
            state["non_dumpable"] = "on"
        # Without it neither Landlock nor seccomp may be used by an ordinary user.
        prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        state["no_new_privs"] = "on"
        rights = [(path, _FS_READ_FILE | _FS_READ_DIR) for path in read_paths]
        rights += [(path, _FS_READ_FILE | _FS_READ_DIR | _FS_EXECUTE) for path in execute_paths]
        rights += [(path, _FS_READ_FILE | _FS_WRITE_FILE) for path in write_paths]
        state |= _landlock(wanted, rights)
        if "seccomp" in wanted:
            load_filter(linux.seccomp_filter(program))
            state["seccomp"] = "on"
    except OSError as error:
        raise ConfinementError(str(error)) from error
    return state


def load_filter(program: linux.Filter) -> None:
    """Stack one seccomp program on this thread. Raises OSError."""
    call("seccomp", linux.SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program))


def die_first() -> None:
    """Where memory runs out, the kernel takes this process or its children before any other (proc(5),
    oom_score_adj): many sandboxes within their limits can still be more than the machine has.

    Before Landlock. Not where /proc is not to be had: then it is the largest process.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")


def limit_memory(size: int, memory: int) -> None:
    """Address space: `memory` bytes above what is used now (`size`). Sandboxes inherit it. Raises OSError."""
    set_limit(linux.RLIMIT_AS, size + memory)


def _limit(limits: dict[str, int]) -> None:
    set_limit(linux.RLIMIT_AS, _LOAD_MEMORY + limits["memory"])
    set_limit(linux.RLIMIT_CORE, 0)
    set_limit(linux.RLIMIT_FSIZE, 0)
    set_limit(linux.RLIMIT_MEMLOCK, 0)
    set_limit(linux.RLIMIT_MSGQUEUE, 0)
    set_limit(linux.RLIMIT_NICE, 0)
    set_limit(linux.RLIMIT_RTPRIO, 0)
    set_limit(linux.RLIMIT_STACK, _STACK_BYTES)
    set_limit(linux.RLIMIT_NOFILE, limits["zygote_files"])
    if limits["processes"] >= 0:
        set_limit(linux.RLIMIT_NPROC, limits["processes"])


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 when it has none or it is switched off."""
    version = linux.syscall(
        linux.NUMBER["landlock_create_ruleset"], None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION
    )
    return max(0, int(version))


def _landlock(wanted: frozenset[str], rights: Iterable[tuple[str, int]]) -> dict[str, str]:
    """One ruleset for files, TCP, signals and abstract sockets, at the best ABI up to 6 there is."""
    abi = landlock_abi()
    needs = {"files": 1, "network": 4, "signals": 6}
    state = {
        name: "off" if name not in wanted else "on" if abi >= need else "absent"
        for name, need in needs.items()
    }
    if "on" not in state.values():
        return state
    attributes = linux.RulesetAttributes()
    size = 8
    if state["files"] == "on":
        attributes.handled_access_fs = (1 << _FS_BITS_BY_ABI[min(abi, 5)]) - 1
    if state["network"] == "on":
        attributes.handled_access_net = _NET_BIND_CONNECT_TCP
        size = 16
    if state["signals"] == "on":
        attributes.scoped = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL
        size = 24
    ruleset = call("landlock_create_ruleset", ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    try:
        if state["files"] == "on":
            for path, right in rights:
                _allow(ruleset, path, right)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
    return state


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        folder = os.fstat(parent).st_mode & 0o170000 == 0o040000
        rule = linux.PathBeneath(rights if folder else rights & ~_FS_READ_DIR, parent)
        call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(parent)


def interpreter_paths() -> list[str]:
    """What the running interpreter itself reads later: its standard library and its shared libraries.

    The folders of the libraries come from this process' own map, so no distribution's layout is
    written down here. Ask before the plugin is loaded.
    """
    paths = {os.path.dirname(os.__file__)}  # noqa: PTH120 - pathlib stays out of the zygote
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:  # noqa: PTH123
        for line in maps:
            name = line.rstrip("\n").partition("/")[2]
            if ".so" in name:
                paths.add(os.path.dirname("/" + name))  # noqa: PTH120
    paths.add("/etc/ld.so.cache")
    return sorted(paths)
