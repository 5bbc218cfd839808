"""Outcomes that survive (queue/state.py) and leftovers (queue/recovery.py)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from forkd.fs import REAL
from forkd.queue import recovery, state, stored
from forkd.queue.format import Damaged
from forkd.queue.ids import Process, boot
from forkd.queue.recovery import Found, recover, scan
from forkd.queue.state import Attempt, Outcome
from tests.support.spooling import MAIL, a_spool, an_envelope, queued

DELIVERED = Outcome(0, "delivered", "2.0.0", "ok")
DEFERRED = Outcome(1, "deferred", "4.0.0", "later")
FAILED = Outcome(1, "failed", "5.0.0", "no")


def test_the_last_outcome_of_a_recipient_counts(tmp_path: Path) -> None:
    """FORMAT.md, "Outcomes"."""
    path = str(tmp_path / "ID")
    known = state.State()
    state.append(path, Attempt(at=1.0, next_try_at=9.0, outcomes=(DELIVERED, DEFERRED)), known)
    assert known.open(3) == [1, 2]
    state.append(path, Attempt(at=2.0, outcomes=(FAILED,)), known)
    read = state.load(path)
    assert (read.attempts, read.next_try_at, read.open(2), read.failed()) == (2, 0.0, [], [1])
    assert read.last == known.last


def test_no_state_file_means_nothing_was_tried(tmp_path: Path) -> None:
    """A new message."""
    assert state.load(str(tmp_path / "ID")).open(2) == [0, 1]


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
    assert (read.attempts, read.next_try_at, read.open(2)) == (1, 9.0, [1])


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
