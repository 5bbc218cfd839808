"""A running qmgr with a running launcher: queued mail into queue programs, and mail whose client waits."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forkd import log
from forkd.config import schema
from forkd.config.units import Seconds
from forkd.qmgr.clients import MOST_WAITED
from forkd.qmgr.lanes import ROOM
from forkd.qmgr.programs import Launcher
from forkd.queue.commit import finish_uncommitted
from forkd.queue.envelope import Recipient
from forkd.queue.spool import Spool
from forkd.rpc import channel
from forkd.rpc.messages import Deliver, Delivered
from forkd.smtp import replies
from tests.support.daemon import alive
from tests.support.queueing import Queue, a_table, queue_config, running_launcher
from tests.support.reports import reports
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


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was logged."""
    path = tmp_path / "log"
    with path.open("w") as file:
        log.setup("json", "info", os.dup(file.fileno()))
    try:
        yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    finally:
        log.setup()


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


def test_what_the_program_refuses_for_now_stays_with_its_reason(
    tmp_path: Path, spool: Spool, queue: Queue
) -> None:
    """Tried again later. Recorded: a restart knows it."""
    queued(spool, received_at=time.time())
    config = queue_config(tmp_path, qq=a_table(queue, "message", "envelope", "exit", "53"))
    for _ in range(2):
        with running(config) as qmgr:
            assert "write error or disk full" in listed(qmgr, "deferred")
            assert qmgr.ask("list").entries[0].attempts == 1
            assert qmgr.stop() == 0


TOLD: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    # exit status, NOTIFY -> action and status, words
    "refused": ("31", (), "failed 5.3.0", "554 5.3.0"),
    "spam": ("32", ("FAILURE",), "failed 5.7.1", "This mail looks like spam"),
    "taken": ("0", ("SUCCESS",), "relayed 2.0.0", "does not confirm deliveries"),
}


@pytest.mark.parametrize("row", TOLD)
def test_the_sender_is_told_what_the_program_made_of_it(
    tmp_path: Path, spool: Spool, queue: Queue, row: str
) -> None:
    """No such program reports itself: what it takes is relayed (RFC 3461 5.2.2)."""
    code, notify, action, said = TOLD[row]
    recipients = (Recipient(address="a@test.local", notify=notify),)
    queued(spool, recipients=recipients, sender="alice@home.local", received_at=time.time())
    program = a_table(queue, "message", "envelope", "exit", code)
    with running(queue_config(tmp_path, qq=program, home=schema.Maildir())) as qmgr:
        wait_for(lambda: reports(tmp_path / "mail/home.local/alice"))
        wait_for(lambda: qmgr.ask("list").count == 0)
        assert qmgr.stop() == 0
    (told,) = reports(tmp_path / "mail/home.local/alice")
    assert told.actions == {"a@test.local": action}
    assert said in told.text


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


def test_who_has_gone_is_started_nothing_for(tmp_path: Path, queue: Queue) -> None:
    """It asked while the launcher was busy, and hung up: what would be queued now comes again anyway."""
    config = queue_config(tmp_path, qq=a_table(queue, "here", "message", "envelope", "queue"))
    with running_launcher(config) as launcher:
        os.kill(launcher.pid, signal.SIGSTOP)
        host = Launcher(str(launcher.path))
        for _ in range(5):
            ends = [os.pipe() for _ in range(4)]
            program = host.start("qq", (ends[0][0], ends[1][0], ends[2][1], ends[3][1]))
            os.write(ends[0][1], b"Subject: x\n\n")
            os.write(ends[1][1], b"Fa@b\0Tc@d\0\0")
            program.close()
            for end in itertools.chain(*ends):
                os.close(end)
        os.kill(launcher.pid, signal.SIGCONT)
        (reader, writer) = os.pipe()
        with contextlib.closing(host.start("qq", (reader, reader, writer, writer))) as last:
            os.close(writer)
            wait_for(queue.pids)
            last.close()
        assert launcher.stop() == 0
    assert len(queue.pids()) == 1
    assert not queue.mails()


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


def test_who_does_not_wait_any_more_is_not_delivered_to(
    tmp_path: Path, spool: Spool, queue: Queue, events: Callable[[], list[dict[str, Any]]]
) -> None:
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
        assert delivered(second).lines == replies.NOT_TAKEN_NOW.lines
        assert len(queue.pids()) == 1
        assert qmgr.stop() == 0
    (why,) = [event for event in events() if event.get("act") == "not_delivered"]
    assert (why["id"], why["detail"]) == (gone.partition(".")[0], "its client has gone")


def test_a_hung_program_holds_up_no_other_transport(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """More mail for it than a lane may have open: other mail goes, queued or with its client waiting, and so
    do the other recipients of its own mail."""
    for _ in range(ROOM + 20):
        queued(spool, "a@hung.local", received_at=time.time())
    queued(spool, "a@hung.local", "first@good.local", received_at=time.time())
    config = queue_config(tmp_path, hung=a_table(queue, "here", "hang"), good=a_table(queue))
    with running(config) as qmgr:
        wait_for(lambda: len(queue.pids()) == config.queue.concurrency)
        wait_for(lambda: len(queue.mails()) == 1)
        assert qmgr.deliver("w0", waiting(spool, "second@good.local")).code == 250
        qmgr.poke(spool, queued(spool, "third@good.local", received_at=time.time()))
        wait_for(lambda: len(queue.mails()) == 3)
        assert [envelope.split(b"\0")[1] for _, envelope in queue.mails()] == [
            b"Tfirst@good.local", b"Tsecond@good.local", b"Tthird@good.local"
        ]  # fmt: skip
        wait_for(lambda: qmgr.ask("list").count == ROOM + 21)
        assert len(queue.pids()) == config.queue.concurrency


def test_what_waits_for_room_comes_in_its_turn(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """More than a lane may have open, to a program that works; what is removed meanwhile does not come."""
    ids = [queued(spool, "a@qq.local", received_at=time.time()) for _ in range(ROOM + 40)]
    config = queue_config(tmp_path, qq=a_table(queue, "here", "message", "envelope", "queue"))
    config = msgspec.structs.replace(config, queue=schema.Queue(concurrency=2))
    with running(config) as qmgr:
        assert qmgr.ask("remove", ids[-1]).count == 1
        assert qmgr.ask("flush").error == ""
        wait_for(lambda: is_empty(spool), timeout_s=60)
        assert len(queue.mails()) in (ROOM + 39, ROOM + 40)
        assert qmgr.ask("list").count == 0


def test_a_waiting_client_goes_before_what_is_queued(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """One program at a time, some of the queue's before it: the client's mail is the next one."""
    config = queue_config(
        tmp_path, qq=a_table(queue, "here", "message", "envelope", "queue", "hang", timeout=Seconds(0.3))
    )
    config = msgspec.structs.replace(config, queue=schema.Queue(concurrency=1))
    for _ in range(20):
        queued(spool, "backlog@qq.local", received_at=time.time())
    with running(config) as qmgr:
        wait_for(queue.mails)
        assert qmgr.deliver("w0", waiting(spool, "client@qq.local")).code == 451
        named = [envelope.split(b"\0")[1] for _, envelope in queue.mails()]
        assert b"Tclient@qq.local" in named[:5], named


def test_one_worker_has_not_all_places(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """Who asks for more than its share is refused at once; another one is not."""
    config = queue_config(tmp_path, qq=a_table(queue, "here", "hang"), good=a_table(queue))
    config = msgspec.structs.replace(config, queue=schema.Queue(concurrency=1))
    with (
        running(config) as qmgr,
        contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as greedy,
    ):
        greedy.settimeout(30)
        greedy.connect(str(qmgr.path.with_name("proxy.sock")))
        name = waiting(spool, "a@qq.local")
        for number in range(MOST_WAITED + 1):
            channel.send(greedy, Deliver(n=number, slot="w0", name=name))
        answer = channel.receive(greedy, Delivered)
        assert answer is not None
        assert (answer.n, answer.code) == (MOST_WAITED, 451)
        assert qmgr.deliver("w0", waiting(spool, "a@good.local")).code == 250


def test_the_log_says_what_the_client_hears(
    tmp_path: Path, spool: Spool, queue: Queue, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """Temporary, however soon what is queued is given up; damage by its name."""
    config = queue_config(tmp_path, qq=a_table(queue, "exit", "71"), whole=a_table(queue))
    config = msgspec.structs.replace(config, queue=schema.Queue(give_up=Seconds(0)))
    large = waiting(spool, "a@whole.local", message=b"Subject: x\r\n\r\n" + b"line\r\n" * 60_000)
    with Path(spool.tmp, large).open("r+b") as file:
        file.seek(200_000)
        file.write(b"\0")
    with running(config) as qmgr:
        assert qmgr.deliver("w0", waiting(spool)).code == 451
        damaged = qmgr.deliver("w0", large)
        assert (damaged.code, damaged.lines) == (451, replies.NOT_TAKEN_NOW.lines)
        assert qmgr.stop() == 0
    said = events()
    assert [event["status"] for event in said if event["event"] == "delivery"] == ["deferred"]
    (why,) = [event for event in said if event.get("act") == "not_delivered"]
    assert why["id"] == large.partition(".")[0]


def test_no_descriptors_left_is_not_for_ever(tmp_path: Path, spool: Spool, queue: Queue) -> None:
    """Connections wait meanwhile, at qmgr and at the launcher, and are taken when there are some again."""
    config = queue_config(tmp_path, qq=a_table(queue))
    with (
        running_launcher(config) as launcher,
        running_qmgr(config, launcher=str(launcher.path)) as qmgr,
    ):
        assert qmgr.ask("list").count == 0, "it runs"
        for pid in (launcher.pid, qmgr.pid):
            had = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, had[1]))
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as client:
                client.connect(
                    str(launcher.path if pid == launcher.pid else qmgr.path.with_name("proxy.sock"))
                )
                wait_for(lambda pid=pid: watched(pid), what="it looks away")  # type: ignore[misc]
                resource.prlimit(pid, resource.RLIMIT_NOFILE, had)
        assert qmgr.deliver("w0", waiting(spool)).code == 250


def watched(pid: int) -> bool:
    """Its epoll asks a listener for nothing."""
    shown = "".join(path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir())
    return bool(re.search(r"tfd: +\d+ events: +18 ", shown))


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
