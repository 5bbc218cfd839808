"""Promise of the queue: 250 was given => the message is there, at least once and whole; not given => absent,
or whole and deliverable. Checked for a power cut after every single file call, and for two of them.

Each scenario runs once on a RecordingFs. For every prefix of its log and every disk that this prefix may
leave, forkd's own recovery and delivery run on that disk (real files, real code), and the Maildir, the
queue and bad/ are looked at.

Two cuts, or a kill and a cut, are too many to try all: chosen at random, the seed printed. The second one
hits a life that began with the recovery from the first.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkd.queue.spool import BUFFER_BYTES, QMGR_SLOT
from tests.support.crash_fs import (
    Call,
    Killed,
    RecordingFs,
    dying_threads,
    looks,
    put_on_disk,
    some_state,
    states,
)
from tests.support.crash_story import LOOP, Promised, Story, problems
from tests.support.params import quick_first

MEMORY = Path("/dev/shm")
"""Thousands of small disks are made and thrown away: in memory that takes a tenth of the time."""

SEED = int(os.environ.get("FORKD_SEED", "0")) or int(time.time())


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
    """One recipient delivered, one deferred: `.state`, which keeps the first from a second copy."""
    story.receive("two", to=("a@test.local", "b@unknown.local"))
    story.deliver()
    story.recorded(story.called("two"), "a@test.local")
    story.deliver(flush=True)


def round_and_round(story: Story) -> None:
    """Files come round: emptied, kept in free/, taken for the next messages."""
    for name in ("r1", "r2", "r3", "r4"):
        story.receive(name)
        if name != "r3":
            story.deliver_without_sweep()
        story.look_for_free_files()


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
    story.release(manager, story.called("kept"), queue_id, "a@test.local")
    story.deliver()


def held_by_an_admin(story: Story) -> None:
    """A message that waits gets a line more: nobody delivers it from then on."""
    (queue_id,) = story.receive("admin", to=("b@unknown.local",))
    story.hold(story.deliver(), story.called("admin"), queue_id)
    manager = story.deliver()
    story.release(manager, story.called("admin"), queue_id, "b@unknown.local")
    story.hold(manager, story.called("admin"), queue_id)


def removed_by_an_admin(story: Story) -> None:
    """One that was never tried, and one with outcomes; a third one stays."""
    one, two, _ = story.receive("gone1", "gone2", "stays", to=("b@unknown.local",))
    story.remove(story.deliver(), story.called("gone1"), one)
    story.remove(story.deliver(), story.called("gone2"), two)


def reported(story: Story) -> None:
    """One recipient fails for good: its sender is told by a message of our own, and only then it is gone."""
    story.receive("half", to=("a@test.local", LOOP))
    story.deliver()


def reported_while_others_wait(story: Story) -> None:
    """Told once, which `.state` remembers while the message stays for another recipient."""
    story.receive("told", to=(LOOP, "b@unknown.local"))
    story.deliver()
    story.recorded(story.called("told"), LOOP)
    story.deliver(flush=True)


SCENARIOS: list[Callable[[Story], None]] = [
    one_message, partly_delivered, quarantined_and_released, reported,
    batch, large_message, round_and_round, refused_and_next, body_replaced, held_by_an_admin,
    removed_by_an_admin, reported_while_others_wait,
]  # fmt: skip


# --- one cut ------------------------------------------------------------------------------------------


def broken_promises(scenario: Callable[[Story], None], tmp_path: Path, fs: RecordingFs) -> list[str]:
    """Play the scenario, cut the power after every call; everything that came out wrong, in words."""
    data = tmp_path / "disk"
    data.mkdir()
    story = Story(fs, data)
    prepared = len(fs.log)
    scenario(story)
    story.end()
    broken: list[str] = []
    tried: set[object] = set()
    for cut in range(prepared, len(fs.log) + 1):
        promised = Promised.by(fs.log[:cut])
        for number, disk in enumerate(states(fs, cut, SEED)):
            # Two of three disks were met before, with the same promised: the same must come of them.
            moment = (looks(disk), promised.key())
            if moment in tried:
                continue
            tried.add(moment)
            after = tmp_path / f"after-{cut}-{number}"
            put_on_disk(disk, after)
            broken += [
                f"cut after {_named(fs, cut)}, disk {number}: {p}"
                for p in problems(story.messages, after, promised)
            ]
            shutil.rmtree(after)
            if len(broken) > 3:
                return broken
    return broken


def _named(fs: RecordingFs, cut: int) -> str:
    last = fs.log[cut - 1]
    return f"call {cut} ({last.kind} {last.path})"


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Path]:
    """Where disks are made: in memory where there is a place for it."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="forkd-crash-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.mark.parametrize("scenario", quick_first(SCENARIOS, 4), ids=lambda scenario: scenario.__name__)
def test_a_power_cut_after_any_call_breaks_no_promise(scenario: Callable[[Story], None], disks: Path) -> None:
    """queue/FORMAT.md, "What is promised, and what is not"."""
    print(f"seed {SEED} (FORKD_SEED={SEED} repeats it)")
    assert broken_promises(scenario, disks, RecordingFs(disks / "disk")) == []


# --- two of them --------------------------------------------------------------------------------------

PAIRS = 60
"""Of each scenario, in everyday's tests; times ten where there is time."""


def another_life(
    fs: RecordingFs, data: Path, messages: dict[str, bytes], life: str, rng: random.Random
) -> None:
    """What follows a cut or a kill: qmgr's recovery, an admin who holds what waits, then anything."""
    story = Story(fs, data, life=life, messages=messages)
    waiting = [(n, i) for (n, to), i in Promised.by(fs.log).given.items() if to.endswith("@unknown.local")]
    try:
        manager = story.deliver(flush=rng.random() < 0.5)
        for name, queue_id in waiting:
            if rng.random() < 0.5:
                story.hold(manager, name, queue_id)
        rng.choice(SCENARIOS)(story)
    finally:
        story.end()


def after_two_cuts(
    scenario: Callable[[Story], None], folder: Path, pairs: int, rng: random.Random
) -> list[str]:
    """The power fails in the scenario, and again in what follows."""
    first = RecordingFs(folder / "disk")
    (folder / "disk").mkdir()
    story = Story(first, folder / "disk")
    prepared = len(first.log)
    scenario(story)
    story.end()
    for pair in range(pairs):
        cut = rng.randint(prepared, len(first.log))
        middle, after = folder / f"middle-{pair}", folder / f"after-{pair}"
        second = RecordingFs(middle, disk=put_on_disk(some_state(first, cut, rng), middle))
        for note in Promised.by(first.log[:cut]).notes():
            second.mark(note)
        begun, messages = len(second.log), dict(story.messages)
        another_life(second, middle, messages, f"-{pair}", rng)
        # Half of them within the recovery, where a scenario's end would never come.
        last = len(second.log) if rng.random() < 0.5 else min(len(second.log), begun + 40)
        again = rng.randint(begun, last)
        put_on_disk(some_state(second, again, rng), after)
        broken = problems(messages, after, Promised.by(second.log[:again]))
        if broken:
            return [
                f"pair {pair}: cut after {_named(first, cut)}, then after {_named(second, again)}: {p}"
                for p in broken
            ]
        shutil.rmtree(middle)
        shutil.rmtree(after)
    return []


def after_a_kill_and_a_cut(
    scenario: Callable[[Story], None], folder: Path, pairs: int, rng: random.Random
) -> list[str]:
    """The process is killed, and the power fails in the next one's life: nothing was synced between."""
    for pair in range(pairs):
        data, after = folder / f"disk-{pair}", folder / f"after-{pair}"
        data.mkdir()
        fs = RecordingFs(data)
        story = Story(fs, data)
        begun = len(fs.log)
        # A scenario has 20 to 200 calls; beyond its end nobody is killed.
        fs.kill_after = begun + rng.randint(0, rng.choice((20, 60, 200)))
        with contextlib.suppress(Killed):
            scenario(story)
        story.end()
        killed_at = len(fs.log)
        another_life(fs, data, story.messages, f"-{pair}", rng)
        cut = rng.randint(killed_at, len(fs.log))
        put_on_disk(some_state(fs, cut, rng), after)
        broken = problems(story.messages, after, Promised.by(fs.log[:cut]))
        if broken:
            return [
                f"pair {pair}: killed after {_named(fs, killed_at)}, cut after {_named(fs, cut)}: {p}"
                for p in broken
            ]
        shutil.rmtree(data)
        shutil.rmtree(after)
    return []


@pytest.mark.parametrize("pairs", [PAIRS, pytest.param(10 * PAIRS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", [after_two_cuts, after_a_kill_and_a_cut], ids=lambda what: what.__name__)
@pytest.mark.parametrize("scenario", quick_first(SCENARIOS, 4), ids=lambda scenario: scenario.__name__)
def test_a_second_cut_breaks_no_promise_either(
    scenario: Callable[[Story], None], what: Callable[..., list[str]], pairs: int, disks: Path
) -> None:
    """Recovery can be cut off too; what the life before it had not synced is then still not on disk."""
    print(f"seed {SEED} (FORKD_SEED={SEED} repeats it)")
    rng = random.Random(f"{SEED} {scenario.__name__} {what.__name__}")
    with dying_threads():
        assert what(scenario, disks, pairs, rng) == []


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


class NoReportName(RecordingFs):
    """A report is written, its name in the spool not synced, and the message it tells of removed."""

    def sync_dir(self, fd: int) -> None:
        if self._open[fd][1] != f"spool/new/{QMGR_SLOT}":
            super().sync_dir(fd)


class NoRemovalSync(RecordingFs):
    """An admin is told that it is removed before that is on disk."""

    def sync_dir(self, fd: int) -> None:
        if not (self.log and self.log[-1].kind == "unname" and self.log[-1].path.startswith("spool/new/")):
            super().sync_dir(fd)


@pytest.mark.parametrize(
    ("mutant", "scenario"),
    [(NoReportName, reported), (NoRemovalSync, removed_by_an_admin)],
    ids=["report", "removal"],
)
def test_what_was_told_too_early_is_seen(
    mutant: type[RecordingFs], scenario: Callable[[Story], None], disks: Path
) -> None:
    """To a sender, and to an admin."""
    print(f"seed {SEED}")
    assert broken_promises(scenario, disks, mutant(disks / "disk"))


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
    story = Story(fs, data)
    round_and_round(story)
    story.end()
    written: list[Call] = [call for call in fs.log if call.kind == "write" and call.path.startswith("spool/")]
    assert len({call.inode for call in written}) < len(written)
