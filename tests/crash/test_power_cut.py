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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from forkd.config import schema
from forkd.config.recipients import Accepted
from forkd.fs import Fs
from forkd.qmgr.manager import Manager
from forkd.qmgr.schedule import Standing
from forkd.queue.commit import commit
from forkd.queue.spool import BUFFER_BYTES, Spool
from forkd.smtp.address import Mailbox
from forkd.smtp.events import Mail
from forkd.worker.transaction import Destination, Transaction
from tests.support.crash_fs import Call, RecordingFs, looks, put_on_disk, states
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

    def receive_edited(self, name: str, *, hold: str = "", to: str = "a@test.local") -> str:
        """As receive(), of a message whose body a plugin replaced while it was in the spool; its id."""
        header, text = f"Subject: {name}\r\n\r\n".encode(), LARGE if name.startswith("large") else body(name)
        transaction = Transaction(Mail(None))
        transaction.begin(self.spool, 0.0)
        transaction.write(header + b"what the client wrote\r\n" * (5000 if name.startswith("large") else 1))
        for thrown_away in (True, False):
            sink = transaction.new_body(limit=10_000_000)
            for at in range(0, len(text), 50_000):
                sink.write(text[at : at + 50_000])
            if not thrown_away:
                sink.finish()
        transaction.hold = hold
        transaction.recipients.append(Destination(Mailbox(*to.split("@")), Accepted("local", "a")))
        envelope = transaction.envelope(received="", edits=(), received_at=time.time(), session=name)
        assert transaction.file is not None
        self.messages[name] = header + text
        (result,) = commit(self.spool, [(transaction.file, envelope)])
        assert isinstance(result, str), result
        if not hold:
            self.fs.mark(f"250 {name} {to}")
        else:
            self.fs.mark(f"held {name} {result}")
        return result

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


def body_replaced(story: Story) -> None:
    """A plugin put another body in, small and large; two of them tried, one gave up."""
    story.receive_edited("edited")
    story.receive_edited("largeedited")
    story.deliver()


def quarantined_and_released(story: Story) -> None:
    """Held by a plugin from its commit on, held through restarts, then released by an admin."""
    queue_id = story.receive_edited("kept", hold="looks bad")
    manager = story.deliver()
    assert manager.acts.release(queue_id, "root", time.time()) == ""
    story.fs.mark("released kept")
    story.fs.mark("250 kept a@test.local")
    story.deliver()


def held_by_an_admin(story: Story) -> None:
    """A message that waits gets a line more: nobody delivers it from then on."""
    story.receive("admin", to=("b@unknown.local",))
    manager = story.deliver()
    (entry,) = manager.schedule.after("", 10)
    assert manager.acts.hold(entry.id, "root") == ""
    story.fs.mark(f"held admin {entry.id}")
    manager = story.deliver()
    assert manager.acts.release(entry.id, "root", time.time()) == ""
    story.fs.mark("released admin")
    assert manager.acts.hold(entry.id, "root") == ""
    story.fs.mark(f"held admin {entry.id}")


SCENARIOS: list[Callable[[Story], None]] = [
    one_message, batch, large_message, partly_delivered, round_and_round, refused_and_next,
    body_replaced, quarantined_and_released, held_by_an_admin,
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
    tried: set[object] = set()
    for cut in range(prepared, len(fs.log) + 1):
        given = [call.text.split(" ")[1:] for call in fs.log[:cut] if call.text.startswith("250 ")]
        held = held_at(fs.log[:cut])
        for number, disk in enumerate(states(fs.log, cut, SEED)):
            # Two of three disks were met before, with the same promised: the same must come of them.
            moment = (looks(disk), len(given), tuple(held))
            if moment in tried:
                continue
            tried.add(moment)
            after = tmp_path / f"after-{cut}-{number}"
            put_on_disk(disk, after)
            for problem in problems(story, after, given) + [
                p for name in held for p in set_free(story, after, name)
            ]:
                last = fs.log[cut - 1]
                broken.append(f"cut after call {cut} ({last.kind} {last.path}), disk {number}: {problem}")
            shutil.rmtree(after)
            if len(broken) > 3:
                return broken
    return broken


def held_at(log: Sequence[Call]) -> list[tuple[str, str]]:
    """Name and id of each message that was said to be held by then, and not yet released or being so."""
    held: dict[str, str] = {}
    for call in log:
        if call.text.startswith("held "):
            _, name, queue_id = call.text.split(" ")
            held[name] = queue_id
        elif call.path.endswith(".state"):
            # From the first call for a line on, the next state may stand there.
            for name in [n for n, queue_id in held.items() if queue_id in call.path]:
                del held[name]
    return list(held.items())


def set_free(story: Story, after: Path, held: tuple[str, str]) -> list[str]:
    """What is held must still be there and be held, after qmgr has run on that disk."""
    name, queue_id = held
    manager = run_qmgr(config(after), NoWaiting())
    entry = manager.schedule.get(queue_id)
    if entry is None or entry.standing is not Standing.HELD:
        return [f"{name} was held, and is {entry and entry.standing}"]
    return []


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


class NoStateSync(RecordingFs):
    """A line in `.state` is not synced: what an admin was told may be forgotten."""

    def sync(self, fd: int) -> None:
        if not self._open[fd][1].endswith(".state"):
            super().sync(fd)


class NoStateName(RecordingFs):
    """The line is, but the name of a new `.state` is not."""

    def sync_dir(self, fd: int) -> None:
        if not (self.log and self.log[-1].kind == "sync" and self.log[-1].path.endswith(".state")):
            super().sync_dir(fd)


@pytest.mark.parametrize("mutant", [NoStateSync, NoStateName], ids=lambda mutant: mutant.__name__)
def test_a_forgotten_hold_is_seen(mutant: type[RecordingFs], disks: Path) -> None:
    """Of a held message, and of one that is released: its release is what makes it 250's again."""
    print(f"seed {SEED}")
    assert broken_promises(held_by_an_admin, disks, mutant(disks / "disk"))


@pytest.mark.parametrize(
    "mutant", [NoFileSync, NoSpoolDirSync, SyncBeforeWrite], ids=lambda mutant: mutant.__name__
)
def test_a_body_that_is_not_on_disk_is_seen(mutant: type[RecordingFs], disks: Path) -> None:
    """The replaced body has no promise of its own: it stands in the message's file, under the same syncs."""
    print(f"seed {SEED}")
    assert broken_promises(body_replaced, disks, mutant(disks / "disk"))


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

    def look_now(self: Pool) -> tuple[int, str]:
        self._safe = sorted(self._fs.names(self._folder))
        return take(self)

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
