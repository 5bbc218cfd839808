"""Which cgroup (v2) does a zygote get, with which limits, and how is all of it ended at once?

Where a part of the tree was delegated to us (systemd: Delegate=), or is ours because we are root, each
zygote gets a folder below our own:

    our cgroup/forkd-PID/plugin-NAME-N    the zygote and its sandboxes
    our cgroup/forkd-PID/master           we ourselves, only where controllers could not be given otherwise

A cgroup that hands controllers to its children may have no processes of its own ("no internal processes",
cgroup-v2): where we are alone in ours, we step into a child first. Version 1 is never used: what there is
of it belongs to others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import signal
from collections.abc import Mapping
from pathlib import Path

CONTROLLERS = ("pids", "memory")
_number = itertools.count(1)
_abandoned: set[Path] = set()
"""Folders of dead zygotes that had processes in them still."""


class CgroupError(Exception):
    """There is none to be had; the text says why, for the admin."""


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """The folder below which each zygote gets its own; `controllers` are those it may limit with."""

    folder: Path
    controllers: frozenset[str]

    @property
    def lacking(self) -> tuple[str, ...]:
        """Those of CONTROLLERS that were not delegated."""
        return tuple(name for name in CONTROLLERS if name not in self.controllers)


def own() -> Path:
    """The folder of the cgroup that we are in. Raises CgroupError."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError as error:
        raise CgroupError(f"/proc: {error.strerror}") from error
    inside = next((line[3:] for line in lines if line.startswith("0::")), None)
    if inside is None:
        raise CgroupError("no cgroup v2 in this kernel")
    for line in mounts:
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            _, _, _, root, point = before.split(" ")[:5]
            if Path(inside).is_relative_to(root):
                return Path(point) / Path(inside).relative_to(root)
    raise CgroupError("cgroup v2 is not mounted")


def home(controllers: tuple[str, ...] = CONTROLLERS) -> Home:
    """Our own folder, made and given what controllers there are, once in each process. Raises CgroupError."""
    made = _home(os.getpid(), controllers)
    if isinstance(made, Home):
        return made
    raise CgroupError(made)


@functools.cache
def _home(pid: int, controllers: tuple[str, ...]) -> Home | str:
    try:
        top = own()
        _sweep(top)
        folder = top / f"forkd-{pid}"
        folder.mkdir(exist_ok=True)
    except CgroupError as error:
        return str(error)
    except OSError as error:
        return f"none delegated: {error}"
    wanted = set(controllers) & _words(top / "cgroup.controllers")
    _give(wanted, top, pid)
    _give(wanted, folder, pid)
    return Home(folder, frozenset(wanted & _words(folder / "cgroup.subtree_control")))


def _give(controllers: set[str], folder: Path, pid: int) -> None:
    """Hand `controllers` to the children of `folder`, as far as that is allowed.

    Not where a process is left in it: what the kernel refuses then with EBUSY (memory) it does for `pids`,
    and makes children of it that no process can join (cgroup-v2, "Threads").
    """
    lacking = controllers - _words(folder / "cgroup.subtree_control")
    if lacking and _without_processes(folder, pid):
        for name in sorted(lacking):
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{name}")


def _without_processes(folder: Path, pid: int) -> bool:
    """If we alone are in `folder`, go into a child of it. The root may have processes: that has no type."""
    try:
        processes = (folder / "cgroup.procs").read_text().split()
        if not processes or not (folder / "cgroup.type").exists():
            return True
        if processes != [str(pid)]:
            return False
        aside = folder / f"forkd-{pid}" / "master"
        aside.mkdir(exist_ok=True)
        (aside / "cgroup.procs").write_text(str(pid))
    except OSError:
        return False
    return True


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()


def _sweep(top: Path) -> None:
    """Remove what dead masters left. A folder with a process in it stays: rmdir(2) refuses."""
    for folder in top.glob("forkd-*/"):
        pid = folder.name.partition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                for child in folder.glob("*/"):
                    child.rmdir()
                folder.rmdir()


def make(name: str, limits: Mapping[str, int]) -> Path:
    """A cgroup for one zygote, empty, with `limits` (controller -> its .max) where we may set them.

    Raises CgroupError. The zygote's process joins it by join().
    """
    at = home()
    for folder in tuple(_abandoned):
        remove(folder)
    folder = at.folder / f"plugin-{name.lstrip('@')}-{next(_number)}"
    try:
        folder.mkdir()
        for controller in sorted(at.controllers & limits.keys()):
            (folder / f"{controller}.max").write_text(str(limits[controller]))
        if "memory" in at.controllers:
            # One sandbox that has too much dies alone.
            (folder / "memory.oom.group").write_text("0")
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                (folder / "memory.swap.max").write_text("0")
    except OSError as error:
        remove(folder)
        raise CgroupError(f"{folder}: {error.strerror}") from error
    return folder


def join(folder: Path) -> None:
    """Put this very process into it. Raises OSError."""
    (folder / "cgroup.procs").write_text("0")


def kill(folder: Path) -> bool:
    """SIGKILL to every process in it, and to those that they fork meanwhile; False: it cannot be done so."""
    try:
        (folder / "cgroup.kill").write_text("1")
    except OSError:  # before Linux 5.14
        return False
    return True


def processes(folder: Path) -> list[int]:
    """Who is in it, zombies not counted; [] where it is gone."""
    return [int(word) for word in _words(folder / "cgroup.procs")]


def remove(folder: Path) -> None:
    """Remove it, now or when a later one is made: its last process may not be reaped yet."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        _abandoned.add(folder)
        return
    _abandoned.discard(folder)


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def signal_all(folder: Path) -> None:
    """kill() for kernels without it: one round; the caller repeats."""
    for pid in processes(folder):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
