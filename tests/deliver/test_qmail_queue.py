"""Mail into a queue program (deliver/qmail_queue.py), which a real launcher starts (forkd/launcher)."""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.config import schema
from forkd.config.units import Seconds
from forkd.deliver.programs import ProgramHost
from forkd.deliver.qmail_queue import QmailQueue, envelope_octets
from forkd.deliver.transport import Delivery, Result, Target
from forkd.fs import Fs
from forkd.qmgr.programs import Launcher
from forkd.queue import stored
from forkd.queue.envelope import Edit
from forkd.queue.format import Damaged
from forkd.queue.stored import StoredMessage
from forkd.rpc import channel, passing
from forkd.rpc.messages import Launch, Launched
from tests.support.daemon import alive
from tests.support.queueing import Queue, RunningLauncher, a_table, queue_config, running_launcher
from tests.support.spooling import MAIL, a_spool, queued
from tests.support.waiting import wait_for

LARGE = b"Subject: large\r\n\r\n" + b"line\r\n" * 60_000


def a_target(address: str = "a@test.local", index: int = 0) -> Target:
    local, _, domain = address.rpartition("@")
    return Target(index, address, local, domain if local else "test.local")


def stored_in(tmp_path: Path, **fields: object) -> StoredMessage:
    spool = a_spool(tmp_path / "spool")
    queue_id = queued(spool, **fields)  # type: ignore[arg-type]
    return stored.load(f"{spool.new}/{queue_id}", queue_id)


def deliver(
    host: ProgramHost | RunningLauncher, message: StoredMessage, *targets: Target, name: str = "qq"
) -> Result | Damaged:
    """The one result that all targets have."""
    if isinstance(host, RunningLauncher):
        host = Launcher(str(host.path))
    (answer,) = QmailQueue(name, host, timeout_s=30).deliver([Delivery(message, targets or (a_target(),))])
    if isinstance(answer, Damaged):
        return answer
    assert [result.target for result in answer] == list(targets or (a_target(),))
    assert len({(result.status, result.text) for result in answer}) == 1
    return answer[0]


def status(answer: Result | Damaged) -> str:
    assert isinstance(answer, Result), answer
    return f"{answer.status} {answer.enhanced}"


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path)


@pytest.fixture
def launcher(tmp_path: Path, queue: Queue) -> Iterator[RunningLauncher]:
    """Transports by what their program does."""
    with running_launcher(queue_config(tmp_path, **programs(queue))) as running:
        yield running


def programs(queue: Queue) -> dict[str, schema.Transport]:
    soon = Seconds(0.3)
    return {
        "qq": a_table(queue),
        "early": a_table(queue, "exit", "0"),
        "no message": a_table(queue, "envelope", "exit", "0"),
        "drops": a_table(queue, "message", "exit", "0"),
        "notqmail": a_table(queue, "say", "Dits own talk", "say6", "Dspam (#5.7.1)", "exit", "82"),
        "talks": a_table(queue, "say", "Dno /etc/keys", "exit", "82"),
        "unsynced": a_table(
            queue,
            "environment",
            "message",
            "envelope",
            "queue",
            environment={"USE_FSYNC": "", "PATH": "/bin"},
        ),
        "half": a_table(queue, "close", "envelope", "queue"),
        "refuses": a_table(queue, "say", "DNot here (#5.7.1)", "exit", "88"),
        "crashes": a_table(queue, "message", "signal", "11"),
        "deaf": a_table(queue, "here", "hang", timeout=soon),
        "parent": a_table(queue, "child", "message", "envelope", "hang", timeout=soon),
        "loud": a_table(queue, "here", "shout", timeout=soon),
        "shows": a_table(
            queue, "environment", "message", "envelope", "queue", environment={"CONTROLDIR": "/etc/q"}
        ),
        "waits": a_table(queue, "here", "message", "envelope", "here", "queue", "hang"),
        "missing": schema.QmailQueue(argv=("/no/such/qmail-queue",)),
        "no program": schema.QmailQueue(argv=("/etc/passwd",)),
    }


# --- octets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "recipients", "octets"),
    [
        ("a@x.org", ["u@test.local"], b"Fa@x.org\0Tu@test.local\0\0"),
        ("", ["u@test.local"], b"F\0Tu@test.local\0\0"),
        ('"a b"@x.org', ['"q\\"\\\\@x"@test.local'], b'Fa b@x.org\0Tq"\\@x@test.local\0\0'),
        ("a@x.org", ["postmaster", "b@[192.0.2.1]"], b"Fa@x.org\0Tpostmaster@test.local\0Tb@[192.0.2.1]\0\0"),
        (
            "\u00e4@x.org",
            ["\u00fc@b\u00fccher.example"],
            "F\u00e4@x.org\0T\u00fc@xn--bcher-kva.example\0\0".encode(),
        ),
    ],
    ids=["plain", "null sender", "quoted", "no domain, literal", "U-label"],
)
def test_the_envelope_is_qmails(sender: str, recipients: list[str], octets: bytes) -> None:
    """qmail-queue(8): F sender NUL, T recipient NUL each, NUL; addresses without quotes, domains as qmail's
    control files have them."""
    assert b"".join(envelope_octets(sender, [a_target(each) for each in recipients])) == octets


@pytest.mark.parametrize(
    "message",
    [MAIL, LARGE, b"", b"Subject: \xff\x00\x80\r\n\r\n\xe4\r\n", b"no header, no end"],
    ids=["small", "large", "empty", "8-bit", "open"],
)
def test_the_program_gets_message_and_envelope(
    tmp_path: Path, queue: Queue, launcher: RunningLauncher, message: bytes
) -> None:
    """LF line ends, the trace field on top, then plugins' fields; nothing else added."""
    item = stored_in(tmp_path, message=message, edits=(Edit(op="add_header", name="X-Seen", value="yes"),))
    assert status(deliver(launcher, item)) == "delivered 2.0.0"
    ((got, envelope),) = queue.mails()
    head = (item.envelope.trace + "X-Seen: yes\r\n").encode()
    body = message if message.startswith(b"Subject") or not message else b"\r\n" + message
    assert got == (head + body).replace(b"\r\n", b"\n")
    assert envelope == b"Fsender@example.org\0Ta@test.local\0\0"


def test_recipients_beyond_a_pipes_size(tmp_path: Path, queue: Queue, launcher: RunningLauncher) -> None:
    """An envelope of 300 KiB; one program for all of them, one outcome each."""
    addresses = [f"{'x' * 100}{number}@{'y' * 100}.test.local" for number in range(1500)]
    targets = [a_target(address, index) for index, address in enumerate(addresses)]
    assert status(deliver(launcher, stored_in(tmp_path), *targets)) == "delivered 2.0.0"
    ((_, envelope),) = queue.mails()
    assert envelope.split(b"\0")[1:-2] == [b"T" + address.encode() for address in addresses]


def test_what_a_program_is_given(tmp_path: Path, queue: Queue, launcher: RunningLauncher) -> None:
    """Descriptors 0, 1, 2 (and 6, for notqmail's), PATH, the word to sync (IndiMail's), what the transport
    names, the root folder, a process group of its own; nothing else of ours."""
    assert status(deliver(launcher, stored_in(tmp_path), name="shows")) == "delivered 2.0.0"
    (shown,) = (tmp_path / "queued").glob("*.environ")
    assert shown.read_text().splitlines() == [
        "cwd /",
        f"ids {os.getuid()} {os.geteuid()}",
        "leads 1",
        "fd 0",
        "fd 1",
        "fd 2",
        "fd 6",
        "env PATH=/usr/local/bin:/usr/bin:/bin",
        "env USE_FSYNC=1",
        "env CONTROLDIR=/etc/q",
    ]


def test_the_admin_may_say_otherwise(tmp_path: Path, queue: Queue, launcher: RunningLauncher) -> None:
    """What `environment` names is as it says."""
    assert status(deliver(launcher, stored_in(tmp_path), name="unsynced")) == "delivered 2.0.0"
    (shown,) = (tmp_path / "queued").glob("*.environ")
    assert [line for line in shown.read_text().splitlines() if line.startswith("env ")] == [
        "env PATH=/bin",
        "env USE_FSYNC=",
    ]


def test_a_filter_in_front_may_drop_it(tmp_path: Path, queue: Queue, launcher: RunningLauncher) -> None:
    """qmail-multi and qmail-qfilter do so: message read, envelope not, exit status 0; however long it is."""
    addresses = [f"{'x' * 60}{number}@test.local" for number in range(1500)]
    targets = [a_target(address, index) for index, address in enumerate(addresses)]
    for some in (targets[:1], targets):
        answer = deliver(launcher, stored_in(tmp_path), *some, name="drops")
        assert status(answer) == "delivered 2.0.0"
        assert isinstance(answer, Result)
        assert answer.text.startswith("dropped by the queue program")
    assert not queue.mails()


# --- what goes wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message", "wanted"),
    [
        ("early", LARGE, "deferred 4.3.0: did not read all of the message"),
        ("early", MAIL, "deferred 4.3.0: did not read all of the message"),
        ("no message", MAIL, "deferred 4.3.0: did not read all of the message"),
        ("notqmail", MAIL, "failed 5.7.1: spam"),
        ("talks", MAIL, "deferred 4.3.0: it said: Dno /etc/keys"),
        ("half", LARGE, "deferred 4.3.0: read error"),
        ("refuses", LARGE, "failed 5.7.1: Not here"),
        ("crashes", MAIL, "deferred 4.3.0: SIGSEGV"),
        ("missing", MAIL, "deferred 4.3.0: /no/such/qmail-queue: No such file"),
        ("no program", MAIL, "deferred 4.3.0: /etc/passwd: Permission denied"),
        ("unknown", MAIL, "deferred 4.3.0: no such transport"),
    ],
    ids=[
        "early",
        "early, small",
        "no message",
        "notqmail",
        "talks",
        "half",
        "refuses",
        "crashes",
        "missing",
        "no program",
        "unknown",
    ],
)
def test_a_program_that_does_not_take_it(
    tmp_path: Path, launcher: RunningLauncher, name: str, message: bytes, wanted: str
) -> None:
    """Temporary unless its exit status says otherwise; the text is for the admin."""
    answer = deliver(launcher, stored_in(tmp_path, message=message), name=name)
    ended, _, text = wanted.partition(": ")
    assert status(answer) == ended
    assert isinstance(answer, Result)
    assert text in answer.text
    assert not Queue(tmp_path).mails()


@pytest.mark.parametrize(
    ("name", "message"), [("deaf", LARGE), ("parent", MAIL), ("loud", LARGE)], ids=["deaf", "parent", "loud"]
)
def test_a_program_that_never_ends_is_killed_with_its_group(
    tmp_path: Path, queue: Queue, launcher: RunningLauncher, name: str, message: bytes
) -> None:
    """At the transport's timeout, whether it reads, prints, or left its work to a child with its pipes."""
    answer = deliver(launcher, stored_in(tmp_path, message=message), name=name)
    assert status(answer) == "deferred 4.3.0"
    assert isinstance(answer, Result)
    assert "did not end in time" in answer.text
    (pid,) = wait_for(queue.pids)
    wait_for(lambda: not alive(pid))


def test_a_message_that_cannot_be_read_whole_is_not_queued(
    tmp_path: Path, queue: Queue, launcher: RunningLauncher
) -> None:
    """Its checksum is known at its end only: by then the program has the octets, but no envelope."""
    item = stored_in(tmp_path, message=LARGE)
    octets = bytearray(Path(item.path).read_bytes())
    octets[200_000] ^= 1
    Path(item.path).write_bytes(octets)
    assert isinstance(deliver(launcher, item), Damaged)
    assert status(deliver(launcher, stored_in(tmp_path))) == "delivered 2.0.0"
    assert len(queue.mails()) == 1


def test_a_launcher_that_dies_is_no_delivery(tmp_path: Path, queue: Queue) -> None:
    """While the program still reads: it sees an end of file without an envelope, and queues nothing. The next
    launcher takes what waits at the socket."""
    config = queue_config(tmp_path, qq=a_table(queue, "here", "message", "envelope", "queue"))
    held, release = threading.Event(), threading.Event()

    class SlowDisk(Fs):
        """Its second piece comes when we want."""

        def read(self, fd: int, size: int, offset: int) -> bytes:
            if offset == stored.PIECE_BYTES:
                held.set()
                release.wait(30)
            return super().read(fd, size, offset)

    item = stored_in(tmp_path, message=LARGE)
    item = stored.load(item.path, item.id, fs=SlowDisk())
    with running_launcher(config) as launcher:
        answers: list[Result | Damaged] = []
        thread = threading.Thread(target=lambda: answers.append(deliver(launcher, item)))
        thread.start()
        held.wait(30)
        (pid,) = wait_for(queue.pids)
        os.kill(launcher.pid, 9)
        launcher.ended()
        release.set()
        thread.join(30)
    assert status(answers[0]) == "deferred 4.3.0"
    wait_for(lambda: not alive(pid))
    assert not queue.mails()


def test_stopping_ends_what_runs(tmp_path: Path, queue: Queue, launcher: RunningLauncher) -> None:
    """Queued already and not ended: killed, so it comes again (FORMAT.md, duplicates)."""
    answers: list[Result | Damaged] = []
    item = stored_in(tmp_path)
    thread = threading.Thread(target=lambda: answers.append(deliver(launcher, item, name="waits")))
    thread.start()
    (pid,) = wait_for(queue.pids)
    wait_for(queue.mails)
    assert launcher.stop() == 0
    thread.join(30)
    assert status(answers[0]) == "deferred 4.3.0"
    wait_for(lambda: not alive(pid))


@pytest.mark.parametrize("descriptors", [0, 3])
def test_a_request_without_its_descriptors_starts_nothing(
    tmp_path: Path, queue: Queue, launcher: RunningLauncher, descriptors: int
) -> None:
    """A program would have the launcher's own in their place."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(launcher.path))
        assert passing.try_send(client, Launch(transport="early"), [0] * descriptors)
        answer = channel.receive(client, Launched)
        assert answer is not None
        assert "four descriptors" in answer.error


def test_what_is_no_request_ends_its_connection_alone(
    tmp_path: Path, queue: Queue, launcher: RunningLauncher
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(str(launcher.path))
        client.send(b"\xc1")
        assert client.recv(10) == b""
    assert status(deliver(launcher, stored_in(tmp_path))) == "delivered 2.0.0"


def test_nobody_listens(tmp_path: Path) -> None:
    """No launcher was ever there: the mail waits."""
    answer = deliver(Launcher(str(tmp_path / "none.sock")), stored_in(tmp_path))
    assert status(answer) == "deferred 4.3.0"
    assert isinstance(answer, Result)
    assert "cannot be reached: No such file" in answer.text


@pytest.mark.slow
def test_a_large_message_is_streamed(tmp_path: Path, queue: Queue, launcher: RunningLauncher) -> None:
    """25 MiB, through a pipe of 64 KiB, identical."""
    message = b"Subject: x\r\n\r\n" + os.urandom(1 << 20).replace(b"\r", b"").replace(b"\n", b"") * 25
    item = stored_in(tmp_path, message=message)
    assert status(deliver(launcher, item)) == "delivered 2.0.0"
    ((got, _),) = queue.mails()
    assert got == (item.envelope.trace.encode() + message).replace(b"\r\n", b"\n")


@pytest.mark.slow
def test_a_setuid_program_becomes_its_owner_and_ends_in_time() -> None:
    """As qmail-queue is: the real uid is the launcher's, and kill(2) goes by it."""
    if os.geteuid() != 0:
        pytest.skip("only root makes setuid programs")
    launched_as, owner = pwd.getpwnam("news").pw_uid, pwd.getpwnam("uucp").pw_uid
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        queue = Queue(folder)
        os.chown(queue.program, owner, -1)
        queue.program.chmod(0o4755)
        table = a_table(queue, "environment", "message", "hang", timeout=Seconds(0.5))
        with running_launcher(queue_config(folder, qq=table), uid=launched_as) as launcher:
            answer = deliver(launcher, stored_in(folder))
        assert isinstance(answer, Result)
        assert "did not end in time" in answer.text
        (shown,) = (folder / "queued").glob("*.environ")
        assert f"ids {launched_as} {owner}" in shown.read_text()
        assert not alive(int(shown.stem))
