"""A running qmgr with a running launcher: queued mail into queue programs, and mail whose client waits."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from forkd.config import schema
from forkd.config.units import Seconds
from forkd.queue.commit import finish_uncommitted
from forkd.queue.spool import Spool
from forkd.smtp import replies
from tests.support.daemon import alive
from tests.support.queueing import Queue, a_table, queue_config, running_launcher
from tests.support.spooling import MAIL, RunningQmgr, a_spool, an_envelope, delivered, queued, running_qmgr
from tests.support.waiting import wait_for


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return a_spool(tmp_path / "spool")


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


@contextlib.contextmanager
def running(config: schema.Config) -> Iterator[RunningQmgr]:
    with running_launcher(config) as launcher, running_qmgr(config, launcher=str(launcher.path)) as qmgr:
        yield qmgr


def is_empty(spool: Spool) -> bool:
    return not any(Path(spool.new).iterdir())


def listed(qmgr: RunningQmgr, wanted: str) -> str:
    """The reason of the one message, once it stands so."""
    (entry,) = wait_for(lambda: [e for e in qmgr.ask("list").entries if e.state == wanted])
    return entry.reason


def test_queued_mail_goes_into_the_program(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """One program for all recipients of a transport; then the spool has it no more."""
    queued(spool, "a@test.local", "b@test.local", received_at=time.time())
    with running(queue_config(tmp_path, qq=a_table(queue))) as qmgr:
        wait_for(lambda: is_empty(spool))
        ((_, envelope),) = queue.mails()
        assert envelope == b"Fsender@example.org\0Ta@test.local\0Tb@test.local\0\0"
        assert qmgr.stop() == 0


@pytest.mark.parametrize(
    ("code", "wanted"),
    [("31", "failed: refused for good"), ("53", "deferred: write error or disk full")],
)
def test_what_the_program_refuses_stays_with_its_reason(
    tmp_path: Path, spool: Spool, queue: Queue, code: str, wanted: str
) -> None:
    """Permanent: no further try; temporary: tried again later. Recorded: a restart knows it."""
    standing, _, reason = wanted.partition(": ")
    queued(spool, received_at=time.time())
    config = queue_config(tmp_path, qq=a_table(queue, "message", "envelope", "exit", code))
    with running(config) as qmgr:
        assert reason in listed(qmgr, standing)
        assert qmgr.stop() == 0
    with running(config) as qmgr:
        assert reason in listed(qmgr, standing)
        assert qmgr.ask("list").entries[0].attempts == 1
        assert qmgr.stop() == 0


def test_a_program_that_hangs_holds_up_no_other_mail(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """Each has a thread of its own, up to queue.concurrency."""
    with running(queue_config(tmp_path, qq=a_table(queue, "here", "hang"))) as qmgr:
        for number in range(1, 5):
            qmgr.poke(spool, queued(spool, received_at=time.time()))
            wait_for(lambda number=number: len(queue.pids()) == number)  # type: ignore[misc]
        assert all(alive(pid) for pid in queue.pids())


def test_a_killed_qmgr_takes_its_programs_with_it(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """What had not ended is killed by the launcher; the next qmgr delivers, and the mail is there once."""
    queued(spool, received_at=time.time())
    with running(queue_config(tmp_path, qq=a_table(queue, "here", "message", "hang"))) as qmgr:
        (pid,) = wait_for(queue.pids)
        os.kill(qmgr.pid, 9)
        qmgr.ended()
        wait_for(lambda: not alive(pid))
    with running(queue_config(tmp_path, qq=a_table(queue))) as qmgr:
        wait_for(lambda: is_empty(spool))
        assert len(queue.mails()) == 1
        assert qmgr.stop() == 0


# --- a client waits -------------------------------------------------------------------------------------


def waiting(spool: Spool, *recipients: str, message: bytes = MAIL) -> str:
    """A message as a worker leaves it for qmgr; its name in tmp/."""
    file = spool.begin()
    file.write(message)
    return finish_uncommitted(file, an_envelope(*recipients, received_at=time.time()))


def test_the_reply_is_the_programs(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """250 when it has the mail; else its refusal. Nothing is recorded, and the file stays the worker's."""
    config = queue_config(
        tmp_path,
        qq=a_table(queue),
        never=a_table(queue, "exit", "34"),
        custom=a_table(queue, "say", "Zgreylisted (#4.7.1)", "exit", "88"),
        late=a_table(queue, "hang", timeout=Seconds(0.2)),
    )
    with running(config) as qmgr:
        said = {}
        for domain in ("test", "never", "custom", "late", "nowhere"):
            name = waiting(spool, f"a@{domain}.local", f"b@{domain}.local")
            answer = qmgr.deliver("w0", name)
            said[domain] = f"{answer.code} {answer.enhanced} {answer.lines[0]}"
            assert Path(spool.tmp, name).exists()
        later = "451 4.3.0 Cannot take this mail now, please try again later"
        assert said == {
            "test": "250 2.0.0 Ok",
            "never": "554 5.7.1 This mail has an attachment that is not accepted",
            "custom": "451 4.7.1 greylisted",
            "late": later,
            "nowhere": later,
        }
        assert len(queue.mails()) == 1
        assert is_empty(spool)
        assert qmgr.ask("list").count == 0
        assert qmgr.stop() == 0


def test_one_reply_for_recipients_with_several_ends(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """Temporary before permanent before taken: a client that comes again reaches the others."""
    config = queue_config(
        tmp_path, qq=a_table(queue), never=a_table(queue, "exit", "31"), later=a_table(queue, "exit", "71")
    )
    with running(config) as qmgr:
        assert qmgr.deliver("w0", waiting(spool, "a@qq.local", "b@never.local")).code == 554
        assert qmgr.deliver("w0", waiting(spool, "a@qq.local", "b@never.local", "c@later.local")).code == 451
        assert qmgr.stop() == 0


def test_who_does_not_wait_any_more_is_not_delivered_to(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """All threads are busy; the worker removes the file of a client that went: its mail is not begun with."""
    config = queue_config(tmp_path, qq=a_table(queue, "here", "hang", timeout=Seconds(0.5)))
    config = msgspec.structs.replace(config, queue=schema.Queue(concurrency=1))
    with running(config) as qmgr:
        first = qmgr.ask_to_deliver("w0", waiting(spool))
        wait_for(queue.pids)
        gone = waiting(spool)
        second = qmgr.ask_to_deliver("w0", gone)
        for _ in range(3):  # turns of its loop: it has taken the second one in
            qmgr.ask("list")
        Path(spool.tmp, gone).unlink()
        assert delivered(first).lines == replies.NOT_TAKEN_NOW.lines
        assert delivered(second).lines == replies.LOCAL_ERROR.lines
        assert len(queue.pids()) == 1
        assert qmgr.stop() == 0


def test_a_name_is_not_believed(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """Workers are distrusted: a living worker's file in its slot's folder, whole, or 451."""
    name = waiting(spool)
    queue_id, pid, *rest = name.split(".")
    linked = ".".join(["A" * len(queue_id), pid, *rest])
    Path(spool.tmp, linked).symlink_to(Path(spool.tmp, name))
    torn = waiting(spool)
    with Path(spool.tmp, torn).open("r+b") as file:
        file.truncate(50)
    with running(queue_config(tmp_path, qq=a_table(queue))) as qmgr:
        for slot, wrong in [
            ("..", name), ("w0/../w0", name), ("w1", name), ("w0", f"../w0/{name}"), ("w0", queue_id),
            ("w0", ".".join([queue_id, "1", *rest])), ("w0", torn), ("w0", linked), ("w0", ""),
        ]:  # fmt: skip
            assert qmgr.deliver(slot, wrong).code == 451, (slot, wrong)
        assert qmgr.deliver("w0", name).code == 250
        assert len(queue.mails()) == 1
        assert qmgr.stop() == 0
    assert pid == str(os.getpid())
