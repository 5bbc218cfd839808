"""What is seen of a zygote from outside, once it has said that it is ready?

Its word is a claim: the plugin has run by then. The kernel's is not. What may not be looked at (an ordinary
user sees less than root; Landlock shows nobody anything) is told as unverified.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from forkd.sandbox.confine import LAYERS

_LINKS = {"user": "user", "net": "net", "ipc": "ipc", "pid": "pid", "mount": "mnt", "uts": "uts"}
"""Namespace -> its name in /proc/PID/ns."""
_LANDLOCK = ("files", "network", "signals")


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """What was seen from outside: what is wrong, and what we may not look at."""

    problems: tuple[str, ...]
    unverified: tuple[str, ...]


def verify(pid: int, *, layers: Sequence[str] = LAYERS) -> list[str]:
    """What is wrong with a zygote, seen from outside after its Ready; []: nothing."""
    return list(inspect(pid, layers=layers).problems)


def inspect(
    pid: int,
    *,
    layers: Sequence[str] = LAYERS,
    namespaces: Iterable[str] = (),
    mount_root: bool = False,
) -> Verification:
    """verify(), with what could not be looked at.

    One thread, no_new_privs, the filter in place, no capability; where we may look (root), no shared
    writable mapping and no strange descriptor; in those namespaces, and on a mount root of its own.
    """
    problems: list[str] = []
    unverified: list[str] = []
    root = Path(f"/proc/{pid}")
    try:
        status, own = _status(root), _status(Path("/proc/self"))
    except OSError as error:
        return Verification((f"no such process: {error}",), ())
    expected = {"Threads": "1", "NoNewPrivs": "1", "CapEff": "0" * 16, "CapPrm": "0" * 16}
    if "seccomp" in layers:
        expected["Seccomp"] = "2"
        if int(status["Seccomp_filters"]) < int(own["Seccomp_filters"]) + 1:
            problems.append(f"{status['Seccomp_filters']} system call filters")
    problems += [
        f"{field} is {status[field].strip()}"
        for field, value in expected.items()
        if status[field].strip() != value
    ]
    if "pid" in namespaces and status["NSpid"].split()[1:] != ["1"]:
        problems.append("it is not the first process of a PID namespace")
    looks: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("mappings", lambda: _shared_mappings(root)),
        ("descriptors", lambda: _strange_descriptors(root / "fd")),
        ("namespaces", lambda: _shared_namespaces(root, namespaces)),
        ("mount root", lambda: _strange_mounts(root) if mount_root else []),
    )
    for what, look in looks:
        try:
            problems += look()
        except OSError:
            unverified.append(what)
    if set(_LANDLOCK) & set(layers):
        unverified.append("Landlock")
    return Verification(tuple(problems), tuple(unverified))


def _status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _shared_mappings(process: Path) -> list[str]:
    lines = (process / "maps").read_text().splitlines()
    return [f"shared mapping {line}" for line in lines if "rw-s" in line]


def _shared_namespaces(process: Path, namespaces: Iterable[str]) -> list[str]:
    return [
        f"it is in our {name} namespace"
        for name in namespaces
        if (process / "ns" / _LINKS[name]).readlink() == Path("/proc/self/ns", _LINKS[name]).readlink()
    ]


def _strange_mounts(process: Path) -> list[str]:
    """A tmpfs as its root, and nothing that could be written."""
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    found = [f"{fields[4]} is mounted for writing" for fields in mounts if "ro" not in fields[5].split(",")]
    if not any(fields[4] == "/" and "tmpfs" in fields[fields.index("-") :] for fields in mounts):
        found.append("its root is not one of its own")
    return found


def _strange_descriptors(folder: Path) -> list[str]:
    """Null, the output pipe twice, sockets (control, listener, workers), one signalfd; nothing else."""
    strange = []
    for entry in folder.iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        number = int(entry.name)
        fine = (
            (number == 0 and target == os.devnull)
            or (number in (1, 2) and target.startswith("pipe:"))
            or (number > 2 and (target.startswith("socket:") or target == "anon_inode:[signalfd]"))
        )
        if not fine:
            strange.append(f"descriptor {number} is {target}")
    return strange
