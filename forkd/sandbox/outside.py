"""What is seen of a zygote from outside, once it has said that it is ready?

Its word is a claim: the plugin has run by then. The kernel's is not. What may not be looked at (an ordinary
user sees less than root; Landlock shows nobody anything) is told as unverified. What is read here the
plugin has had a hand in (the names of files that it mapped, for one): octets, of which nothing is expected.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from forkd.sandbox import processes
from forkd.sandbox.confine import LAYERS

_LINKS = {"user": "user", "net": "net", "ipc": "ipc", "pid": "pid", "mount": "mnt", "uts": "uts"}
"""Namespace -> its name in /proc/PID/ns."""
_LANDLOCK = ("files", "network", "signals")
_ESCAPED = str.maketrans({" ": r"\040", "\t": r"\011", "\n": r"\012", "\\": r"\134"})
"""How a path stands in mountinfo (proc(5))."""


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
    writable: Iterable[str] = (),
) -> Verification:
    """verify(), with what could not be looked at.

    One process, one thread, no_new_privs, the filter in place, no capability; where we may look (root), no
    shared writable mapping and no strange descriptor; in those namespaces, and on a mount root of its own,
    where nothing can be written but the folders `writable` and what is mounted below.
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
        if not (ours := own.get("Seccomp_filters", "")).isdecimal():
            unverified.append("number of system call filters")  # before Linux 5.9
        elif not (theirs := status.get("Seccomp_filters", "")).isdecimal() or int(theirs) <= int(ours):
            problems.append(f"{theirs or 'no'} system call filters")
    problems += [
        f"{field} is {seen or 'not told'}"
        for field, value in expected.items()
        if (seen := status.get(field, "")) != value
    ]
    if "pid" in namespaces and status.get("NSpid", "").split()[1:] != ["1"]:
        problems.append("it is not the first process of a PID namespace")
    looks: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("processes", lambda: _others(pid)),
        ("mappings", lambda: _shared_mappings(root)),
        ("descriptors", lambda: _strange_descriptors(root / "fd")),
        ("namespaces", lambda: _shared_namespaces(root, namespaces)),
        ("mount root", lambda: _strange_mounts(root, writable) if mount_root else []),
    )
    for what, look in looks:
        try:
            problems += look()
        except OSError:
            unverified.append(what)
        except (ValueError, LookupError) as error:
            problems.append(f"its {what} cannot be read: {error!r}")
    if set(_LANDLOCK) & set(layers):
        unverified.append("Landlock")
    return Verification(tuple(problems), tuple(unverified))


def _status(process: Path) -> dict[str, str]:
    fields = (line.partition(":\t") for line in _lines(process / "status"))
    return {name: value.strip() for name, separator, value in fields if separator}


def _others(pid: int) -> list[str]:
    """What it has started while it was loaded would keep the memory that loading may take (confine.py)."""
    found = [seen for seen in processes.look() if seen.session == pid != seen.pid and not seen.dead]
    return [f"it has started {len(found)} process{'es' if len(found) > 1 else ''}"] if found else []


def _shared_mappings(process: Path) -> list[str]:
    return [f"shared mapping {line}" for line in _lines(process / "maps") if _shared(line)]


def _shared(line: str) -> bool:
    """Writable, and seen by whoever else maps it: the second field of proc_pid_maps(5), as rw-s."""
    permissions = line.split(" ", 2)[1]
    return "w" in permissions and permissions.endswith("s")


def _shared_namespaces(process: Path, namespaces: Iterable[str]) -> list[str]:
    return [
        f"it is in our {name} namespace"
        for name in namespaces
        if (process / "ns" / _LINKS[name]).readlink() == Path("/proc/self/ns", _LINKS[name]).readlink()
    ]


def _strange_mounts(process: Path, writable: Iterable[str]) -> list[str]:
    """A tmpfs as its root, and nothing that could be written but what was granted."""
    mounts = [line.split(" ") for line in _lines(process / "mountinfo")]
    granted = tuple(f"{path.translate(_ESCAPED)}/" for path in writable)
    found = [
        f"{fields[4]} is mounted for writing"
        for fields in mounts
        if "ro" not in fields[5].split(",") and not f"{fields[4]}/".startswith(granted)
    ]
    if not any(fields[4] == "/" and "tmpfs" in fields[fields.index("-") :] for fields in mounts):
        found.append("its root is not one of its own")
    return found


def _strange_descriptors(folder: Path) -> list[str]:
    """Null, the output pipe twice, sockets (control, listener, workers), one signalfd; nothing else.

    While it forks it also holds the pipes of those sandboxes: to be asked before it is let begin.
    """
    strange = []
    for entry in folder.iterdir():
        try:
            target = _shown(os.fsencode(entry.readlink()))
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


def _lines(file: Path) -> list[str]:
    """Of a file of /proc. Only the line feed ends one: nothing else is escaped in names (proc(5))."""
    return [_shown(line) for line in file.read_bytes().split(b"\n") if line]


def _shown(octets: bytes) -> str:
    """Names of files are any octets: what is none of UTF-8 is shown as one writes it."""
    return octets.decode("utf-8", "backslashreplace")
