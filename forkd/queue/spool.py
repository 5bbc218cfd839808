"""How does a message come in? Into memory while it is small, then into a file in tmp/."""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from forkd.fs import FULL, REAL, Fs, make_dirs, sync_name
from forkd.queue.ids import SLOT, Ids, Process, QueueId
from forkd.queue.recycle import FREE, Pool

BUFFER_BYTES = 64 * 1024
"""Nine of ten mails are smaller: these cost the event loop no file call at all, and nothing when refused."""

TMP = "tmp"

QMGR_SLOT = "q0"
"""The slot of the mail that qmgr writes itself: reports."""

COPY_BYTES = 256 * 1024
"""Pieces in which a file is read back."""


def spool_root(data_dir: Path) -> Path:
    """Where the spool lies below server.data_dir: one answer for who makes, fills and empties it."""
    return data_dir / "spool"


class SpoolError(Exception):
    """The spool could not take the message: temporary -> 451 4.3.0."""


class SpoolFull(SpoolError):  # noqa: N818 - named as the reply is
    """No space, no quota, or read-only -> 452 4.3.1."""


def spool_error(error: OSError) -> SpoolError:
    """Which of the two an OSError is; the text is for the log."""
    kind = SpoolFull if error.errno in FULL else SpoolError
    return kind(f"{os.strerror(error.errno) if error.errno else error}")


class Spool:
    """The receiving side of a spool, for one slot. Files begin here and are committed by commit.py.

    root     as prepare() made it
    slot     whose folders we write in, e.g. `w0`; no two living processes share one
    durable  false: queue.durability = "none", no call waits for the disk and a power cut loses mail
    """

    __slots__ = (
        "_ids",
        "_mark",
        "_mark_pid",
        "_new_fd",
        "_owned",
        "durable",
        "fs",
        "new",
        "pool",
        "root",
        "tmp",
    )

    def __init__(self, root: Path, slot: str, *, durable: bool = True, fs: Fs = REAL) -> None:
        self.root = str(root)
        self.tmp = f"{root}/{TMP}/{slot}"
        self.new = f"{root}/new/{slot}"
        self.durable = durable
        self.fs = fs
        self._ids = Ids(slot)
        self.pool = Pool(self.root, slot, fs, mine=self._own)
        self._new_fd = -1
        self._owned = False
        self._mark = ""
        self._mark_pid = 0

    @staticmethod
    def prepare(
        root: Path,
        slots: Sequence[str],
        *,
        fs: Fs = REAL,
        worker_uid: int = -1,
        queue_uid: int = -1,
        queue_gid: int = -1,
    ) -> None:
        """Make the folders of a spool, durably; what is there already stays. Master calls it as root or user.

        qmgr's own slot is made too. With ids given (master is root): the slots' folders belong to the
        worker and, setgid, to qmgr's group, so that files made there are readable and removable by qmgr.
        The processes then need umask 007 (with 027 all works, but files do not come round: recycle.py).
        Without: all is the caller's own, mode 0700. Raises OSError.
        """
        split = queue_gid >= 0
        base = str(root.absolute())
        make_dirs(fs, base, 0o700)
        inside = 0o2770 if split else 0o700
        wanted = [
            ("", 0o751 if split else 0o700, queue_uid),
            (TMP, 0o751 if split else 0o700, queue_uid),
            ("new", 0o751 if split else 0o700, queue_uid),
            (FREE, 0o751 if split else 0o700, queue_uid),
            ("bad", 0o700, queue_uid),
        ]
        owners = [(slot, worker_uid) for slot in slots] + [(QMGR_SLOT, queue_uid)]
        wanted += [(f"{where}/{slot}", inside, uid) for slot, uid in owners for where in (TMP, "new", FREE)]
        for name, mode, uid in wanted:
            path = f"{base}/{name}".rstrip("/")
            with contextlib.suppress(FileExistsError):
                fs.mkdir(path, mode)
            sync_name(fs, path)
            if split:
                os.chown(path, uid, queue_gid)
            os.chmod(path, mode)  # noqa: PTH101 - past the umask, and after chown, which clears setgid

    @staticmethod
    def slots(root: Path | str, *, fs: Fs = REAL) -> list[str]:
        """All slots that have a folder in new/, of workers that are and that were."""
        return sorted(name for name in fs.names(f"{root}/new") if SLOT.fullmatch(name))

    def begin(self) -> SpoolFile:
        """A file for one message; its id is chosen now and is the one that 250 will name."""
        return SpoolFile(self, self._ids.new())

    def temporary(self, queue_id: QueueId) -> str:
        """The name in tmp/, with this process' mark."""
        if self._mark_pid != os.getpid():
            self._mark_pid = os.getpid()
            self._mark = Process.mark()
        return f"{self.tmp}/{queue_id}.{self._mark}"

    def new_fd(self) -> int:
        """A descriptor of new/SLOT for its sync, opened once. Raises OSError."""
        if self._new_fd < 0:
            self._new_fd = self.fs.open_dir(self.new)
        return self._new_fd

    def _own(self) -> bool:
        """Is this the one process that takes emptied files of the slot? Until it ends, once it is."""
        if not self._owned:
            try:
                fcntl.flock(self.new_fd(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False  # another process has it, or the file system knows no locks
            self._owned = True
        return True

    def free_bytes(self) -> int:
        """Octets free for us in the spool's file system; one statvfs, about 2 µs. Raises SpoolError."""
        try:
            return self.fs.free_bytes(self.new)
        except OSError as error:
            raise spool_error(error) from error

    def try_out(self) -> None:
        """Write a file as a message's is, and remove it: free_bytes() does not tell of a file system that is
        read-only since an error, of a quota, of inodes. Does not wait for the disk. Raises SpoolError."""
        path = self.temporary(self._ids.new())
        try:
            fd = self.fs.create(path)
            try:
                self.fs.write(fd, [b"probe"])
            finally:
                self.fs.close(fd)
                self.fs.unlink(path)
        except OSError as error:
            raise spool_error(error) from error

    def close(self) -> None:
        """Release the descriptor; files begun and not committed are their owners' to abort."""
        if self._new_fd >= 0:
            self.fs.close(self._new_fd)
            self._new_fd = -1


class SpoolFile:
    """One message on its way in. Ends by abort(), or by a commit: then it is nobody's to touch.

    Belongs to one thread at a time: the session's until Committer.submit(), then the committer's.
    """

    __slots__ = ("_ended", "_fd", "_parts", "_path", "_recycled", "_waiting", "crc", "id", "size", "spool")

    def __init__(self, spool: Spool, queue_id: QueueId) -> None:
        self.spool = spool
        self.id = queue_id
        self.size = 0
        """Octets so far: the message, and what was written behind it (a body that replaces its own)."""
        self.crc = 0
        self._parts: list[bytes] = []
        self._waiting = 0
        self._fd = -1
        self._path = ""
        self._recycled = False
        self._ended = False

    def write(self, chunk: bytes) -> None:
        """Take the next octets of the message, unstuffed, with CRLF.

        Kept in memory up to BUFFER_BYTES, then written out (into the page cache: no wait for the disk
        but what the kernel imposes on whoever writes faster than it can).
        Raises SpoolFull -> 452 4.3.1, SpoolError -> 451 4.3.0; the file is then aborted.
        """
        if self._ended:
            raise SpoolError("written to after its end")
        self._parts.append(chunk)
        size = len(chunk)
        self.size += size
        self._waiting += size
        if self._waiting > BUFFER_BYTES:
            try:
                self.spill()
            except OSError as error:
                self.abort()
                raise spool_error(error) from error

    def spill(self, tail: Sequence[bytes] = ()) -> int:
        """Write what waits, and `tail` behind it; return the descriptor. Raises OSError.

        Large messages, that come here before the commit, get a new file: theirs are not kept either.
        """
        parts = self._parts
        if len(parts) > 1:
            parts = [b"".join(parts)]
        if parts:
            self.crc = zlib.crc32(parts[0], self.crc)
        if self._fd < 0:
            self._create()
        if parts or tail:
            self.spool.fs.write(self._fd, [*parts, *tail])
        self._parts = []
        self._waiting = 0
        return self._fd

    def find_file(self) -> None:
        """A small message is complete: take a file that comes round, if there is one. One open, no wait.

        For whoever hands it to the committer: done there it would cost a change of threads. What fails
        here is tried again, and then reported, by the commit.
        """
        if self._fd < 0:
            with contextlib.suppress(OSError):
                self._fd, self._path = self.spool.pool.take()
                self._recycled = self._fd >= 0

    def write_all(self, tail: bytes) -> int:
        """For the commit: write what waits, and `tail` behind it; return the descriptor. Raises OSError."""
        if self._fd < 0:
            self._fd, self._path = self.spool.pool.take()
            self._recycled = self._fd >= 0
        if not self._recycled:
            return self.spill((tail,))
        # Nothing is forgotten yet: the name may be gone (renew).
        self.spool.fs.write(self._fd, [*self._parts, tail])
        return self._fd

    def renew(self) -> bool:
        """The file that was taken has lost its name: take a new one. False: it was no such file."""
        if not self._recycled:
            return False
        self._recycled = False
        self.release()
        self._create()
        return True

    def _create(self) -> None:
        path = self.spool.temporary(self.id)
        self._fd = self.spool.fs.create(path)
        self._path = path

    def checksum(self) -> int:
        """CRC-32 of all that was written, also of what still waits in memory."""
        if len(self._parts) > 1:
            self._parts = [b"".join(self._parts)]
        return zlib.crc32(self._parts[0], self.crc) if self._parts else self.crc

    def read_back(self, start: int, octets: int) -> Iterator[bytes]:
        """Octets that were written, in pieces; for what plugins read before the commit.

        Reads from the page cache. Raises SpoolError.
        """
        offset, end, written = start, start + octets, self.size - self._waiting
        while offset < min(end, written):
            try:
                piece = self.spool.fs.read(self._fd, min(COPY_BYTES, end - offset, written - offset), offset)
            except OSError as error:
                raise spool_error(error) from error
            if not piece:
                raise SpoolError("temporary file is shorter than what was written")
            offset += len(piece)
            yield piece
        at = written
        for part in self._parts:
            piece = part[max(0, offset - at) : end - at] if at < end else b""
            if piece:
                yield piece
            at += len(part)

    @property
    def path(self) -> str:
        """The name in tmp/ or free/; empty while all is in memory."""
        return self._path

    def abort(self) -> None:
        """Throw the message away. Never raises, may be called again; without effect once submitted.

        What cannot be removed is left for recovery: it has no name in new/, so it is nobody's mail.
        """
        if not self._ended:
            self.discard()

    def seize(self) -> None:
        """The commit takes the file over: abort() and write() no longer reach it."""
        if self._ended:
            raise SpoolError("committed or aborted before")
        self._ended = True

    def release(self) -> None:
        """Close the descriptor: the file has its name in new/."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self.spool.fs.close(fd)

    def discard(self) -> None:
        """Close and remove, whoever owns it; never raises."""
        self._ended = True
        self._parts = []
        fs = self.spool.fs
        fd, self._fd = self._fd, -1
        path, self._path = self._path, ""
        try:
            if fd >= 0:
                fs.close(fd)
            if path:
                fs.unlink(path)
        except OSError:
            pass  # recovery's row "temporary file of a dead process"
