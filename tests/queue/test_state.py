"""Outcomes that survive (queue/state.py) and leftovers (queue/recovery.py)."""

from __future__ import annotations

import errno
import itertools
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from forkd.fs import REAL
from forkd.queue import recovery, state, stored
from forkd.queue.envelope import Recipient
from forkd.queue.format import Damaged
from forkd.queue.ids import Process, boot
from forkd.queue.outcome import Outcome, bounded
from forkd.queue.recovery import Found, recover, scan
from forkd.queue.spool import Spool
from forkd.queue.state import Attempt
from tests.support.crash_fs import RecordingFs, looks, put_on_disk, states
from tests.support.failing_fs import FailingFs
from tests.support.spooling import MAIL, a_spool, an_envelope, queued

DELIVERED = Outcome(0, "delivered", "2.0.0", "ok")
DEFERRED = Outcome(1, "deferred", "4.0.0", "later")
FAILED = Outcome(1, "failed", "5.0.0", "no")


def some(count: int) -> tuple[Recipient, ...]:
    """So many recipients."""
    return tuple(Recipient(address=f"r{number}@test.local") for number in range(count))


def test_the_last_outcome_of_a_recipient_counts(tmp_path: Path) -> None:
    """FORMAT.md, "Outcomes"."""
    path = str(tmp_path / "ID")
    known = state.State()
    state.append(path, Attempt(at=1.0, next_try_at=9.0, outcomes=(DELIVERED, DEFERRED)), known)
    assert known.open(some(3)) == [1, 2]
    state.append(path, Attempt(at=2.0, outcomes=(FAILED,)), known)
    read = state.load(path)
    assert (read.attempts, read.next_try_at, read.open(some(2)), read.failed()) == (2, 0.0, [], [1])
    assert read.last == known.last


def test_no_state_file_means_nothing_was_tried(tmp_path: Path) -> None:
    """A new message."""
    assert state.load(str(tmp_path / "ID")).open(some(2)) == [0, 1]


def test_the_last_hold_counts_and_is_no_attempt(tmp_path: Path) -> None:
    """FORMAT.md, "Outcomes": held, released; what was tried before stays as it is."""
    path = str(tmp_path / "ID")
    free, quarantined = an_envelope(), an_envelope(hold="virus")
    known = state.State()
    assert (known.held(free), known.held(quarantined)) == ("", "virus")
    state.append(path, Attempt(at=1.0, next_try_at=9.0, outcomes=(DELIVERED, DEFERRED)), known)
    assert state.load(path).held(quarantined) == "virus"
    state.append(path, Attempt(at=2.0, hold="held by root"), known)
    assert state.load(path).held(free) == "held by root"
    state.append(path, Attempt(at=3.0, hold=""), known)
    read = state.load(path)
    assert (read.held(free), read.held(quarantined)) == ("", "")
    assert (read.attempts, read.next_try_at, read.open(some(2))) == (1, 9.0, [1])


def test_what_is_told_is_remembered_and_so_is_the_warning(tmp_path: Path) -> None:
    """FORMAT.md, "Outcomes": by the outcome or by a later line; the warning outlives its recipient."""
    path, known = str(tmp_path / "ID"), state.State()
    state.append(path, Attempt(at=1.0, outcomes=(FAILED, Outcome(2, "deferred", "4.0.0", "later"))), known)
    assert (known.last[1].told, known.warned) == (False, False)
    state.append(path, Attempt(at=2.0, told=(1, 2, 7)), known)
    assert (known.last[1].told, known.warned) == (True, True)
    state.append(path, Attempt(at=3.0, outcomes=(Outcome(2, "delivered", "2.0.0", "ok"),)), known)
    read = state.load(path)
    assert (read.last, read.warned) == (known.last, True)
    assert not read.last[2].told


def test_lines_of_an_older_forkd_are_read(tmp_path: Path) -> None:
    """Four elements an outcome: nobody was told."""
    body = b'{"at":5.5,"next_try_at":9.0,"outcomes":[[0,"failed","5.1.1","no"]]}'
    (tmp_path / "ID.state").write_bytes(b"%08x %b\n" % (zlib.crc32(body), body))
    read = state.load(str(tmp_path / "ID"))
    assert read.last == {0: Outcome(0, "failed", "5.1.1", "no")}
    assert not read.last[0].told


def test_an_alias_itself_is_not_delivered_to() -> None:
    """Its members are recipients of their own; it is there to be told of."""
    alias = Recipient(address="team@test.local", notify=("SUCCESS",), fate="expanded")
    assert state.State().open((*some(2), alias)) == [0, 1]


def test_a_line_keeps_no_more_of_a_text_than_can_be_read_again(tmp_path: Path) -> None:
    """A next hop writes as long as it likes: of one recipient some lines are kept, of each of 10,000 a few
    words; what is short already stays as it is."""
    long = Outcome(0, "deferred", "4.0.0", '"' * 5000, host="h" * 5000, reply="ü" * 5000)
    (alone,) = bounded([long])
    assert (len(alone.text), len(alone.host), len(alone.reply.encode())) == (300, 300, 300)
    for count in (1, 2000, 10_000, 30_000):
        line = state.encode(Attempt(at=1.0, outcomes=tuple(bounded([long] * count))))
        assert len(line) * (state.SHORTEN_TIMES + 1) < state.MAX_STATE_BYTES
    assert bounded([DEFERRED]) == [DEFERRED]
    assert bounded([DEFERRED])[0] is DEFERRED


def test_a_torn_line_is_passed_over_and_does_not_harm_the_next(tmp_path: Path) -> None:
    """However a power cut tears the last line, the others count, and one can be appended."""
    path = str(tmp_path / "ID")
    first = state.encode(Attempt(at=1.0, next_try_at=9.0, outcomes=(DEFERRED,)))
    second = state.encode(Attempt(at=2.0, outcomes=(FAILED,)))
    # Without its LF alone the line is whole, and counts.
    for length in range(len(second) - 1):
        for torn in (second[:length], bytes(length)):
            (tmp_path / "ID.state").write_bytes(first + torn)
            known = state.load(path)
            assert known.attempts == 1
            state.append(path, Attempt(at=3.0, outcomes=(DELIVERED,)), known)
            read = state.load(path)
            assert read.last[0] == DELIVERED
            assert read.last[1] == DEFERRED


def said(read: state.State) -> tuple[object, ...]:
    """All that counts of it."""
    recipients = dict(read.last), dict(read.tries), dict(read.ended)
    return *recipients, read.attempts, read.next_try_at, read.warned, read.hold


def test_ten_thousand_who_are_deferred_for_days_fill_no_disk(tmp_path: Path) -> None:
    """The file stays a few times as long as what it says; who has it has it, whatever came after."""
    path, known = str(tmp_path / "ID"), state.State()
    state.append(
        path, Attempt(at=0.5, outcomes=(DELIVERED, Outcome(1, "failed", "5.0.0", "no", True))), known
    )
    deferred = [
        Outcome(number, "deferred", "4.2.0", f"greylisted {number}", host="mx.example", reply="450 no")
        for number in range(2, 10_002)
    ]
    sizes = []
    for number in range(60):
        line = Attempt(at=float(number), next_try_at=number + 1.0, outcomes=tuple(bounded(deferred)))
        state.append(path, line, known, durable=False)
        sizes.append((tmp_path / "ID.state").stat().st_size)
    assert max(sizes) < 5 * len(state.encode(line))
    read = state.load(path)
    assert said(read) == said(known)
    assert (read.last[0], read.last[1].told, read.tries[2], read.attempts) == (DELIVERED, True, 60, 61)
    assert read.open(some(10_003)) == [*range(2, 10_003)]
    assert [path.name for path in tmp_path.iterdir()] == ["ID.state"]
    assert len(state.history(path)) < 10


def lines_of_all_kinds(count: int) -> list[Attempt]:
    """A life: attempts, notes, a warning, holds and releases."""
    lines = []
    for number in range(count):
        outcomes = tuple(
            Outcome(index, "deferred" if index + number < count else "delivered", "4.0.0", f"try {number}")
            for index in range(number % 4 + 1)
        )
        lines.append(Attempt(at=float(number), next_try_at=number + 9.0, outcomes=outcomes))
        lines.append(Attempt(at=number + 0.5, outcomes=outcomes[:1], untried=True))
        if number % 3 == 1:
            lines.append(Attempt(at=number + 0.6, told=(1,), untried=True))
        if number % 3 == 2:
            lines.append(Attempt(at=number + 0.7, hold="held by root" if number % 2 else ""))
    return lines


def test_a_file_that_is_written_anew_says_the_same(tmp_path: Path) -> None:
    """After each line, read again: as if nothing had been taken together."""
    path, known, whole = str(tmp_path / "ID"), state.State(), state.State()
    shrunk = 0
    for line in lines_of_all_kinds(12):
        before = known.size
        state.append(path, line, known, durable=False, shorten_bytes=1000)
        whole.add(line)
        shrunk += known.size < before
        read = state.load(path)
        assert said(read) == said(known) == said(whole)
        assert (read.size, read.first_bytes) == (known.size, known.first_bytes)
        assert read.size == (tmp_path / "ID.state").stat().st_size
        known = read if shrunk % 2 else known
    assert shrunk > 2


def test_a_power_cut_while_it_is_written_anew_loses_no_line(tmp_path: Path) -> None:
    """Of each append that returned all is there, in the old file or in the new one; what is left beside it
    is taken away."""
    live, lines = tmp_path / "live", lines_of_all_kinds(3)
    live.mkdir()
    fs = RecordingFs(live)
    Spool.prepare(live, ["w0"], fs=fs)
    queue_id = queued(Spool(live, "w0", fs=fs))
    path, known = f"{live}/new/w0/{queue_id}", state.State()
    wanted: list[tuple[int, tuple[object, ...]]] = [(len(fs.log), said(known))]
    for line in lines:
        state.append(path, line, known, fs=fs, shorten_bytes=300)
        wanted.append((len(fs.log), said(state.load(path))))
    assert sum(call.kind == "name" and call.path.endswith(".state") for call in fs.log) > 1
    seen: set[object] = set()
    for (begun, old), (ended, new) in itertools.pairwise(wanted):
        for cut in range(begun, ended + 1):
            for number, disk in enumerate(states(fs, cut, seed=1)):
                if (moment := (looks(disk), begun, cut == ended)) in seen:
                    continue
                seen.add(moment)
                after = tmp_path / f"{cut}-{number}"
                put_on_disk(disk, after)
                assert [found.id for found in recover(str(after))] == [queue_id]
                read = said(state.load(f"{after}/new/w0/{queue_id}"))
                assert read in ((old, new) if cut < ended else (new,)), (cut, fs.log[cut - 1])
                assert not [*after.glob("new/w0/*.new")]
                assert not any((after / "bad").iterdir())
                shutil.rmtree(after)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_a_disk_that_refuses_while_it_is_written_anew_loses_no_line(tmp_path: Path, error: int) -> None:
    """Whichever call fails: what was appended before is there, and the next append succeeds."""
    at = 0
    while True:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        path, known, fs = f"{folder}/ID", state.State(), FailingFs(error, at=at)
        there = state.State()
        for line in lines_of_all_kinds(4):
            try:
                state.append(path, line, known, fs=fs, shorten_bytes=300)
            except OSError:
                # It may be there or not: as qmgr does, say it again.
                known = state.load(path)
                state.append(path, line, known, fs=fs, shorten_bytes=300)
            there.add(line)
            read = state.load(path)
            assert (read.last, read.hold, read.warned) == (there.last, there.hold, there.warned), fs.failed
        if not fs.failed:
            break
    assert at > 20


def test_a_file_that_is_longer_than_ours_is_not_read_in_part(tmp_path: Path) -> None:
    """Half of the outcomes would mean a second copy for the others."""
    with (tmp_path / "ID.state").open("wb") as file:
        file.write(state.encode(Attempt(at=1.0, outcomes=(DELIVERED,))))
        file.truncate(state.MAX_STATE_BYTES + 1)
    for read in (state.load, state.history):
        with pytest.raises(OSError, match="large"):
            read(str(tmp_path / "ID"))


def test_recovery_table(tmp_path: Path) -> None:
    """Every row of FORMAT.md, "Leftovers", that concerns names."""
    spool = a_spool(tmp_path)
    whole, tried = queued(spool), queued(spool)
    (tmp_path / f"new/w0/{tried}.state").write_bytes(b"")
    gone = queued(spool)
    (tmp_path / f"new/w0/{gone}").rename(tmp_path / f"new/w0/{gone}.state")
    child = subprocess.Popen(["true"])
    child.wait()
    abandoned = [f"{whole}.{child.pid}.1.{boot()}", f"{tried}.1.1.00000000"]
    for name in abandoned:
        (tmp_path / "tmp/w0" / name).write_bytes(b"part")
    live = f"{gone}.{Process.mark()}"
    (tmp_path / "tmp/w0" / live).write_bytes(b"coming in")
    (tmp_path / "tmp/w0/what").write_bytes(b"strange")
    (tmp_path / "new/w0/what is this").write_bytes(b"strange")
    (tmp_path / f"new/w0/{tried}.state.new").write_bytes(b"half")
    (tmp_path / f"free/w0/{whole}").write_bytes(b"")
    found = list(recover(str(tmp_path)))
    assert found == [Found("w0", whole, False), Found("w0", tried, True)]
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        f"new/w0/{whole}", f"new/w0/{tried}", f"new/w0/{tried}.state", f"tmp/w0/{live}",
        "bad/tmp-w0-what", "bad/new-w0-what is this",
    }  # fmt: skip


def test_a_second_name_in_free_costs_the_message_nothing(tmp_path: Path) -> None:
    """recycle.py: after a power cut free/ may name a committed message; recovery must not write to it."""
    spool = a_spool(tmp_path)
    queue_id = queued(spool)
    (tmp_path / f"free/w0/{queue_id}").hardlink_to(tmp_path / f"new/w0/{queue_id}")
    list(recover(str(tmp_path)))
    assert not list((tmp_path / "free/w0").iterdir())
    assert b"".join(stored.load(f"{spool.new}/{queue_id}", queue_id).chunks()) == MAIL


def test_slots_that_are_no_longer_in_use_are_recovered(tmp_path: Path) -> None:
    """Fewer workers than before: their mail is delivered like any other."""
    one, other = a_spool(tmp_path, "w0"), a_spool(tmp_path, "w7")
    ids = {queued(one), queued(other)}
    assert {found.id for found in recover(str(tmp_path))} == ids
    assert {found.id for found in scan(str(tmp_path)) if found} == ids


def test_quarantine_keeps_message_and_state(tmp_path: Path) -> None:
    """Nothing that could be mail is ever deleted."""
    spool = a_spool(tmp_path)
    queue_id = queued(spool)
    path = f"{spool.new}/{queue_id}"
    Path(path + ".state").write_bytes(b"x")
    recovery.quarantine(str(tmp_path), path, queue_id, "why")
    assert sorted(p.name for p in (tmp_path / "bad").iterdir()) == [queue_id, queue_id + ".state"]


@pytest.mark.parametrize("size", [200, 300_000])
def test_a_damaged_message_is_never_delivered_whole(tmp_path: Path, size: int) -> None:
    """A small one is seen when it is loaded, a large one before its stream ends."""
    spool = a_spool(tmp_path)
    queue_id = queued(spool, message=b"x" * size)
    path = Path(f"{spool.new}/{queue_id}")
    data = bytearray(path.read_bytes())
    data[size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        list(stored.load(str(path), queue_id).chunks())


def test_a_link_or_fifo_in_the_spool_is_not_followed(tmp_path: Path) -> None:
    """Workers write names in new/: qmgr must not be led elsewhere, or made to wait."""
    import os

    spool = a_spool(tmp_path)
    queue_id = queued(spool)
    link, fifo = tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(f"{spool.new}/{queue_id}")
    os.mkfifo(fifo)
    for path in (link, fifo):
        with pytest.raises(OSError, match=r"symbolic links|regular file|Invalid"):
            stored.load(str(path), queue_id)
    with pytest.raises(OSError, match="symbolic links"):
        REAL.empty(str(link))
