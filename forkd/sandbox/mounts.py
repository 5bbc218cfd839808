"""What does a zygote's own file system look like, and how is it built?

A small tmpfs with nothing in it but mount points and symbolic links: each file and folder that the zygote
may read appears at its own path, bound read-only but for folders that it was granted to write. So no other
name, size or socket is there to be seen, with Landlock or without.

plan() looks, in master; enter() builds, in the new process, which holds CAP_SYS_ADMIN over its mount
namespace. Trees are cloned and made read-only before they are put anywhere (open_tree, mount_setattr: Linux
5.12), so there is no moment in which they can be written, and flags that an outer namespace has locked stay.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import stat
from collections.abc import Iterable
from pathlib import PurePosixPath as Pure

from forkd.sandbox import linux

_MOST_LINKS = 40
"""In one path: as the kernel (MAXSYMLINKS)."""

# The numbers of all calls since 5.1 are the same everywhere.
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_PIVOT_ROOT, _UMOUNT2 = {"x86_64": (155, 166), "aarch64": (41, 39)}[os.uname().machine]
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_SET_STRING, _CMD_CREATE = 1, 6
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_MS_PRIVATE, _MNT_DETACH = 1 << 18, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What enter() makes, each in this order.

    folders  to be made.
    links    symbolic links: where, and what they say.
    binds    real paths to be shown at themselves; True: a folder, with whatever is mounted below it.
    open     those of them that may be written; all others are read-only.
    """

    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    binds: tuple[tuple[str, bool], ...]
    open: frozenset[str] = frozenset()


def plan(paths: Iterable[str], writable: Iterable[str] = ()) -> Plan | None:
    """How `paths` and `writable` folders (absolute) are shown, each under every name it is reached by.

    One that does not exist is left out. None: all is to be seen ("/" is among them), so there is nothing
    to build.
    """
    links: dict[Pure, str] = {}
    binds: dict[Pure, bool] = {}
    changed: set[Pure] = set()
    for path, written in (*((path, False) for path in paths), *((path, True) for path in writable)):
        passed: dict[Pure, str] = {}
        real = _follow(Pure(path), passed)
        if real is not None:
            links |= passed
            binds[real] = stat.S_ISDIR(os.stat(real).st_mode)  # noqa: PTH116 - a pure path
            changed |= {real} if written else set()
    if Pure("/") in binds:
        return None
    whole = {path for path, folder in binds.items() if folder}

    def covered(path: Pure) -> bool:
        # What may be written is laid over what may not be, never the other way round.
        return not (changed if path in changed else whole).isdisjoint(path.parents)

    shown = {path: folder for path, folder in binds.items() if not covered(path)}
    kept = {path: target for path, target in links.items() if not covered(path)}
    folders = {parent for path in (*shown, *kept) for parent in path.parents} - {Pure("/")}
    folders |= {path for path, folder in shown.items() if folder}
    return Plan(
        tuple(str(path) for path in sorted(folders)),
        tuple((str(path), target) for path, target in sorted(kept.items())),
        tuple((str(path), folder) for path, folder in sorted(shown.items())),
        frozenset(map(str, changed)),
    )


def _follow(path: Pure, links: dict[Pure, str]) -> Pure | None:
    """The real path, each link on the way noted; None: there is nothing, or nothing we may see."""
    here = Pure("/")
    ahead = list(reversed(path.parts[1:]))
    hops = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            here = here.parent
            continue
        here /= part
        try:
            if not stat.S_ISLNK(os.lstat(here).st_mode):
                continue
            target = os.readlink(here)  # noqa: PTH115
        except OSError:
            return None
        hops += 1
        if hops > _MOST_LINKS:
            return None
        links[here] = target
        aim = Pure(target)
        here = Pure("/") if aim.is_absolute() else here.parent
        ahead += reversed(aim.parts[1:] if aim.is_absolute() else aim.parts)
    return here


def enter(plan: Plan, *, proc: bool) -> None:
    """Build it and make it this process' root; nothing of the old one can be reached afterwards.

    proc  mount a /proc of this PID namespace, without what belongs to other users; left out where that
          is refused (a container hides parts of its own).
    Raises OSError. Open descriptors stay what they are.
    """
    # Nothing of what follows may reach the namespace that we come from.
    _set_attributes(_AT_FDCWD, "/", _AT_RECURSIVE, propagation=_MS_PRIVATE)
    trees = [
        (path, tree)
        for path, folder in plan.binds
        if (tree := _tree(path, folder, open_=path in plan.open)) >= 0
    ]
    root = _file_system("tmpfs", {"mode": "755", "size": "64k"}, _NO_SUID | _NO_DEVICES | _NO_EXEC)
    procfs = -1
    if proc:
        try:
            procfs = _file_system("proc", {"hidepid": "invisible", "subset": "pid"}, _STERILE)
        except OSError:
            procfs = -1
    anchor = os.path.dirname(__file__)  # any folder will do: it is covered, in here alone  # noqa: PTH120
    _move(root, anchor)
    os.fchdir(root)
    for path in plan.folders:
        os.makedirs(path[1:], 0o755, exist_ok=True)  # noqa: PTH103
    for path, target in plan.links:
        os.symlink(target, path[1:])  # noqa: PTH211
    folders = frozenset(plan.folders)
    for path, tree in trees:
        if path not in folders:
            os.close(os.open(path[1:], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o444))
        _move(tree, path[1:])
        os.close(tree)
    if procfs >= 0:
        os.mkdir("proc", 0o555)  # noqa: PTH102
        _move(procfs, "proc")
        os.close(procfs)
    _set_attributes(root, "", _AT_EMPTY_PATH, add=_STERILE)
    # Both at one place: the old root then lies on the new one, and is taken off (pivot_root(2), NOTES).
    _call("pivot_root", _PIVOT_ROOT, b".", b".")
    _call("umount2", _UMOUNT2, b".", _MNT_DETACH)
    os.close(root)
    os.chdir("/")


_STERILE = _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC


def _tree(path: str, folder: bool, *, open_: bool) -> int:
    """A copy of what is mounted at `path`, read-only unless `open_`, nowhere yet; -1: it is gone."""
    try:
        tree = _call(
            f"open_tree {path}",
            _OPEN_TREE,
            _AT_FDCWD,
            os.fsencode(path),
            _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if folder else 0),
        )
    except FileNotFoundError:
        return -1
    # A device that was granted by name (/dev/null) is to be used; in a folder there is none.
    device = not folder and not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    attributes = _NO_SUID | (0 if device else _NO_DEVICES) | (_NO_EXEC if open_ else _READ_ONLY)
    _set_attributes(tree, "", _AT_EMPTY_PATH | (_AT_RECURSIVE if folder else 0), add=attributes)
    return tree


def _file_system(kind: str, options: dict[str, str], attributes: int) -> int:
    context = _call(f"fsopen {kind}", _FSOPEN, kind.encode(), _CLOEXEC)
    try:
        for key, value in options.items():
            _call(f"fsconfig {key}", _FSCONFIG, context, _SET_STRING, key.encode(), value.encode(), 0)
        _call(f"fsconfig {kind}", _FSCONFIG, context, _CMD_CREATE, None, None, 0)
        return _call(f"fsmount {kind}", _FSMOUNT, context, _CLOEXEC, attributes)
    finally:
        os.close(context)


def _move(tree: int, path: str) -> None:
    _call(
        f"move_mount {path}",
        _MOVE_MOUNT,
        tree,
        b"",
        _AT_FDCWD,
        os.fsencode(path),
        _MOVE_MOUNT_F_EMPTY_PATH,
    )


class _Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


def _set_attributes(fd: int, path: str, flags: int, *, add: int = 0, propagation: int = 0) -> None:
    attributes = _Attributes(add, 0, propagation, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _call("mount_setattr", _MOUNT_SETATTR, fd, os.fsencode(path), flags, ctypes.byref(attributes), size)


def _call(what: str, number: int, *arguments: object) -> int:
    result = int(linux.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result
