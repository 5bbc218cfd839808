"""A disk that refuses: real files, no wait for the disk, and one call, or all from one on, that fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from forkd.fs import Fs

_WRITES = frozenset({"create", "append", "reuse", "empty", "rename", "unlink", "mkdir"})
_NEEDS_ROOM = frozenset({"create", "append", "write", "sync", "sync_dir", "rename", "unlink", "mkdir"})

REFUSES = {
    # btrfs needs room to delete and to sync, ext4 for a name.
    errno.ENOSPC: _NEEDS_ROOM,
    errno.EDQUOT: _NEEDS_ROOM,
    errno.EROFS: _WRITES,
    errno.EIO: _WRITES | _NEEDS_ROOM | {"open", "open_dir", "read", "names", "free_bytes"},
}
"""Which calls may fail with which error."""


class ProcessFs(Fs):
    """Real files, and what a process has open of them; no wait for the disk."""

    def __init__(self) -> None:
        self.has_open: dict[int, str] = {}

    def end(self) -> list[str]:
        """The process has ended, and the kernel closes what it had open; what that was."""
        left = list(self.has_open.values())
        for fd in self.has_open:
            os.close(fd)
        self.has_open.clear()
        return left

    def _opened(self, fd: int, path: str) -> int:
        self.has_open[fd] = path
        return fd

    def create(self, path: str, mode: int = 0o660) -> int:
        return self._opened(super().create(path, mode), path)

    def append(self, path: str, mode: int = 0o640) -> int:
        return self._opened(super().append(path, mode), path)

    def reuse(self, path: str) -> int:
        return self._opened(super().reuse(path), path)

    def open(self, path: str) -> int:
        return self._opened(super().open(path), path)

    def open_dir(self, path: str) -> int:
        return self._opened(super().open_dir(path), path)

    def close(self, fd: int) -> None:
        self.has_open.pop(fd, None)
        super().close(fd)

    def sync(self, fd: int) -> None:
        pass

    def sync_dir(self, fd: int) -> None:
        pass


class FailingFs(ProcessFs):
    """Counts the calls that may fail with `error`, and fails the one of number `at`, from 1.

    on    that one and all after it, until it is healed by at = 0
    only  what has this in its path
    """

    def __init__(self, error: int, *, at: int = 0, on: bool = False) -> None:
        super().__init__()
        self.error, self.at, self.on = error, at, on
        self.only = ""
        self.calls = 0
        self.failed: list[str] = []
        """What was refused, in words."""

    def _refuses(self, call: str, path: str = "") -> bool:
        if call not in REFUSES[self.error] or self.only not in path:
            return False
        self.calls += 1
        refused = bool(self.at) and (self.calls == self.at or (self.on and self.calls > self.at))
        if refused:
            self.failed.append(f"{call} {path}".strip())
        return refused

    def _try(self, call: str, path: str = "") -> None:
        if self._refuses(call, path):
            raise OSError(self.error, os.strerror(self.error), path or None)

    def create(self, path: str, mode: int = 0o660) -> int:
        self._try("create", path)
        return super().create(path, mode)

    def append(self, path: str, mode: int = 0o640) -> int:
        self._try("append", path)
        return super().append(path, mode)

    def reuse(self, path: str) -> int:
        self._try("reuse", path)
        return super().reuse(path)

    def empty(self, path: str) -> None:
        self._try("empty", path)
        super().empty(path)

    def open(self, path: str) -> int:
        self._try("open", path)
        return super().open(path)

    def open_dir(self, path: str) -> int:
        self._try("open_dir", path)
        return super().open_dir(path)

    def write(self, fd: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        if self._refuses("write"):
            # As a full disk does it: a part has found its place.
            data = b"".join(parts)
            super().write(fd, (data[: len(data) // 2],))
            raise OSError(self.error, os.strerror(self.error))
        super().write(fd, parts)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self._try("read")
        return super().read(fd, size, offset)

    def sync(self, fd: int) -> None:
        self._try("sync")

    def sync_dir(self, fd: int) -> None:
        self._try("sync_dir", self.has_open[fd])

    def rename(self, old: str, new: str) -> None:
        self._try("rename", new)
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._try("unlink", path)
        super().unlink(path)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        self._try("mkdir", path)
        super().mkdir(path, mode)

    def names(self, path: str) -> Iterator[str]:
        self._try("names", path)
        return super().names(path)

    def free_bytes(self, path: str) -> int:
        self._try("free_bytes", path)
        return super().free_bytes(path)
