# Plain system calls on text paths, so that one call here is one call of the kernel:
# ruff: noqa: PTH100, PTH102, PTH104, PTH108, PTH120
"""How do bytes survive? The only module that may fsync, rename or link.

Spool and deliveries do all their file work through an `Fs`, so that tests/crash can stand in for it
and make every call a possible power cut. What we rely on, and nothing more:

    sync(fd)        on return the file's bytes and length survive a power cut
    sync_dir(fd)    on return the names in that directory, as they were at the call, survive
    rename(a, b)    for a running system atomic; after a power cut, without a sync_dir of the directory,
                    either name may be there, or both, or none
    no order        whatever was not synced may survive or not, each piece for itself

A file's sync says nothing about its name (fsync(2), "Calling fsync() does not necessarily ensure that
the entry in the directory containing the file has also reached disk"). A sync that failed is never
repeated: Linux drops the dirty pages with the first error, so the second call would lie.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""No room now, for us: the world's fault, temporary."""


class Fs:
    """File calls of spool and delivery, on paths as text. Errors are OSError, as the kernel gave them."""

    __slots__ = ()

    def create(self, path: str, mode: int = 0o660) -> int:
        """A new file for writing and reading back; FileExistsError when the name is taken."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)

    def append(self, path: str, mode: int = 0o640) -> int:
        """A file for appending, made when it is not there."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, mode)

    def reuse(self, path: str) -> int:
        """A file that is there, emptied, for writing and reading back."""
        return os.open(path, os.O_RDWR | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)

    def empty(self, path: str) -> None:
        """Take all octets from a file."""
        os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))

    def open(self, path: str) -> int:
        """A file for reading. No link is followed and no FIFO waited for: names may be another role's."""
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def open_dir(self, path: str) -> int:
        """A directory, for sync_dir()."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def write(self, fd: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Write all of `parts`, at best in one call. An OSError may leave some of it written."""
        total = sum(map(len, parts))
        # IOV_MAX is 1024 on Linux; whoever has more pieces joins them first.
        done = os.writev(fd, parts)
        if done == total:
            return
        rest = memoryview(b"".join(parts))[done:]
        while rest:
            rest = rest[os.write(fd, rest) :]

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Up to `size` octets at `offset`; fewer only at the end of the file or after a signal."""
        return os.pread(fd, size, offset)

    def size(self, fd: int) -> int:
        """The length of a regular file; OSError EINVAL for anything else."""
        status = os.fstat(fd)
        if (status.st_mode & 0o170000) != 0o100000:
            raise OSError(errno.EINVAL, "not a regular file")
        return status.st_size

    def close(self, fd: int) -> None:
        """Release a descriptor; never a promise about the file (close(2))."""
        os.close(fd)

    def sync(self, fd: int) -> None:
        """Make a file's bytes survive a power cut. Blocks for one or more disk writes."""
        os.fsync(fd)

    def sync_dir(self, fd: int) -> None:
        """Make the names in a directory survive a power cut. Blocks as sync() does."""
        os.fsync(fd)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name; a file that had it is replaced."""
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        """Take a name away."""
        os.unlink(path)

    def mkdir(self, path: str, mode: int = 0o700) -> None:
        """A new directory; FileExistsError when the name is taken."""
        os.mkdir(path, mode)

    def names(self, path: str) -> Iterator[str]:
        """The names in a directory, lazily, in no order; what comes and goes meanwhile may be missed."""
        with os.scandir(path) as entries:
            for entry in entries:
                yield entry.name

    def free_bytes(self, path: str) -> int:
        """Octets an ordinary user may still write there; 0 where no further file can be made.

        Quotas are not seen: the kernel does not say what one leaves.
        """
        status = os.statvfs(path)
        # btrfs and others have no number of files: both are 0 there.
        if status.f_files and not status.f_favail:
            return 0
        return status.f_bavail * status.f_frsize


REAL = Fs()


def make_dirs(fs: Fs, path: str, mode: int = 0o700) -> None:
    """Make a directory and what is missing above it, all their names durable up to the root.

    Names that stood there before are synced too: whoever made them may have been killed before its
    sync. For set-up and first mail only: blocks for one sync per level. Raises OSError.
    """
    path = os.path.abspath(path)
    levels = [path]
    while levels[-1] != "/":
        levels.append(os.path.dirname(levels[-1]))
    for directory in reversed(levels[:-1]):
        with contextlib.suppress(FileExistsError):
            fs.mkdir(directory, mode)
        # A directory that we may not read is not one of ours: its names were there before us.
        with contextlib.suppress(PermissionError):
            sync_name(fs, directory)


def sync_name(fs: Fs, path: str) -> None:
    """Make the name `path` survive a power cut: sync the directory it stands in."""
    sync_names(fs, os.path.dirname(path))


def sync_names(fs: Fs, directory: str) -> None:
    """Make the names in `directory`, as they are, survive a power cut."""
    fd = fs.open_dir(directory)
    try:
        fs.sync_dir(fd)
    finally:
        fs.close(fd)
