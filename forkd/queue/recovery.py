"""What can a kill or a power cut leave in the spool, and what is done about it? One table."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import re
from collections.abc import Iterator

from forkd import log
from forkd.fs import REAL, Fs, sync_name, sync_names
from forkd.queue.ids import ID, QueueId, alive
from forkd.queue.recycle import FREE
from forkd.queue.spool import TMP
from forkd.queue.state import NEW, SUFFIX


class Leftover(enum.Enum):
    """Everything that can lie in tmp/ and new/: what it means -> what is done.

    Nothing that could be mail is ever deleted: what is not understood goes to bad/ and is logged.
    """

    LIVE = "tmp: a living process is receiving it -> left alone"
    ABANDONED = "tmp: its process is dead, so 250 was never sent -> removed"
    MESSAGE = "new: a committed message -> delivered; if its bytes are damaged (seen when read) -> bad/"
    EMPTIED = "new: an empty file -> removed: it was delivered and emptied (recycle.py)"
    STATE = "new: outcomes of a message that is there -> read with it"
    STALE_STATE = "new: outcomes of a message that is not: it was done with -> removed"
    FREE = "free: an emptied file, or (power cut) a second name of a message -> only the name removed"
    UNFINISHED = "new: a state that was to take the other's place -> removed: the other counts (state.py)"
    STRANGE = "tmp or new: no name of ours -> bad/"


_TEMPORARY = re.compile(ID.pattern + r"\.(\d{1,10})\.(\d{1,20})\.([0-9a-f]{8})")
_STATE = re.compile("(" + ID.pattern + ")" + re.escape(SUFFIX) + "(" + re.escape(NEW) + ")?")


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One committed message as a listing shows it."""

    slot: str
    id: QueueId
    has_state: bool


def judge_temporary(name: str) -> Leftover:
    """Which row a name in tmp/ is."""
    match = _TEMPORARY.fullmatch(name)
    if match is None:
        return Leftover.STRANGE
    pid, start, boot = match.groups()
    return Leftover.LIVE if alive(int(pid), int(start), boot) else Leftover.ABANDONED


def judge_new(name: str, messages: set[str]) -> Leftover:
    """Which row a name in new/ is, beside those message names."""
    if ID.fullmatch(name):
        return Leftover.MESSAGE
    match = _STATE.fullmatch(name)
    if match is None:
        return Leftover.STRANGE
    if match.group(2):
        return Leftover.UNFINISHED
    return Leftover.STATE if match.group(1) in messages else Leftover.STALE_STATE


def clean_temporary(root: str, *, fs: Fs = REAL) -> int:
    """Remove what dead processes left in tmp/; return how many. Safe beside living workers."""
    removed = 0
    for slot in _folders(f"{root}/{TMP}", fs):
        for name in list(fs.names(f"{root}/{TMP}/{slot}")):
            path = f"{root}/{TMP}/{slot}/{name}"
            row = judge_temporary(name)
            if row is Leftover.ABANDONED:
                with contextlib.suppress(FileNotFoundError):
                    fs.unlink(path)
                    removed += 1
            elif row is Leftover.STRANGE:
                quarantine(root, path, f"tmp-{slot}-{name}", "no name of ours", fs=fs)
    return removed


def recover(root: str, *, fs: Fs = REAL) -> Iterator[Found]:
    """Before delivery begins: apply the table to tmp/ and new/; yield each message, oldest first per slot.

    Only for the one qmgr that holds the lock. Cost per message: one name of a listing; per slot one
    directory sync: who made a `.state` may have been killed before its name was on disk, and whoever adds a
    line to a file that is there does not sync its name again. Raises OSError.
    """
    removed = clean_temporary(root, fs=fs)
    if removed:
        log.queue_event(
            act="recovered", detail="unfinished messages of dead processes removed", count=removed
        )
    for slot in _folders(f"{root}/{FREE}", fs):
        for name in list(fs.names(f"{root}/{FREE}/{slot}")):
            with contextlib.suppress(FileNotFoundError):  # a worker has just filled it
                fs.unlink(f"{root}/{FREE}/{slot}/{name}")
    for slot in _folders(f"{root}/new", fs):
        folder = f"{root}/new/{slot}"
        sync_names(fs, folder)
        names = set(fs.names(folder))
        for name in sorted(names):
            row = judge_new(name, names)
            if row is Leftover.MESSAGE:
                yield Found(slot, name, name + SUFFIX in names)
            elif row in (Leftover.STALE_STATE, Leftover.UNFINISHED):
                fs.unlink(f"{folder}/{name}")
            elif row is Leftover.STRANGE:
                quarantine(root, f"{folder}/{name}", f"new-{slot}-{name}", "no name of ours", fs=fs)


def scan(root: str, *, fs: Fs = REAL) -> Iterator[Found | None]:
    """Beside running workers: yield what looks like a message, lazily; None for other names.

    For the walk that finds messages whose poke was lost: step it in small bites. A message that was
    just removed may still be yielded. has_state is not known here (false).
    """
    for slot in _folders(f"{root}/new", fs):
        try:
            for name in fs.names(f"{root}/new/{slot}"):
                yield Found(slot, name, has_state=False) if ID.fullmatch(name) else None
        except FileNotFoundError:
            continue


def quarantine(root: str, path: str, name: str, why: str, *, fs: Fs = REAL) -> None:
    """Move what could not be understood to bad/, with what belongs to it; logged, never deleted."""
    log.queue_event(act="quarantined", id=name, detail=why, level="error")
    with contextlib.suppress(FileNotFoundError):
        fs.rename(path, f"{root}/bad/{name}")
    with contextlib.suppress(FileNotFoundError):
        fs.rename(path + SUFFIX, f"{root}/bad/{name}{SUFFIX}")
    # Not link, sync, unlink, which would close the last gap: the kernel lets nobody but the owner link
    # (fs.protected_hardlinks), and a worker's files are not qmgr's.
    sync_name(fs, f"{root}/bad/{name}")


def _folders(path: str, fs: Fs) -> list[str]:
    return sorted(fs.names(path))
