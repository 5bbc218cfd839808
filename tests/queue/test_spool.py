"""Receiving and committing (queue/spool.py, queue/commit.py)."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.fs import REAL, Fs
from forkd.queue import recovery, state, stored
from forkd.queue.commit import Committer, Result, commit
from forkd.queue.envelope import Replaced
from forkd.queue.format import Damaged
from forkd.queue.recycle import Bin
from forkd.queue.spool import BUFFER_BYTES, QMGR_SLOT, Spool, SpoolError, SpoolFull
from tests.support.spooling import MAIL, a_spool, an_envelope, queued

LARGE = b"0123456789abcdef" * (BUFFER_BYTES // 4)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class FailingFs(Fs):
    """Fails the calls of one name with one error, from the first or the n-th on."""

    def __init__(self, call: str, number: int, *, after: int = 0) -> None:
        self.call, self.number, self.left = call, number, after

    def _maybe(self, call: str) -> None:
        if call == self.call:
            self.left -= 1
            if self.left < 0:
                raise OSError(self.number, os.strerror(self.number))

    def create(self, path: str, mode: int = 0o660) -> int:
        self._maybe("create")
        return super().create(path, mode)

    def write(self, fd: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        self._maybe("write")
        super().write(fd, parts)

    def sync(self, fd: int) -> None:
        self._maybe("sync")

    def sync_dir(self, fd: int) -> None:
        self._maybe("sync_dir")

    def rename(self, old: str, new: str) -> None:
        self._maybe("rename")
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._maybe("unlink")
        super().unlink(path)


@pytest.mark.parametrize("message", [b"", MAIL, LARGE, LARGE + b"x"], ids=["empty", "small", "large", "odd"])
def test_a_committed_message_is_read_back_whole(tmp_path: Path, message: bytes) -> None:
    """Message and envelope come out as they went in, whatever the size and the pieces."""
    spool = a_spool(tmp_path / "spool")
    file = spool.begin()
    for at in range(0, len(message), 10_000):
        file.write(message[at : at + 10_000])
    assert file.size == len(message)
    (result,) = commit(spool, [(file, an_envelope())])
    assert result == file.id
    read = stored.load(f"{spool.new}/{file.id}", file.id)
    assert b"".join(read.chunks()) == message
    assert read.envelope == an_envelope()
    assert read.size == len(message)


def test_a_small_message_costs_no_file_before_its_commit(tmp_path: Path) -> None:
    """What is refused while small has never touched the disk."""
    spool = a_spool(tmp_path)
    file = spool.begin()
    file.write(MAIL)
    assert files(tmp_path) == []
    file.abort()
    assert files(tmp_path) == []


def test_abort_removes_what_was_written_and_may_be_called_again(tmp_path: Path) -> None:
    """A lost connection or a refusal leaves nothing."""
    spool = a_spool(tmp_path)
    file = spool.begin()
    file.write(LARGE)
    assert len(files(tmp_path)) == 1
    file.abort()
    file.abort()
    assert files(tmp_path) == []
    with pytest.raises(SpoolError):
        file.write(b"more")


@pytest.mark.parametrize("message", [MAIL, LARGE + MAIL], ids=["in memory", "in a file"])
def test_the_copy_is_the_message_so_far(tmp_path: Path, message: bytes) -> None:
    """What plugins are shown is what will be committed."""
    file = a_spool(tmp_path).begin()
    file.write(message[:-10])
    file.write(message[-10:])
    assert b"".join(file.read_back(0, len(message))) == message
    file.abort()


@given(st.lists(st.integers(0, 40_000), max_size=6), st.integers(0, 200_000), st.integers(0, 200_000))
def test_any_part_of_what_was_written_can_be_read_back(sizes: list[int], start: int, octets: int) -> None:
    """From the file and from memory, whatever lies where (spilled above 64 KiB)."""
    written = b"".join(bytes([number]) * size for number, size in enumerate(sizes, start=1))
    with tempfile.TemporaryDirectory() as folder:
        file = a_spool(Path(folder)).begin()
        for number, size in enumerate(sizes, start=1):
            file.write(bytes([number]) * size)
        assert b"".join(file.read_back(start, octets)) == written[start : start + octets]
        file.abort()


@pytest.mark.parametrize(
    ("call", "number", "kind"),
    [
        ("create", errno.EROFS, SpoolFull),
        ("create", errno.ENOSPC, SpoolFull),
        ("write", errno.EDQUOT, SpoolFull),
        ("write", errno.EIO, SpoolError),
    ],
)
def test_trying_a_spool_tells_what_a_message_would_meet(
    tmp_path: Path, call: str, number: int, kind: type[SpoolError]
) -> None:
    """Inodes, quota, a file system that has become read-only; and it leaves nothing behind."""
    Spool.prepare(tmp_path, ["w0"])
    before = files(tmp_path)
    Spool(tmp_path, "w0").try_out()
    with pytest.raises(SpoolError, match=os.strerror(number)) as raised:
        Spool(tmp_path, "w0", fs=FailingFs(call, number)).try_out()
    assert type(raised.value) is kind
    assert files(tmp_path) == before


def with_a_free_file(spool: Spool) -> str:
    """One message delivered, its file free and safe to be taken; the file's name."""
    first = queued(spool)
    assert Bin(spool.root, REAL).put("w0", first, f"{spool.new}/{first}")
    for _ in range(2):
        # A commit sees the name, the next one has synced new/SLOT after that.
        spool.pool._looked_at = -1.0
        queued(spool)
    return first


def test_a_file_comes_round(tmp_path: Path) -> None:
    """recycle.py: the next message is written where a delivered one was, and has only its own name."""
    spool = a_spool(tmp_path)
    name = with_a_free_file(spool)
    inode = Path(f"{tmp_path}/free/w0/{name}").stat().st_ino
    queue_id = queued(spool)
    assert Path(f"{spool.new}/{queue_id}").stat().st_ino == inode
    assert Path(f"{spool.new}/{queue_id}").stat().st_nlink == 1
    assert not list((tmp_path / "free/w0").iterdir())


def test_a_file_swept_away_while_it_is_filled_is_replaced(tmp_path: Path) -> None:
    """A qmgr that starts anew takes all names in free/: the message under way is committed all the same."""
    spool = a_spool(tmp_path)
    name = with_a_free_file(spool)
    file = spool.begin()
    file.write(MAIL)
    file.find_file()
    assert file.path.endswith(name)
    list(recovery.recover(str(tmp_path)))
    (queue_id,) = commit(spool, [(file, an_envelope())])
    assert isinstance(queue_id, str)
    assert b"".join(stored.load(f"{spool.new}/{queue_id}", queue_id).chunks()) == MAIL


def test_recovery_goes_on_where_a_worker_takes_a_file_away(tmp_path: Path) -> None:
    """At a reload qmgr begins beside living workers: a name it has just seen in free/ is gone by then."""
    spool = a_spool(tmp_path)
    name = with_a_free_file(spool)

    class Filled(Fs):
        def unlink(self, path: str) -> None:
            if path.endswith(f"free/w0/{name}"):
                Path(path).rename(tmp_path / "taken")
            super().unlink(path)

    list(recovery.recover(str(tmp_path), fs=Filled()))
    assert (tmp_path / "taken").exists()


def test_only_one_process_takes_the_files_of_a_slot(tmp_path: Path) -> None:
    """Two would write into one file: a worker that outlived its master, and the one after it."""
    first = a_spool(tmp_path)
    with_a_free_file(first)
    second = Spool(tmp_path, "w0")
    for _ in range(3):
        second.pool._looked_at = -1.0
        queued(second)
    assert len(list((tmp_path / "free/w0").iterdir())) == 1, "left to the first"
    first.close()
    for _ in range(3):
        second.pool._looked_at = -1.0
        queued(second)
    assert not list((tmp_path / "free/w0").iterdir())


@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
@pytest.mark.parametrize("old", [10, 100_000], ids=["of a small one", "of a large one"])
def test_a_replaced_body_is_streamed_in_the_place_of_the_old(tmp_path: Path, old: int, size: int) -> None:
    """Header as it came, then the new body; the size is that of what goes out."""
    spool, header, new = a_spool(tmp_path), b"Subject: x\r\n\r\n", b"n" * size
    file = spool.begin()
    for part in (header, b"o" * old, b"given up", new):
        file.write(part)
    replaced = Replaced(
        kept=len(header), kept_crc=zlib.crc32(header), offset=len(header) + old + 8, octets=size,
        crc=zlib.crc32(new),
    )  # fmt: skip
    (queue_id,) = commit(spool, [(file, an_envelope(replaced=replaced))])
    assert isinstance(queue_id, str)
    message = stored.load(f"{spool.new}/{queue_id}", queue_id)
    assert b"".join(message.chunks()) == header + new
    assert message.size == len(header + new)


@pytest.mark.parametrize("where", [3, -100_000], ids=["header", "body"])
def test_a_damaged_replaced_body_is_seen_before_the_end(tmp_path: Path, where: int) -> None:
    """Of a large message only what goes out is read, and each part of it has its own sum."""
    spool, header, new = a_spool(tmp_path), b"Subject: x\r\n\r\n", b"n" * 200_000
    file = spool.begin()
    file.write(header + new)
    replaced = Replaced(
        kept=len(header),
        kept_crc=zlib.crc32(header),
        offset=len(header),
        octets=len(new),
        crc=zlib.crc32(new),
    )
    (queue_id,) = commit(spool, [(file, an_envelope(replaced=replaced))])
    assert isinstance(queue_id, str)
    path = Path(spool.new) / queue_id
    octets = bytearray(path.read_bytes())
    octets[where] ^= 1
    path.write_bytes(octets)
    with pytest.raises(Damaged):
        list(stored.load(str(path), queue_id).chunks())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("call", ["create", "write", "sync", "rename", "sync_dir"])
def test_no_room_at_the_commit_is_spool_full_and_leaves_nothing(
    tmp_path: Path, call: str, number: int
) -> None:
    """Disk full, quota, read-only: 452 4.3.1, tmp/ cleaned (queue.md)."""
    spool = a_spool(tmp_path)
    spool = Spool(tmp_path, "w0", fs=FailingFs(call, number))
    file = spool.begin()
    file.write(MAIL)
    (result,) = commit(spool, [(file, an_envelope())])
    assert isinstance(result, SpoolFull)
    assert files(tmp_path) == []


def test_another_error_is_spool_error(tmp_path: Path) -> None:
    """EIO is not a lack of room: 451 4.3.0."""
    a_spool(tmp_path)
    spool = Spool(tmp_path, "w0", fs=FailingFs("sync", errno.EIO))
    file = spool.begin()
    file.write(MAIL)
    (result,) = commit(spool, [(file, an_envelope())])
    assert isinstance(result, SpoolError)
    assert not isinstance(result, SpoolFull)


def test_no_room_while_it_comes_in(tmp_path: Path) -> None:
    """The write that does not fit says so; the file is gone, abort does no harm."""
    a_spool(tmp_path)
    spool = Spool(tmp_path, "w0", fs=FailingFs("write", errno.ENOSPC))
    file = spool.begin()
    with pytest.raises(SpoolFull):
        file.write(LARGE)
    file.abort()
    assert files(tmp_path) == []


def test_one_bad_message_does_not_harm_its_batch(tmp_path: Path) -> None:
    """Each message has its own answer."""
    a_spool(tmp_path)
    spool = Spool(tmp_path, "w0", fs=FailingFs("write", errno.ENOSPC, after=1))
    batch = []
    for _ in range(2):
        file = spool.begin()
        file.write(MAIL)
        batch.append((file, an_envelope()))
    first, second = commit(spool, batch)
    assert first == batch[0][0].id
    assert isinstance(second, SpoolFull)
    assert files(tmp_path) == [f"new/w0/{first}"]


def test_a_file_commits_once(tmp_path: Path) -> None:
    """A second 250 for the same message would be a lie."""
    spool = a_spool(tmp_path)
    file = spool.begin()
    file.write(MAIL)
    assert commit(spool, [(file, an_envelope())]) == [file.id]
    (again,) = commit(spool, [(file, an_envelope())])
    assert isinstance(again, SpoolError)
    file.abort()
    assert files(tmp_path) == [f"new/w0/{file.id}"]


def test_the_committer_answers_each_once_and_drains_at_close(tmp_path: Path) -> None:
    """Everything submitted is committed before close() returns, in any batches."""
    spool = a_spool(tmp_path)
    answers: list[tuple[int, Result]] = []
    threads: set[int] = set()

    def on_done(results: list[tuple[int, Result]]) -> None:
        threads.add(threading.get_ident())
        answers.extend(results)

    committer = Committer(spool, on_done)
    ids = []
    for token in range(100):
        file = spool.begin()
        file.write(MAIL)
        ids.append(file.id)
        committer.submit(file, an_envelope(), token)
    committer.close()
    assert answers == list(enumerate(ids))
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert files(tmp_path) == [f"new/w0/{i}" for i in sorted(ids)]


def test_prepared_for_two_roles(tmp_path: Path) -> None:
    """As root: workers make files that qmgr's group may read and remove; nobody else looks in."""
    if os.geteuid() != 0:
        pytest.skip("needs root: chown")
    Spool.prepare(tmp_path / "spool", ["w0"], worker_uid=12_345, queue_uid=12_346, queue_gid=12_347)
    for part in ("tmp", "new", "free"):
        status = (tmp_path / "spool" / part / "w0").stat()
        assert (status.st_uid, status.st_gid) == (12_345, 12_347)
        assert stat.S_IMODE(status.st_mode) == 0o2770
        status = (tmp_path / "spool" / part / QMGR_SLOT).stat()
        assert (status.st_uid, status.st_gid) == (12_346, 12_347), "qmgr writes reports"
    assert stat.S_IMODE((tmp_path / "spool/bad").stat().st_mode) == 0o700
    assert (tmp_path / "spool/bad").stat().st_uid == 12_346


def test_finished_files_come_round(tmp_path: Path) -> None:
    """recycle.py: qmgr's emptied file becomes the next message's but two, never before a sync."""
    spool = a_spool(tmp_path)
    first = queued(spool)
    inode = (tmp_path / "new/w0" / first).stat().st_ino
    bin_ = Bin(str(tmp_path), spool.fs)
    path = f"{spool.new}/{first}"
    state.remove(path, has_state=False, put=lambda p: bin_.put("w0", first, p))
    assert files(tmp_path) == [f"free/w0/{first}"]
    assert (tmp_path / "free/w0" / first).read_bytes() == b""
    spool.pool._looked_at = -1.0
    second = queued(spool)
    assert (tmp_path / "new/w0" / second).stat().st_ino != inode, "taken before a sync followed its sight"
    third = queued(spool)
    assert (tmp_path / "new/w0" / third).stat().st_ino != inode, "seen after the sync, not before it"
    fourth = queued(spool, message=b"short\r\n")
    assert (tmp_path / "new/w0" / fourth).stat().st_ino == inode
    assert b"".join(stored.load(f"{spool.new}/{fourth}", fourth).chunks()) == b"short\r\n"


def _as(uid: int, gid: int, umask: int, act: Callable[[], None]) -> int:
    """Run in a process of that user; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.umask(umask)
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("umask", [0o007, 0o027])
def test_worker_and_qmgr_as_two_users(umask: int) -> None:
    """One commits, the other reads and removes, with a file that comes round or without."""
    if os.geteuid() != 0:
        pytest.skip("needs root: two users")
    worker, qmgr = (12_345, 12_345), (12_346, 12_347)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "spool"
        Path(folder).chmod(0o755)
        Spool.prepare(root, ["w0"], worker_uid=worker[0], queue_uid=qmgr[0], queue_gid=qmgr[1])

        def receive() -> None:
            queued(Spool(root, "w0"))

        def deliver() -> None:
            (found,) = recovery.recover(str(root))
            path = f"{root}/new/w0/{found.id}"
            assert b"".join(stored.load(path, found.id).chunks()) == MAIL
            bin_ = Bin(str(root), REAL)
            state.remove(path, has_state=False, put=lambda p: bin_.put("w0", found.id, p))

        assert _as(*worker, umask, receive) == 0
        assert _as(*qmgr, umask, deliver) == 0
        kept = [name.split("/")[0] for name in files(root)]
        assert kept == (["free"] if umask == 0o007 else [])


def test_an_envelope_that_nobody_could_read_again_is_refused(tmp_path: Path) -> None:
    """Answered 250 it would be moved to bad/ as damaged: no mail is lost by its number of recipients."""
    spool = a_spool(tmp_path)
    file = spool.begin()
    file.write(MAIL)
    (result,) = commit(
        spool, [(file, an_envelope(*[f"{'u' * 60}{n}@{'d' * 60}.test" for n in range(130_000)]))]
    )
    assert isinstance(result, SpoolError)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
