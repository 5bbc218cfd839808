"""Promise of the queue: 250 was given => the message is there, at least once and whole; not given => absent,
or whole and deliverable. Checked for a power cut after every single file call.

Each scenario runs once on a RecordingFs. For every prefix of its log and every disk that this prefix may
leave, forkd's own recovery and delivery run on that disk (real files, real code), and the Maildir, the
queue and bad/ are looked at.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkd.config import schema
from forkd.fs import Fs
from forkd.qmgr.manager import Manager
from forkd.queue.commit import commit
from forkd.queue.spool import BUFFER_BYTES, Spool
from tests.support.crash_fs import Call, RecordingFs, put_on_disk, states
from tests.support.spooling import a_config, an_envelope

MEMORY = Path("/dev/shm")
"""Thousands of small disks are made and thrown away: in memory that takes a tenth of the time."""

SEED = int(os.environ.get("FORKD_SEED", "0")) or int(time.time())

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * ((BUFFER_BYTES * 2) // 16) + b"\r\n"


def body(name: str) -> bytes:
    """A message that can be known again, and whose parts can be missed."""
    return f"Subject: {name}\r\n\r\nbegin {name}\r\n".encode() + b"x" * 300 + f"\r\nend {name}\r\n".encode()


class Story:
    """What a scenario does: messages come in, 250 is noted, qmgr delivers."""

    def __init__(self, fs: RecordingFs, data: Path) -> None:
        self.fs = fs
        self.data = data
        self.config = config(data)
        Spool.prepare(data / "spool", ["w0"], fs=fs)
        self.spool = Spool(data / "spool", "w0", fs=fs)
        self.messages: dict[str, bytes] = {}

    def receive(self, *names: str, to: tuple[str, ...] = ("a@test.local",)) -> None:
        """One batch of commits; 250 for those that came through."""
        batch = []
        for name in names:
            message = LARGE + name.encode() + b"\r\n" if name.startswith("large") else body(name)
            self.messages[name] = message
            file = self.spool.begin()
            for at in range(0, len(message), 50_000):
                file.write(message[at : at + 50_000])
            batch.append((file, an_envelope(*to, session=name, received_at=time.time())))
        for name, result in zip(names, commit(self.spool, batch), strict=True):
            assert isinstance(result, str), result
            for recipient in to:
                self.fs.mark(f"250 {name} {recipient}")

    def deliver(self) -> Manager:
        """qmgr's start-up and one pass over all that is due."""
        return run_qmgr(self.config, self.fs)


def config(data: Path) -> schema.Config:
    """Maildirs; unknown.local has no transport: its mail waits."""
    return a_config(data)


class NoWaiting(Fs):
    """For the time after the cut: real files, no wait for the disk."""

    def sync(self, fd: int) -> None:
        pass

    def sync_dir(self, fd: int) -> None:
        pass


def run_qmgr(config: schema.Config, fs: Fs) -> Manager:
    """Recovery and all deliveries that are due, with the qmgr's own parts, until nothing runs."""
    woken = threading.Event()
    manager = Manager(config, f"{config.server.data_dir}/spool", woken.set, fs=fs)
    manager.recover()
    finish(manager, woken)
    return manager


def finish(manager: Manager, woken: threading.Event) -> None:
    """All that is due, until nothing runs."""
    while manager.pump(time.time()):
        while manager.active:
            assert woken.wait(10), "a pass does not end"
            woken.clear()
            manager.take_back()
    manager.stop_starting()


# --- scenarios ----------------------------------------------------------------------------------------


def one_message(story: Story) -> None:
    """Receive, deliver, remove."""
    story.receive("one")
    story.deliver()


def batch(story: Story) -> None:
    """Three messages share a directory sync; delivered together."""
    story.receive("b1", "b2", "b3")
    story.deliver()


def large_message(story: Story) -> None:
    """Streamed to tmp/ while it comes in."""
    story.receive("large1")
    story.deliver()


def partly_delivered(story: Story) -> None:
    """One recipient delivered, one deferred: `.state`; then an admin flushes."""
    story.receive("two", to=("a@test.local", "b@unknown.local"))
    manager = story.deliver()
    manager.schedule.flush([], time.time())
    story.deliver()


def round_and_round(story: Story) -> None:
    """Files come round: emptied, kept in free/, taken for the next messages."""
    for name in ("r1", "r2", "r3", "r4"):
        story.receive(name)
        if name != "r3":
            deliver_without_sweep(story)
        # The pool's looks are paced by the clock: here each commit looks.
        story.spool.pool._looked_at = -1.0


def deliver_without_sweep(story: Story) -> None:
    """A running qmgr, as it is between two messages: learns by walking, not by recovery."""
    woken = threading.Event()
    manager = Manager(story.config, f"{story.data}/spool", woken.set, fs=story.fs)
    while not manager.walk(100, time.time()):
        pass
    finish(manager, woken)


def refused_and_next(story: Story) -> None:
    """A message is thrown away in the middle; the next one is taken."""
    file = story.spool.begin()
    file.write(b"x" * (BUFFER_BYTES + 1))
    file.abort()
    story.receive("next")


SCENARIOS: list[Callable[[Story], None]] = [
    one_message, batch, large_message, partly_delivered, round_and_round, refused_and_next,
]  # fmt: skip


# --- the promise --------------------------------------------------------------------------------------


def broken_promises(scenario: Callable[[Story], None], tmp_path: Path, fs: RecordingFs) -> list[str]:
    """Play the scenario, cut the power after every call; everything that came out wrong, in words."""
    data = tmp_path / "disk"
    data.mkdir()
    story = Story(fs, data)
    prepared = len(fs.log)
    scenario(story)
    broken: list[str] = []
    for cut in range(prepared, len(fs.log) + 1):
        given = [call.text.split(" ")[1:] for call in fs.log[:cut] if call.text.startswith("250 ")]
        for number, disk in enumerate(states(fs.log, cut, SEED)):
            after = tmp_path / f"after-{cut}-{number}"
            put_on_disk(disk, after)
            for problem in problems(story, after, given):
                last = fs.log[cut - 1]
                broken.append(f"cut after call {cut} ({last.kind} {last.path}), disk {number}: {problem}")
            shutil.rmtree(after)
            if len(broken) > 3:
                return broken
    return broken


def problems(story: Story, after: Path, given: list[list[str]]) -> list[str]:
    """Run qmgr on that disk, and compare with what was promised."""
    for part in ("spool/tmp/w0", "spool/new/w0", "spool/free/w0", "spool/bad"):
        if not (after / part).is_dir():
            return [f"{part} is gone"]
    manager = run_qmgr(config(after), NoWaiting())
    found = []
    delivered = [path.read_bytes() for path in after.glob("mail/*/*/new/*")]
    for mail in delivered:
        if not any(mail.endswith(message.replace(b"\r\n", b"\n")) for message in story.messages.values()):
            found.append(f"a mail in a Maildir is no message of ours, or not whole: {mail[-60:]!r}")
    queued = {entry.id: manager for entry in manager.schedule.after("", 100)}
    for name, recipient in given:
        wanted = story.messages[name].replace(b"\r\n", b"\n")
        head = f"Delivered-To: {recipient}\n".encode()
        there = any(mail.endswith(wanted) and head in mail for mail in delivered)
        if not there and not (recipient.endswith("@unknown.local") and queued):
            found.append(f"250 was given for {name} to {recipient}, and it is gone")
    if list((after / "spool/bad").iterdir()):
        found.append("something was quarantined")
    return found


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Path]:
    """Where disks are made: in memory where there is a place for it."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="forkd-crash-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_power_cut_after_any_call_breaks_no_promise(scenario: Callable[[Story], None], disks: Path) -> None:
    """queue/FORMAT.md, "What is promised, and what is not"."""
    print(f"seed {SEED} (FORKD_SEED={SEED} repeats it)")
    assert broken_promises(scenario, disks, RecordingFs(disks / "disk")) == []


# --- does the test see anything? ----------------------------------------------------------------------


class NoFileSync(RecordingFs):
    """The commit and the Maildir forget the file's sync."""

    def sync(self, fd: int) -> None:
        pass


class NoSpoolDirSync(RecordingFs):
    """The commit forgets the directory's sync."""

    def sync_dir(self, fd: int) -> None:
        if not self._open[fd][1].startswith("spool/new"):
            super().sync_dir(fd)


class NoMaildirSync(RecordingFs):
    """Delivery forgets new/'s sync, and then removes the message from the queue."""

    def sync_dir(self, fd: int) -> None:
        if not self._open[fd][1].endswith("/new"):
            super().sync_dir(fd)


class NoMailboxSync(RecordingFs):
    """A new mailbox' own name is not synced."""

    def sync_dir(self, fd: int) -> None:
        if not self._open[fd][1].startswith("mail"):
            super().sync_dir(fd)


class SyncBeforeWrite(RecordingFs):
    """The sync comes too early: before the write."""

    def write(self, fd: int, parts: object) -> None:
        RecordingFs.sync(self, fd)
        super().write(fd, parts)  # type: ignore[arg-type]

    def sync(self, fd: int) -> None:
        pass


@pytest.mark.parametrize(
    "mutant",
    [NoFileSync, NoSpoolDirSync, NoMaildirSync, NoMailboxSync, SyncBeforeWrite],
    ids=lambda mutant: mutant.__name__,
)
def test_a_missing_sync_is_seen(mutant: type[RecordingFs], disks: Path) -> None:
    """A crash test that cannot fail proves nothing: take one sync out, and it must."""
    print(f"seed {SEED}")
    assert broken_promises(one_message, disks, mutant(disks / "disk"))


def test_files_that_come_round_too_early_are_seen(disks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """recycle.py: a name from free/ is safe only after a sync of new/SLOT that followed its sight."""
    from forkd.queue.recycle import Pool

    def look_now(self: Pool, path: str) -> int:
        self._safe = sorted(self._fs.names(self._folder))
        return take(self, path)

    take = Pool.take
    monkeypatch.setattr(Pool, "take", look_now)
    print(f"seed {SEED}")
    assert broken_promises(round_and_round, disks, RecordingFs(disks / "disk"))


def test_files_come_round_in_the_scenario(disks: Path) -> None:
    """The scenario is worth its name: a message was written into a file that had held another."""
    data = disks / "disk"
    data.mkdir()
    fs = RecordingFs(data)
    round_and_round(Story(fs, data))
    written: list[Call] = [call for call in fs.log if call.kind == "write" and call.path.startswith("spool/")]
    assert len({call.inode for call in written}) < len(written)
