"""What of a plugin's is left on the machine that is no process and no descriptor of ours?

Files in the places that everybody may write to, shared memory, semaphores and queues. By owner: so of a uid
that no other process has. A uid that is shared says nothing; there the sandbox's own folder is compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run", "/")
"""Where a stranger could put a file; "/" for core files."""


def of(uid: int | None) -> list[str]:
    """Everything owned by `uid`, and its processes; None: nothing is looked at."""
    if uid is None:
        return []
    return [*_files(uid), *_shared(uid), *_processes(uid)]


def _files(uid: int) -> list[str]:
    return [str(entry) for place in PLACES for entry, owner in owned(place) if owner == uid]


def owned(place: str) -> Iterator[tuple[Path, int]]:
    """What lies in a folder, and whose it is; what goes away meanwhile is passed over."""
    try:
        entries = list(Path(place).iterdir())
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            yield entry, entry.lstat().st_uid


def _shared(uid: int) -> list[str]:
    """SysV objects: their owner and their creator."""
    found = []
    for kind in ("shm", "sem", "msg"):
        try:
            head, *rows = (Path("/proc/sysvipc") / kind).read_text().splitlines()
        except OSError:
            continue
        names = head.split()
        for row in rows:
            fields = dict(zip(names, row.split(), strict=False))
            if str(uid) in (fields["uid"], fields["cuid"]):
                found.append(f"SysV {kind} {fields['key']}")
    return found


def _processes(uid: int) -> list[str]:
    """By their status: the folder of a process that is not dumpable belongs to root."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "status").read_text(errors="replace")
        except OSError:
            continue
        if f"\nUid:\t{uid}\t" in status and "\nState:\tZ" not in status:
            found.append(f"process {entry.name}")
    return found
