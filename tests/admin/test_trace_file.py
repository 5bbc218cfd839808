"""What happened is kept within bounds, found again, and what is missing is known (admin/trace_file.py)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from forkd.admin.trace_file import TraceFile, Unusable
from forkd.rpc.messages_trace import MOST_IDS, Story, Traces

PID = 4711
T0 = 1_800_000_000.0


def key(n: int) -> str:
    return f"HOFUBH6H4V{n:06d}"


def story(name: str, *events: tuple[str, dict], at: float = T0, ids: tuple[str, ...] = ()) -> Story:
    told = [(at, event, fields) for event, fields in events]
    begins = any(event == "connected" for event, _ in events)
    return Story(name, ids, at, begins, msgspec.Raw(msgspec.msgpack.encode(told)))


def record(*stories: Story, before: int = 0, count: int = 0, **more) -> Traces:
    count = count or sum(len(msgspec.msgpack.decode(each.events)) for each in stories)
    return Traces(writer="worker.0", since=T0 - 1, before=before, count=count, stories=stories, **more)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.db"


def opened(path: Path, *, keep_s: float = 1e6, sessions: int = 1000, max_bytes: int = 1 << 30) -> TraceFile:
    file = TraceFile(path, keep_s=keep_s, sessions=sessions, max_bytes=max_bytes)
    file.open()
    return file


def count(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return int(database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def names(file: TraceFile, id_: str) -> list[str]:
    return [event["event"] for event in file.find(id_, since=0, now=T0)["events"]]


def test_a_session_is_found_by_its_id_and_by_its_messages(path):
    """The whole story either way, deliveries and what an admin did with it included, in order."""
    file = opened(path)
    told = story(key(1), ("connected", {}), ("message", {"id": key(2)}), ids=(key(2),))
    file.add(PID, record(told), T0)
    later = story(key(1), ("delivery", {"id": key(2)}), at=T0 + 5)
    held = story(key(2), ("queue", {"act": "held"}), at=T0 + 3)
    file.add(PID + 1, record(later, held), T0 + 5)
    file.commit()
    whole = ["connected", "message", "queue", "delivery"]
    assert names(file, key(1)) == whole
    assert names(file, key(2)) == whole
    assert file.find(key(2), since=0, now=T0)["sessions"] == [key(1)]
    assert names(file, key(3)) == []


def test_what_did_not_arrive_is_a_gap(path):
    """What a process dropped, and what a killed admin had read and not written."""
    file = opened(path)
    file.add(PID, record(story(key(1), ("connected", {}))), T0)
    file.commit()
    file.add(PID, record(story(key(2), ("connected", {})), before=1), T0 + 1)
    file.drop()  # killed: the second record is gone
    file = opened(path)
    file.add(PID, record(story(key(3), ("connected", {})), before=2, dropped=3), T0 + 2)
    file.commit()
    [gap] = file.find(key(3), since=T0, now=T0)["gaps"]
    assert gap == {"after": T0, "before": T0 + 2, "writer": "worker.0", "pid": PID, "events": 4}
    assert file.lost == 4


def test_a_record_that_comes_in_order_is_no_gap(path):
    """Also from a process that admin has not seen before, and after an empty one."""
    file = opened(path)
    for before in (0, 1, 2):
        file.add(PID, record(story(key(before), ("connected", {})), before=before), T0)
    file.add(PID, record(before=3), T0)
    file.add(PID, record(before=3, ended=True), T0)
    file.commit()
    found = file.find(key(1), since=0, now=T0)
    assert (found["gaps"], found["writers"][0]["ended"]) == ([], True)


def test_two_admins_at_once_miss_nothing(path):
    """At a reload the old one still writes what it has read while the new one begins."""
    old, new = opened(path), opened(path)
    for n in range(6):
        file = (old, new)[n % 2]
        file.add(PID, record(story(key(n), ("connected", {})), before=n), T0 + n)
        file.commit()
    assert (old.lost, new.lost) == (0, 0)
    assert new.find(key(5), since=T0, now=T0)["gaps"] == []


def test_the_oldest_sessions_go_when_there_are_too_many(path):
    """trace.sessions; those that come after stay."""
    file = opened(path, sessions=10)
    for n in range(50):
        file.add(PID, record(story(key(n), ("connected", {})), before=n), T0 + n)
    while file.prune(T0 + 50):
        pass
    file.commit()
    assert file.sessions == 10
    assert names(file, key(39)) == []
    assert names(file, key(40)) == ["connected"]
    file.close()
    assert opened(path).sessions == 10


def test_what_is_too_old_goes(path):
    """trace.keep, links and writers with it."""
    file = opened(path, keep_s=100)
    for n, at in enumerate((T0, T0 + 90, T0 + 150)):
        told = story(key(n), ("connected", {}), at=at, ids=(key(n + 10),))
        file.add(PID + n, record(told), at)
    assert not file.prune(T0 + 155)
    file.commit()
    assert [names(file, key(n)) for n in range(3)] == [[], ["connected"], ["connected"]]
    file.prune(T0 + 1000)
    file.commit()
    assert [count(path, table) for table in ("piece", "link", "gap", "writer")] == [0, 0, 0, 0]


def test_the_file_does_not_grow_beyond_its_bound(path):
    """trace.max_size: clients that talk for long fill no disk."""
    most = 1 << 20
    file = opened(path, max_bytes=most)
    for n in range(400):
        told = story(key(n), ("connected", {}), ("refused", {"said": "x" * 20_000}))
        file.add(PID, record(told, before=2 * n), T0 + n)
        file.prune(T0 + n)
        file.commit()
    assert path.stat().st_size < 2 * most
    assert names(file, key(399)) == ["connected", "refused"]
    assert 10 < file.sessions < 100


def test_ids_that_are_told_of_fill_no_disk_either(path):
    """Whatever takes the room goes for it, in the order in which it came; later stories are kept."""
    most = 1 << 20
    file = opened(path, max_bytes=most)
    for n in range(60):
        told = story(key(n), ("connected", {}), ids=tuple(key(1000 * n + each) for each in range(MOST_IDS)))
        file.add(PID, record(told, before=n), T0 + n)
        file.prune(T0 + n)
        file.commit()
    while file.prune(T0 + 60):
        pass
    file.commit()
    assert path.stat().st_size < 2 * most
    assert count(path, "link") < 40_000
    assert names(file, key(59)) == ["connected"]
    assert names(file, key(59_999)) == ["connected"]
    assert 5 < file.sessions < 40


def test_a_step_removes_more_than_came(path):
    """Who tells without end does not outrun the removal."""
    most = 1 << 20
    file = opened(path, max_bytes=most)
    for n in range(20):
        stories = [story(key(n), ids=tuple(key(each) for each in range(MOST_IDS))) for _ in range(5)]
        file.add(PID, record(*stories, count=1, before=n), T0 + n)
        file.prune(T0 + n)
        file.commit()
    assert path.stat().st_size < 3 * most


def test_one_process_is_one_writer_whatever_it_calls_itself(path):
    """By the pid that the kernel names: rows and memory are not the sender's to make."""
    file = opened(path)
    for n in range(500):
        file.add(PID, Traces(f"worker.{n}", T0 + n, 0, 0, dropped=1, ended=n % 2 == 0), T0 + n / 1000)
    file.commit()
    assert [count(path, table) for table in ("writer", "gap")] == [1, 1]
    [gap] = file.find(key(1), since=0, now=T0)["gaps"]
    assert (gap["events"], gap["writer"]) == (500, "worker.0")


def test_a_pid_that_comes_again_is_another_process(path):
    """After a while, by its time of start; and who is not heard any more is kept in the file alone."""
    file = opened(path)
    for n in range(3):
        told = Traces("worker.0", T0 + 100 * n, 0, 1, stories=(story(key(n), ("connected", {})),))
        file.add(PID, told, T0 + 100 * n)
        file.add(PID + n + 1, told, T0 + 100 * n)
        file.commit()
    assert count(path, "writer") == 6
    found = file.find(key(2), since=0, now=T0 + 200)
    assert {writer["since"] for writer in found["writers"]} == {T0 + 200}
    assert found["gaps"] == []
    assert file.telling == 2


def test_how_old_a_story_is_says_admin(path):
    """One from the far future keeps nothing for longer; one from long ago does not take others with it."""
    file = opened(path, keep_s=100)
    for n, at in enumerate((9e10, T0, 0.0)):
        file.add(PID, record(story(key(n), ("connected", {}), at=at), before=n), T0 + 60 * n)
    file.prune(T0 + 120)
    assert [names(file, key(n)) for n in range(3)] == [[], ["connected"], ["connected"]]
    assert file.find(key(1), since=0, now=T0 + 120)["oldest"] == T0 + 60


@pytest.mark.parametrize("anew", [False, True])
def test_a_clock_that_was_ahead_keeps_nothing_for_longer(path, anew):
    """What was taken in the meantime is as old as the time at which the clock was put right."""
    file = opened(path, keep_s=100)
    for n, now in enumerate((T0, T0 + 1e8, T0 + 50)):
        if anew:
            file.close()
            file = opened(path, keep_s=100)
        told = story(key(n), ("connected", {}), ids=(key(n + 10),))
        file.add(PID, record(told, before=n, dropped=1), now)
    file.prune(T0 + 120)
    assert [names(file, key(n)) for n in range(3)] == [[], ["connected"], ["connected"]]
    file.prune(T0 + 151)
    file.commit()
    assert [names(file, key(n)) for n in range(3)] == [[], [], []]
    assert count(path, "piece") == 0


def test_an_answer_is_bounded(path):
    """However long somebody has talked."""
    file = opened(path)
    for n in range(2100):
        file.add(PID, record(story(key(1), ("refused", {"n": n})), before=n), T0)
    found = file.find(key(1), since=0, now=T0)
    assert (len(found["events"]), found["more"]) == (2000, True)


def test_what_is_no_event_is_said_to_be_none(path):
    """A process that was taken over writes what it likes."""
    file = opened(path)
    file.add(PID, record(Story(key(1), (), T0, False, msgspec.Raw(b"\xc1\xc1")), count=1), T0)
    assert names(file, key(1)) == ["unreadable"]


def damage(path: Path) -> None:
    with path.open("r+b") as damaged:
        damaged.seek(200_000)
        damaged.write(b"\xff" * 100_000)


@pytest.mark.parametrize(("ended", "looks"), [("well", False), ("killed", False), ("crashed", True)])
def test_it_is_looked_through_where_it_may_be_damaged(path, tmp_path, ended, looks):
    """That takes seconds where it is large, and nobody reads what is told meanwhile: not at each start."""
    file = opened(path)
    for n in range(200):
        file.add(PID, record(story(key(n), ("refused", {"said": "x" * 2000})), before=n), T0)
    file.commit()
    file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.add(PID, record(story(key(200), ("connected", {})), before=200), T0)
    file.commit()
    if ended == "well":
        file.close()
    left = tmp_path / "left"
    left.mkdir()
    for each in tmp_path.glob("trace.db*"):
        shutil.copy(each, left)
    if ended == "crashed":
        os.utime(left / "trace.db-wal", (1.0, 1.0))
    damage(left / "trace.db")
    if looks:
        with pytest.raises(Unusable):
            opened(left / "trace.db")
    else:
        opened(left / "trace.db").drop()


def test_sessions_are_counted_by_two_at_once(path):
    """At a reload; the one that stays knows how many there are, also after a kill."""
    old = opened(path, sessions=10)
    for n in range(4):
        old.add(PID, record(story(key(n), ("connected", {})), before=n), T0)
    old.commit()
    new = opened(path, sessions=10)
    for n in range(4, 20):
        file = (old, new)[n % 2]
        file.add(PID, record(story(key(n), ("connected", {})), before=n), T0)
        file.commit()
    old.close()
    while new.prune(T0):
        pass
    new.commit()
    assert (new.sessions, count(path, "piece")) == (10, 10)
    new.add(PID, record(story(key(30), ("connected", {})), before=20), T0)
    new.drop()
    assert opened(path).sessions == 10


def test_a_file_that_cannot_be_read_is_let_go_of(path):
    """By `forkd explain` where no forkd runs: no descriptor stays."""
    path.write_bytes(b"no database" * 1000)
    file = TraceFile(path, keep_s=0, sessions=0, max_bytes=0)
    held = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(sqlite3.DatabaseError) as raised:
        file.open_to_read()
    assert raised.value.__traceback__ is not None  # which would hold the connection
    assert len(list(Path("/proc/self/fd").iterdir())) == held


@pytest.mark.parametrize("harm", ["garbage", "version"])
def test_a_file_that_is_no_use_is_put_aside(path, harm):
    """Damage, or another version's: a new one begins, and the old can be looked at."""
    file = opened(path)
    for n in range(200):
        file.add(PID, record(story(key(n), ("refused", {"said": "x" * 2000})), before=n), T0)
    file.close()
    file = TraceFile(path, keep_s=1e6, sessions=1000, max_bytes=1 << 30)
    if harm == "garbage":
        damage(path)
        file.drop(failed=True)
    else:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
    with pytest.raises(Unusable):
        file.open()
    aside = file.put_aside()
    file.open()
    assert aside.exists()
    assert file.sessions == 0


def test_a_kill_leaves_a_whole_file(path):
    """WAL: what was committed is there, and nothing of the rest."""
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
        from pathlib import Path
        from tests.admin.test_trace_file import *
        file = opened(Path({str(path)!r}))
        n = 0
        while True:
            for _ in range(20):
                told = story(key(n), ("connected", {{}}), ("refused", {{"said": "x" * 500}}))
                file.add(PID, record(told, before=2 * n), T0 + n)
                n += 1
            file.prune(T0 + n)
            file.commit()
            print(n, flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(10)]
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
    committed = max(int(line) for line in lines if line.endswith("\n"))
    file = opened(path)
    assert file.sessions >= min(committed, 1000)
    assert names(file, key(committed - 1)) == ["connected", "refused"]
