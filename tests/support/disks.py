"""Small file systems that can be filled, made read-only and broken: real ones, mounted for one test.

tmpfs    ENOSPC: no blocks left
inodes   ENOSPC: a tmpfs that has room for octets and for no further name
ext4     ENOSPC, in a loop file; also a disk that turns read-only, and one that only fails (EIO)
quota    EDQUOT: a limit on a btrfs, in a loop file (quotas of ext4 and tmpfs need more of the kernel)
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.waiting import wait_for

FULL = ("tmpfs", "inodes", "ext4", "quota")
"""Kinds that can be full."""

_SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32): EXT4_IOC_SHUTDOWN, fs/ext4/ext4.h; 2: without writing out the journal."""


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclasses.dataclass
class Disk:
    """A mounted file system; `owner` is the uid that its top folder belongs to."""

    kind: str
    path: Path
    image: Path
    """The loop file of those that have one."""
    owner: int
    options: str = ""

    def make(self) -> None:
        """An empty file system."""
        if self.kind == "ext4":
            self._sparse(16 << 20)
            # No octet kept back for root.
            _run("mkfs.ext4", "-q", "-F", "-m", "0", self.image)
        elif self.kind == "quota":
            self._sparse(128 << 20)
            _run("mkfs.btrfs", "-q", "-f", "-M", self.image)

    def _sparse(self, octets: int) -> None:
        with self.image.open("wb") as file:
            file.truncate(octets)

    def mount(self) -> None:
        """Attach it, for its owner."""
        if self.kind in ("tmpfs", "inodes"):
            few = ",nr_inodes=200" if self.kind == "inodes" else ""
            _run("mount", "-t", "tmpfs", "-o", f"size=4m,mode=700{few}", "tmpfs", self.path)
        else:
            _run("mount", "-o", f"loop{self.options}", self.image, self.path)
        if self.kind == "quota":
            _run("btrfs", "quota", "enable", self.path)
            _run("btrfs", "qgroup", "limit", "4m", self.path)
        os.chown(self.path, self.owner, -1)

    def unmount(self) -> None:
        """Detach it; nobody may have it in use."""
        _run("umount", self.path)

    def repair(self) -> None:
        """As an admin does it: unmount, check, mount again."""
        self.unmount()
        # 1: errors were corrected (fsck(8)).
        done = subprocess.run(["e2fsck", "-fy", self.image], capture_output=True, check=False, timeout=60)
        assert done.returncode in (0, 1), done
        self.mount()

    def fill(self) -> None:
        """Until not one octet (kind `inodes`: not one name) has room. Nobody may make room meanwhile."""
        self.top_up()
        assert not self._has_room(), f"{self.path} is not full"

    def top_up(self) -> None:
        """As fill(), beside others who write and delete: it is full, for a moment at least."""
        if self.kind == "inodes":
            with contextlib.suppress(OSError):
                for number in range(1000):
                    (self.path / f"filler{number}").touch()
            return
        # Unbuffered, in ever smaller pieces; synced, for what btrfs has promised and not yet placed.
        fd = os.open(self.path / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (65536, 4096, 512, 1):
                with contextlib.suppress(OSError):
                    while os.write(fd, b"x" * size):
                        pass
                with contextlib.suppress(OSError):
                    os.fsync(fd)
        finally:
            os.close(fd)

    def _has_room(self) -> bool:
        probe = self.path / "probe"
        try:
            probe.write_bytes(b"x" * 1000)
            fd = os.open(probe, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.EDQUOT), error
            return False
        finally:
            probe.unlink(missing_ok=True)
        return True

    def make_room(self) -> None:
        """Undo fill()."""
        for path in self.path.glob("filler*"):
            path.unlink()
        os.sync()  # what was deleted is free only then on btrfs
        wait_for(self._has_room, what="room again")

    def turn_read_only(self) -> None:
        """As the kernel does when it finds an ext4 damaged that is mounted with errors=remount-ro."""
        source = _run("findmnt", "-no", "SOURCE", self.path).strip()
        Path(f"/sys/fs/ext4/{Path(source).name}/trigger_fs_error").write_text("1")
        with pytest.raises(OSError) as refused:
            (self.path / "probe").touch()
        assert refused.value.errno == errno.EROFS

    def break_off(self) -> None:
        """An ext4's disk is pulled out: every call fails with EIO from now on, and what was not synced is
        gone; repair() puts it back."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", 2))
        finally:
            os.close(fd)

    def remount(self, option: str) -> None:
        """`ro` or `rw`."""
        _run("mount", "-o", f"remount,{option}", self.path)


@contextlib.contextmanager
def mounting(folder: Path) -> Iterator[Callable[..., Disk]]:
    """mount(kind, path, owner=…) -> a Disk at `path`, away at the end; loop files lie in `folder`."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount file systems")
    with contextlib.ExitStack() as ends:

        def mount(kind: str, path: Path, *, owner: int, options: str = "") -> Disk:
            disk = Disk(kind, path, folder / f"{path.name}.{kind}", owner, options)
            disk.path.mkdir(parents=True, exist_ok=True)
            disk.make()
            disk.mount()
            # Lazily: after a failure somebody may still have a file open.
            ends.callback(subprocess.run, ["umount", "-l", path], capture_output=True, check=False)
            return disk

        yield mount
