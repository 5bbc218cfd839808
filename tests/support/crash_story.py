"""What is played on a disk that fails: messages come in, 250 is noted, qmgr delivers, an admin acts.

A Story is one life of worker and qmgr in one process, on a RecordingFs or another Fs. What it was told it
can rely on is noted in the log (`Promised` reads it back), and `problems` runs forkd's own recovery and
delivery on what is left of the disk (real files, real code) and compares.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from forkd.config import schema
from forkd.config.recipients import Accepted
from forkd.fs import Fs
from forkd.qmgr.manager import Manager
from forkd.qmgr.requests import Queue, begin
from forkd.qmgr.schedule import Standing
from forkd.queue.commit import commit
from forkd.queue.spool import BUFFER_BYTES, QMGR_SLOT, Spool
from forkd.rpc.messages import QueueAnswer, QueueRequest
from forkd.smtp.address import Mailbox
from forkd.smtp.events import Mail
from forkd.worker.transaction import Destination, Transaction
from tests.support.crash_fs import Call, Killed, RecordingFs
from tests.support.failing_fs import ProcessFs
from tests.support.spooling import a_config, an_envelope

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * ((BUFFER_BYTES * 2) // 16) + b"\r\n"


_ID = re.compile(rb"\bid ([0-9A-Z]{15,20})\b")
_END = re.compile(rb"\n--[^\n]+--\n\Z")
SLOTS = ("w0", QMGR_SLOT)
LOOP = "loop@test.local"
"""Fails for good: what is sent there claims to have been delivered there before."""
SENDER = "sender@test.local"
"""To whom that is reported."""


def body(name: str) -> bytes:
    """A message that can be known again, and whose parts can be missed."""
    return f"Subject: {name}\r\n\r\nbegin {name}\r\n".encode() + b"x" * 300 + f"\r\nend {name}\r\n".encode()


class Story:
    """One life. `life` tells its messages from those of the lives before, whose `messages` it knows."""

    def __init__(
        self, fs: RecordingFs, data: Path, *, life: str = "", messages: dict[str, bytes] | None = None
    ) -> None:
        self.fs = fs
        self.data = data
        self.config = config(data)
        self.life = life
        Spool.prepare(data / "spool", SLOTS, fs=fs)
        self.spool = Spool(data / "spool", "w0", fs=fs)
        self.messages: dict[str, bytes] = {} if messages is None else messages

    def end(self) -> None:
        """Its process is over."""
        self.fs.end()

    def receive(self, *names: str, to: tuple[str, ...] = ("a@test.local",)) -> list[str]:
        """One batch of commits; 250 for those that came through; ids."""
        batch = []
        for name in map(self.called, names):
            message = LARGE + name.encode() + b"\r\n" if name.startswith("large") else body(name)
            if LOOP in to:
                message = f"Delivered-To: {LOOP}\r\n".encode() + message
            self.messages[name] = message
            file = self.spool.begin()
            for at in range(0, len(message), 50_000):
                file.write(message[at : at + 50_000])
            batch.append((file, an_envelope(*to, session=name, sender=SENDER, received_at=time.time())))
        ids = []
        for name, result in zip(map(self.called, names), commit(self.spool, batch), strict=True):
            assert isinstance(result, str), result
            ids.append(result)
            for recipient in to:
                self.fs.mark(f"250 {name} {recipient} {result}")
        return ids

    def called(self, name: str) -> str:
        """A message's name in this life."""
        return name + self.life

    def receive_edited(self, name: str, *, hold: str = "", to: str = "a@test.local") -> str:
        """As receive(), of a message whose body a plugin replaced while it was in the spool; its id."""
        name = self.called(name)
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
            self.fs.mark(f"250 {name} {to} {result}")
        else:
            self.fs.mark(f"held {name} {result}")
        return result

    def deliver(self, *, flush: bool = False) -> Manager:
        """qmgr's start-up and one pass over all that is due; with `flush` over all that waits."""
        return run_qmgr(self.config, self.fs, flush=flush)

    def deliver_without_sweep(self) -> None:
        """A running qmgr, as it is between two messages: learns by walking, not by recovery."""
        woken = threading.Event()
        manager = Manager(self.config, f"{self.data}/spool", woken.set, fs=self.fs)
        while not manager.intake.walk(100, time.time()):
            pass
        finish(manager, woken, self.fs)

    def look_for_free_files(self) -> None:
        """The pool's looks are paced by the clock: the next commit looks."""
        self.spool.pool._looked_at = -1.0

    def recorded(self, name: str, recipient: str) -> None:
        """From here on that recipient has it, and does not get it again."""
        self.fs.mark(f"once {name} {recipient}")

    def hold(self, manager: Manager, name: str, queue_id: str) -> None:
        """An admin holds it, and is told so."""
        done(manager, "hold", queue_id)
        self.fs.mark(f"held {name} {queue_id}")

    def release(self, manager: Manager, name: str, queue_id: str, to: str) -> None:
        """An admin releases it."""
        done(manager, "release", queue_id)
        self.fs.mark(f"250 {name} {to} {queue_id}")

    def remove(self, manager: Manager, name: str, queue_id: str) -> None:
        """An admin removes it: from the asking nobody relies on it, from the answer it is gone."""
        self.fs.mark(f"removing {name} {queue_id}")
        done(manager, "remove", queue_id)
        self.fs.mark(f"removed {name} {queue_id}")


def config(data: Path) -> schema.Config:
    """Maildirs; unknown.local has no transport: its mail waits."""
    return a_config(data)


def run_qmgr(config: schema.Config, fs: Fs, *, flush: bool = False) -> Manager:
    """Recovery and all deliveries that are due, with the qmgr's own parts, until nothing runs."""
    woken = threading.Event()
    manager = Manager(config, f"{config.server.data_dir}/spool", woken.set, fs=fs)
    manager.intake.recover()
    if flush:
        ask(manager, "flush")
    finish(manager, woken, fs)
    return manager


def finish(manager: Manager, woken: threading.Event, fs: Fs) -> None:
    """All that is due, until nothing runs; then its threads end."""
    try:
        work_off(manager, woken, fs)
    finally:
        manager.stop_starting()
        manager.close(0)


def work_off(manager: Manager, woken: threading.Event, fs: Fs) -> None:
    """All that is due, until nothing runs."""
    while manager.pump(time.time()):
        for _ in range(2000):
            manager.take_back()
            if not manager.active:
                break
            if getattr(fs, "killed", False):
                raise Killed
            woken.wait(0.01)
            woken.clear()
        else:
            raise AssertionError("a pass does not end")


def ask(manager: Manager, act: str, *ids: str) -> QueueAnswer:
    """What an admin asks of qmgr, done to its end."""
    running = begin(Queue(manager), QueueRequest(n=1, act=act, ids=ids, who="root"), time.time())
    if isinstance(running, QueueAnswer):
        return running
    value = None
    while True:
        try:
            work = running.send(value)
        except StopIteration as end:
            answer: QueueAnswer = end.value
            return answer
        value = work()


def done(manager: Manager, act: str, queue_id: str) -> None:
    """The same of one message, where nothing may be in its way."""
    answer = ask(manager, act, queue_id)
    assert (answer.count, answer.error, answer.not_done) == (1, "", ()), answer


# --- the promise --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Promised:
    """What somebody relies on at some moment."""

    given: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    """(message, recipient) -> id: 250 was said."""
    held: dict[str, str] = dataclasses.field(default_factory=dict)
    """Message -> id: it is on hold, and not being released."""
    removed: dict[str, str] = dataclasses.field(default_factory=dict)
    """An admin was told that it is gone."""
    once: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    """Recorded as delivered: no second copy."""

    @classmethod
    def by(cls, log: Sequence[Call]) -> Promised:
        """What the notes say up to there."""
        promised = cls()
        for call in log:
            if call.kind == "note":
                promised._note(*call.text.split(" "))
            elif call.path.endswith(".state"):
                # From the first call for a line on, the next state may stand there.
                promised.held = {n: i for n, i in promised.held.items() if i not in call.path}
        return promised

    def _note(self, what: str, name: str, *rest: str) -> None:
        if what == "250":
            self.given[name, rest[0]] = rest[1]
        elif what == "held":
            self.held[name] = rest[0]
        elif what == "once":
            self.once.add((name, rest[0]))
        elif what == "removing":
            self.given = {key: value for key, value in self.given.items() if key[0] != name}
            self.held.pop(name, None)
        else:
            assert what == "removed", what
            self.removed[name] = rest[0]

    def notes(self) -> Iterator[str]:
        """To be noted at the beginning of the next life."""
        yield from (f"250 {name} {recipient} {i}" for (name, recipient), i in self.given.items())
        yield from (f"held {name} {i}" for name, i in self.held.items())
        yield from (f"removed {name} {i}" for name, i in self.removed.items())
        yield from (f"once {name} {recipient}" for name, recipient in self.once)

    def key(self) -> object:
        """Equal where the same is promised."""
        return tuple(self.notes())


def problems(messages: dict[str, bytes], after: Path, promised: Promised) -> list[str]:
    """Run qmgr on that disk, and compare with what was promised."""
    parts = ["spool/bad", *(f"spool/{kind}/{slot}" for kind in ("tmp", "new", "free") for slot in SLOTS)]
    gone = [part for part in parts if not (after / part).is_dir()]
    if gone:
        return [f"{part} is gone" for part in gone]
    for path in (after / "spool/tmp").glob("*/*"):
        # The machine has started anew since; it is this process' name that says so.
        path.rename(path.with_name(path.name[:-8] + "0" * 8))
    fs = ProcessFs()
    manager = run_qmgr(config(after), fs, flush=True)
    fs.end()
    # Who is told of failures gets nothing else.
    told = [path.read_bytes() for path in after.glob("mail/test.local/sender/new/*")]
    delivered = [path.read_bytes() for path in after.glob("mail/*/*/new/*") if "/sender/" not in str(path)]
    wanted = {name: message.replace(b"\r\n", b"\n") for name, message in messages.items()}
    found = [
        f"a mail in a Maildir is no message of ours, or not whole: {mail[-60:]!r}"
        for mail in delivered
        if not mail.endswith(tuple(wanted.values()))
    ]
    found += [f"a report is not whole: {report[-60:]!r}" for report in told if not whole_report(report)]
    for (name, recipient), queue_id in promised.given.items():
        if recipient == LOOP:
            # One report that was delivered twice is one.
            about = [report for report in told if whole_report(report, of=name)]
            copies = len({_ID.findall(report)[0] for report in about})
        else:
            copies = _copies(delivered, wanted[name], recipient)
        waits = recipient.endswith("@unknown.local") and manager.schedule.get(queue_id) is not None
        if not copies and not waits:
            found.append(f"250 was given for {name} to {recipient}, and it is gone, and nobody was told")
        if copies > 1 and (name, recipient) in promised.once:
            found.append(f"{name} was recorded as delivered to {recipient}, and is there {copies} times")
    for name, queue_id in promised.held.items():
        entry = manager.schedule.get(queue_id)
        if entry is None or entry.standing is not Standing.HELD:
            found.append(f"{name} was held, and is {entry and entry.standing}")
    found += [
        f"{name} was removed, and is back"
        for name, queue_id in promised.removed.items()
        if manager.schedule.get(queue_id) is not None
    ]
    found += [
        f"{path.relative_to(after)} is left"
        for part in ("tmp/*/*", "bad/*")
        for path in (after / "spool").glob(part)
    ]
    return found


def whole_report(mail: bytes, of: str = "") -> bool:
    """Is it one, to its last boundary? `of`: on that message."""
    about = f"\nSubject: {of}\n".encode() if of else b"multipart/report"
    return about in mail and _END.search(mail) is not None


def _copies(delivered: Sequence[bytes], message: bytes, recipient: str) -> int:
    head = f"Delivered-To: {recipient}\n".encode()
    return sum(1 for mail in delivered if mail.endswith(message) and head in mail)
