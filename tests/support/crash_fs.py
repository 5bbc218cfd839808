"""A power cut at any moment: an Fs that records what is done, and what a disk may hold of it afterwards.

RecordingFs does everything for real, below one folder, and writes down each call that changes
something. `states(log, cut)` then gives disks as they may be found when the power fails after the
first `cut` calls, under the weakest promises forkd/fs.py names:

    a write not followed by its file's sync    kept, lost, or torn (cut short, or half of it zeros)
    emptying (truncation) without a sync       kept or lost
    each name made, taken away or moved without a sync of its directory
                                               kept or lost, each half of a move for itself: so
                                               a moved file may be found under both names, or none
    nothing keeps its order

Names are directories' contents, bytes are files' contents; a sync makes durable what was there at the
call, of that one file or directory, and nothing else.

A process may also be killed: `kill_after` ends it behind one of its calls, and what it did and did not sync
is the machine's for the next process, as unsynced as it was. And a life may begin on a disk that an
earlier power cut left: `disk`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from forkd.fs import Fs

Disk = tuple[dict[str, int], dict[int, bytes], set[str]]
"""Names of files -> inode, inode -> bytes, directories."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One recorded call: create, write, empty, sync, sync_dir, name, unname, mkdir or note."""

    kind: str
    path: str = ""
    inode: int = 0
    data: bytes = b""
    text: str = ""


class Killed(SystemExit):
    """The process is dead: no `except Exception` hears it."""


@contextlib.contextmanager
def dying_threads() -> Iterator[None]:
    """Threads that end by Killed are no failure, as all others are."""
    before = threading.excepthook

    def hear(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_type is not Killed:
            before(ended)

    threading.excepthook = hear
    try:
        yield
    finally:
        threading.excepthook = before


def _whole_calls(cls: type[RecordingFs]) -> type[RecordingFs]:
    """Threads see each other's calls done and written down, or not at all: one lock around each."""

    def whole(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def locked(self: RecordingFs, *arguments: Any) -> Any:
            with self.lock:
                return call(self, *arguments)

        return locked

    for name, call in tuple(vars(cls).items()):
        if not name.startswith("_"):
            setattr(cls, name, whole(call))
    return cls


@_whole_calls
class RecordingFs(Fs):
    """Real files below `root`, and a log of all that changed them.

    disk        what lies there already, durably
    kill_after  so many calls are done; whoever calls then is dead
    """

    def __init__(self, root: Path, *, disk: Disk | None = None) -> None:
        self.root = str(root)
        self.lock = threading.Lock()
        self.log: list[Call] = []
        self.disk: Disk = disk or ({}, {}, set())
        self.kill_after: int | None = None
        self.killed = False
        self._inodes: dict[str, int] = dict(self.disk[0])
        self._open: dict[int, tuple[int, str]] = {}
        self._next = itertools.count(max(self.disk[1], default=0) + 1)

    def _relative(self, path: str) -> str:
        assert path == self.root or path.startswith(self.root + "/"), path
        return os.path.relpath(path, self.root)

    def _note(self, kind: str, path: str = "", **rest: object) -> None:
        self.log.append(Call(kind, path, **rest))  # type: ignore[arg-type]

    def _live(self) -> None:
        """Before each call."""
        if self.kill_after is not None and len(self.log) >= self.kill_after:
            self.killed = True
            raise Killed

    def mark(self, text: str) -> None:
        """A moment of the test's own, e.g. `250 ID`."""
        self._live()
        self._note("note", text=text)

    def end(self) -> None:
        """The process has ended, or was killed: the kernel closes what it had open. Another one may begin."""
        for fd in self._open:
            os.close(fd)
        self._open.clear()
        self.kill_after, self.killed = None, False

    def create(self, path: str, mode: int = 0o660) -> int:
        self._live()
        fd = super().create(path, mode)
        name, inode = self._relative(path), next(self._next)
        self._inodes[name] = inode
        self._open[fd] = (inode, name)
        self._note("create", name, inode=inode)
        return fd

    def append(self, path: str, mode: int = 0o640) -> int:
        self._live()
        name = self._relative(path)
        fd = super().append(path, mode)
        if name not in self._inodes:
            self._inodes[name] = next(self._next)
            self._note("create", name, inode=self._inodes[name])
        self._open[fd] = (self._inodes[name], name)
        return fd

    def reuse(self, path: str) -> int:
        self._live()
        fd = super().reuse(path)
        name = self._relative(path)
        self._open[fd] = (self._inodes[name], name)
        self._note("empty", name, inode=self._inodes[name])
        return fd

    def empty(self, path: str) -> None:
        self._live()
        super().empty(path)
        name = self._relative(path)
        self._note("empty", name, inode=self._inodes[name])

    def open_dir(self, path: str) -> int:
        self._live()
        fd = super().open_dir(path)
        # Directories above the folder are not on this disk.
        self._open[fd] = (0, self._relative(path) if path.startswith(self.root) else "..")
        return fd

    def write(self, fd: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        self._live()
        super().write(fd, parts)
        inode, name = self._open[fd]
        self._note("write", name, inode=inode, data=b"".join(parts))

    def sync(self, fd: int) -> None:
        self._live()
        inode, name = self._open[fd]
        self._note("sync", name, inode=inode)

    def sync_dir(self, fd: int) -> None:
        self._live()
        self._note("sync_dir", self._open[fd][1])

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        super().close(fd)

    def rename(self, old: str, new: str) -> None:
        self._live()
        super().rename(old, new)
        was, now = self._relative(old), self._relative(new)
        inode = self._inodes.pop(was)
        self._inodes[now] = inode
        self._note("name", now, inode=inode)
        self._note("unname", was, inode=inode)

    def unlink(self, path: str) -> None:
        self._live()
        super().unlink(path)
        name = self._relative(path)
        self._note("unname", name, inode=self._inodes.pop(name))

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        self._live()
        super().mkdir(path, mode)
        self._note("mkdir", self._relative(path))


# --- what a disk may hold -----------------------------------------------------------------------------


@dataclasses.dataclass
class _Open:
    """Changes that no sync has made durable yet, in their order."""

    names: dict[str, list[Call]]
    """By directory."""
    bytes: dict[int, list[Call]]
    """By inode."""


def _replay(fs: RecordingFs, cut: int) -> tuple[Disk, _Open]:
    names, contents, folders = dict(fs.disk[0]), dict(fs.disk[1]), set(fs.disk[2])
    pending = _Open({}, {})
    for call in fs.log[:cut]:
        if call.kind in ("create", "name", "unname", "mkdir"):
            pending.names.setdefault(str(Path(call.path).parent), []).append(call)
        elif call.kind in ("write", "empty"):
            pending.bytes.setdefault(call.inode, []).append(call)
        elif call.kind == "sync":
            for change in pending.bytes.pop(call.inode, []):
                _apply_bytes(contents, change, change.data)
        elif call.kind == "sync_dir":
            for change in pending.names.pop(call.path, []):
                _apply_name(names, folders, change)
    return (names, contents, folders), pending


def _apply_bytes(contents: dict[int, bytes], change: Call, data: bytes) -> None:
    contents[change.inode] = b"" if change.kind == "empty" else contents.get(change.inode, b"") + data


def _apply_name(names: dict[str, int], folders: set[str], change: Call) -> None:
    if change.kind == "mkdir":
        folders.add(change.path)
    elif change.kind == "unname":
        if names.get(change.path) == change.inode:
            del names[change.path]
    else:
        names[change.path] = change.inode


def _fates(change: Call) -> list[bytes | None]:
    """What may be left of one unsynced change: None is nothing."""
    if change.kind != "write":
        return [b"", None]
    data, half = change.data, len(change.data) // 2
    return [data, None, data[:half], bytes(half) + data[half:]]


MOST_STATES = 256
"""Per cut. Below it all combinations are tried; above it the two extremes and a sample."""


def states(fs: RecordingFs, cut: int, seed: int) -> Iterator[Disk]:
    """Disks that a power cut after `cut` calls may leave."""
    durable, pending = _replay(fs, cut)
    changes, choices = _choices(pending)
    count = 1
    for fates in choices:
        count *= len(fates)
    combinations: Iterator[tuple[bytes | None, ...]]
    if count <= MOST_STATES:
        combinations = itertools.product(*choices)
    else:
        rng = random.Random(f"{seed} {cut}")
        sample = [tuple(rng.choice(fates) for fates in choices) for _ in range(MOST_STATES - 2)]
        combinations = iter([tuple(f[0] for f in choices), tuple(f[1] for f in choices), *sample])
    for combination in combinations:
        yield _left(durable, changes, combination)


def some_state(fs: RecordingFs, cut: int, rng: random.Random) -> Disk:
    """One of them; with a fair chance that everything, or nothing, of what was not synced is there."""
    durable, pending = _replay(fs, cut)
    changes, choices = _choices(pending)
    which = rng.choice(("all", "none", "any", "any"))
    pick = {"all": lambda fates: fates[0], "none": lambda fates: fates[1], "any": rng.choice}[which]
    return _left(durable, changes, [pick(fates) for fates in choices])


def _choices(pending: _Open) -> tuple[list[Call], list[list[bytes | None]]]:
    changes = [c for group in pending.names.values() for c in group]
    changes += [c for group in pending.bytes.values() for c in group]
    return changes, [_fates(change) for change in changes]


def _left(durable: Disk, changes: Sequence[Call], fates: Sequence[bytes | None]) -> Disk:
    names, contents, folders = dict(durable[0]), dict(durable[1]), set(durable[2])
    for change, fate in zip(changes, fates, strict=True):
        if fate is None:
            continue
        if change.kind in ("write", "empty"):
            _apply_bytes(contents, change, fate)
        else:
            _apply_name(names, folders, change)
    return names, contents, folders


def looks(disk: Disk) -> int:
    """The same number for disks that nobody can tell apart: names, contents, which names are one file."""
    names, contents, folders = disk
    files: dict[int, list[str]] = {}
    for name, inode in names.items():
        files.setdefault(inode, []).append(name)
    one_by_one = ((frozenset(together), contents.get(inode, b"")) for inode, together in files.items())
    return hash((frozenset(one_by_one), frozenset(folders)))


def put_on_disk(disk: Disk, root: Path) -> Disk:
    """Make the files of `disk` below `root`; names whose directory did not survive are gone with it.

    Returns what is there, for the life that begins on it.
    """
    names, contents, folders = disk
    root.mkdir(parents=True)
    there: set[str] = set()
    for folder in sorted(folders):
        if (root / folder).parent.is_dir():
            (root / folder).mkdir(exist_ok=True)
            there.add(folder)
    made: dict[int, Path] = {}
    for name, inode in names.items():
        path = root / name
        if not path.parent.is_dir():
            continue
        if inode in made:
            os.link(made[inode], path)
        else:
            path.write_bytes(contents.get(inode, b""))
            made[inode] = path
    found = {name: inode for name, inode in names.items() if (root / name).exists()}
    return found, {inode: contents.get(inode, b"") for inode in found.values()}, there
