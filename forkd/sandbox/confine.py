"""Which walls does a zygote put around itself before it loads the plugin, and in which order?

The order is the list in confine(): what needs rights or open files comes first, Landlock before
seccomp (whose table kills landlock_*), and the system call filter last, so that it covers all the rest.
What a kernel lacks is reported as absent, never skipped in silence: master decides by sandbox.require.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterable

from forkd.sandbox import landlock, linux
from forkd.sandbox.linux import call, prctl, set_limit

AROUND = ("namespaces", "mount_root")
"""Walls that were there before this interpreter: launch.py put them up."""
LAYERS = (*AROUND, "rlimits", "no_new_privs", "non_dumpable", "files", "network", "signals", "seccomp")
"""Those, and what confine() sets up, in its order; a test leaves out each in turn and must see it missed."""

_SIGKILL = 9
_LOAD_MEMORY = 1 << 30
"""Address space for loading a plugin, above its own limit: tables are built from text, then freed. What a
plugin starts meanwhile would keep it: master takes no zygote that has started a process (outside.py)."""
_STACK_BYTES = 8 << 20

_WRITE = (
    landlock.WRITE_FILE
    | landlock.TRUNCATE
    | landlock.MAKE_REG
    | landlock.MAKE_DIR
    | landlock.REMOVE_FILE
    | landlock.REMOVE_DIR
    | landlock.REFER
)
"""In a folder that may be written, and below; of a file, what a file has of it."""

_LANDLOCK = {"files": landlock.FILES_ABI, "network": landlock.PORTS_ABI, "signals": landlock.SCOPES_ABI}
"""Layers that are Landlock's, and since which of its versions."""


class ConfinementError(Exception):
    """A wall that this kernel has could not be raised: the zygote must not go on."""


def confine(
    *,
    layers: Iterable[str],
    around: dict[str, str],
    parent: int,
    read_paths: Iterable[str],
    execute_paths: Iterable[str] = (),
    write_paths: Iterable[str] = (),
    limits: dict[str, int],
    program: bytes,
    load: Callable[[linux.Filter], None] | None = None,
) -> dict[str, str]:
    """Raise every wall in `layers`; return layer -> on | absent | off.

    around       how it is with AROUND.
    parent       pid of master, for the parent-death signal's race. In a PID namespace nobody's is seen: there
                 the control socket's end of file tells.
    read_paths   files and folders that may be read from now on; nothing else can be opened.
    execute_paths, write_paths   those that may be executed as well, or written.
    limits       memory, zygote_files, file_size, processes (-1: no limit of its own uid's processes).
    program      the seccomp program; load: what loads it (learn mode), not given: load_filter().
    Raises ConfinementError.
    """
    wanted = frozenset(layers)
    state = dict.fromkeys(LAYERS, "off") | around
    try:
        if "rlimits" in wanted:
            _limit(limits)
            state["rlimits"] = "on"
        prctl(linux.PR_SET_PDEATHSIG, _SIGKILL)
        if os.getppid() not in (parent, 0):
            raise ConfinementError("master is gone")
        if "non_dumpable" in wanted:
            prctl(linux.PR_SET_DUMPABLE, 0)
            state["non_dumpable"] = "on"
        # Without it neither Landlock nor seccomp may be used by an ordinary user.
        prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        state["no_new_privs"] = "on"
        look = landlock.READ_FILE | landlock.READ_DIR
        rights = [(path, look) for path in read_paths]
        rights += [(path, look | landlock.EXECUTE) for path in execute_paths]
        rights += [(path, look | _WRITE) for path in write_paths]
        state |= _landlock(wanted, rights)
        if "seccomp" in wanted:
            (load or load_filter)(linux.seccomp_filter(program))
            state["seccomp"] = "on"
    except OSError as error:
        raise ConfinementError(str(error)) from error
    return state


def load_filter(program: linux.Filter) -> None:
    """Stack one seccomp program on this thread. Raises OSError."""
    call("seccomp", linux.SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(program))


def limit_memory(size: int, memory: int) -> None:
    """Address space: `memory` bytes above what is used now (`size`). Sandboxes inherit it. Raises OSError."""
    set_limit(linux.RLIMIT_AS, size + memory)


def _limit(limits: dict[str, int]) -> None:
    set_limit(linux.RLIMIT_AS, _LOAD_MEMORY + limits["memory"])
    set_limit(linux.RLIMIT_CORE, 0)
    set_limit(linux.RLIMIT_FSIZE, limits["file_size"])
    set_limit(linux.RLIMIT_MEMLOCK, 0)
    set_limit(linux.RLIMIT_MSGQUEUE, 0)
    set_limit(linux.RLIMIT_NICE, 0)
    set_limit(linux.RLIMIT_RTPRIO, 0)
    set_limit(linux.RLIMIT_STACK, _STACK_BYTES)
    set_limit(linux.RLIMIT_NOFILE, limits["zygote_files"])
    if limits["processes"] >= 0:
        set_limit(linux.RLIMIT_NPROC, limits["processes"])


def _landlock(wanted: frozenset[str], rights: Iterable[tuple[str, int]]) -> dict[str, str]:
    """One ruleset for files, ports, signals and abstract sockets."""
    abi = landlock.abi()
    state = {
        name: "off" if name not in wanted else "on" if abi >= need else "absent"
        for name, need in _LANDLOCK.items()
    }
    landlock.restrict(
        files=rights if state["files"] == "on" else None,
        ports=() if state["network"] == "on" else None,
        scoped=state["signals"] == "on",
        quiet=True,
    )
    return state


def interpreter_paths() -> list[str]:
    """What the running interpreter itself reads later: its standard library and its shared libraries.

    The folders of the libraries come from this process' own map, so no distribution's layout is
    written down here. Where there is no /proc, master has asked before (interpreter.py).
    """
    paths = {os.path.dirname(os.__file__)}  # noqa: PTH120 - pathlib stays out of the zygote
    with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as maps:  # noqa: PTH123
        for line in maps:
            name = os.fsdecode(line.rstrip(b"\n").partition(b"/")[2])
            if ".so" in name:
                paths.add(os.path.dirname("/" + name))  # noqa: PTH120
    paths.add("/etc/ld.so.cache")
    return sorted(paths)
