"""Promise of the queue while the disk refuses: every call fails once, with each error that it may have.

One life of worker and qmgr, played once for every call that it makes; and once more with that call and all
after it failing, as on a disk that is full or dying. Then the disk is well again, and service must go on
in the same processes: what had 250 arrives, what had none is not half there, what an admin was told is so.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd import log
from forkd.fs import FULL
from forkd.qmgr.manager import Manager
from forkd.qmgr.schedule import Standing
from forkd.queue.commit import commit
from forkd.queue.spool import BUFFER_BYTES, Spool, SpoolError, SpoolFull
from tests.support.crash_story import LOOP, SENDER, SLOTS, ask, body, config, whole_report, work_off
from tests.support.failing_fs import REFUSES, FailingFs
from tests.support.params import quick_first
from tests.support.spooling import an_envelope

MEMORY = Path("/dev/shm")
BOTH = ("a@test.local", "b@unknown.local")
"""The second one waits for ever: nobody delivers there."""


class Life:
    """Worker and qmgr in one process, and what each of them said."""

    def __init__(self, fs: FailingFs, data: Path) -> None:
        self.fs = fs
        self.data = data
        Spool.prepare(data / "spool", SLOTS)
        self.spool = Spool(data / "spool", "w0", fs=fs)
        self.messages: dict[str, bytes] = {}
        self.taken: dict[tuple[str, str], str] = {}
        """(message, recipient) -> id: 250 was said."""
        self.wrong: list[str] = []
        self.restarts = 0
        self.told: dict[str, str] = {}
        """Id -> the last act that was answered with success."""
        self._woken = threading.Event()
        self.manager = self._qmgr()

    def _qmgr(self) -> Manager:
        """Started anew as often as its recovery fails, as master does; without it, when that never ends."""
        for _ in range(3):
            manager = Manager(config(self.data), f"{self.data}/spool", self._woken.set, fs=self.fs)
            try:
                manager.intake.recover()
            except OSError:
                self.restarts += 1
            else:
                break
        return manager

    def receive(self, *names: str, to: tuple[str, ...] = ("a@test.local",)) -> None:
        """One batch; a refusal must be of the right kind, and leaves nothing."""
        batch, batched = [], []
        for name in names:
            message = body(name) + (b"x" * 998 + b"\r\n") * (
                BUFFER_BYTES // 500 if name.startswith("large") else 0
            )
            if LOOP in to:
                message = f"Delivered-To: {LOOP}\r\n".encode() + message
            self.messages[name] = message
            file = self.spool.begin()
            try:
                for at in range(0, len(message), 50_000):
                    file.write(message[at : at + 50_000])
            except SpoolError as error:
                self._refused(error)
                continue
            file.find_file()
            batch.append((file, an_envelope(*to, session=name, sender=SENDER, received_at=time.time())))
            batched.append(name)
        for name, result in zip(batched, commit(self.spool, batch), strict=True):
            if isinstance(result, SpoolError):
                self._refused(result)
            else:
                self.taken.update({(name, recipient): result for recipient in to})

    def _refused(self, error: SpoolError) -> None:
        if isinstance(error, SpoolFull) != (self.fs.error in FULL):
            self.wrong.append(f"{errno.errorcode[self.fs.error]} became {error!r}")

    def admin(self, act: str, name: str) -> None:
        """An admin's command, where the message is there; its answer is remembered."""
        queue_id = self.taken.get((name, BOTH[1]), "")
        if (
            queue_id
            and self.manager.schedule.get(queue_id) is not None
            and ask(self.manager, act, queue_id).count
        ):
            self.told[queue_id] = act

    def deliver(self) -> None:
        """What a poke, the walk and the clock bring."""
        with contextlib.suppress(OSError):
            while not self.manager.intake.walk(100, time.time()):
                pass
        work_off(self.manager, self._woken, self.fs)

    def play(self) -> None:
        """All there is: small, large, together, emptied files again; outcomes; an admin's acts."""
        self.receive("one", "large", "two")
        self.receive("kept", "gone", "freed", to=BOTH)
        self.receive("told", to=(LOOP,))
        self.deliver()
        self.admin("hold", "kept")
        self.admin("hold", "freed")
        self.admin("release", "freed")
        self.admin("remove", "gone")
        self.deliver()
        for name in ("next", "more", "last"):
            self.spool.pool._looked_at = -1.0
            self.receive(name)
        self.deliver()

    def recover(self) -> None:
        """The disk is well: the same processes go on."""
        self.fs.at = 0
        if self.restarts >= 3:
            self.manager = self._qmgr()
        self.receive("after")
        self.deliver()
        ask(self.manager, "flush")
        self.deliver()
        self.manager.stop_starting()
        self.manager.close(0)
        # The directory, of the worker and of who writes reports, is kept open.
        kept = tuple(f"/new/{slot}" for slot in SLOTS)
        self.wrong += [f"left open: {path}" for path in self.fs.end() if not path.endswith(kept)]

    def _half_published(self) -> bool:
        """FORMAT.md, duplicates: the mailbox' directory was not synced, and the name not taken back."""
        syncs = any(call.startswith(("sync_dir", "open_dir")) and "/mail/" in call for call in self.fs.failed)
        return syncs and any(call.startswith("unlink") and "/mail/" in call for call in self.fs.failed)

    def problems(self) -> list[str]:
        """What is not as it was said."""
        found, get = list(self.wrong), self.manager.schedule.get
        told = [path.read_bytes() for path in self.data.glob("mail/test.local/sender/new/*")]
        mails = [path.read_bytes() for path in self.data.glob("mail/test.local/a/new/*")]
        wanted = {name: message.replace(b"\r\n", b"\n") for name, message in self.messages.items()}
        found += [f"not whole: {mail[-60:]!r}" for mail in mails if not mail.endswith(tuple(wanted.values()))]
        for (name, recipient), queue_id in self.taken.items():
            if recipient == LOOP:
                if not any(whole_report(report, of=name) for report in told):
                    found.append(f"{name} failed, and nobody was told")
                continue
            removed = self.told.get(queue_id) == "remove"
            if recipient == BOTH[1]:
                if (get(queue_id) is None) != removed:
                    found.append(f"{name} was {'removed, and is there' if removed else '250, and is gone'}")
                continue
            copies = sum(1 for mail in mails if mail.endswith(wanted[name]))
            stays = removed or self.told.get(queue_id) == "hold"
            if copies != 1 and not (stays and not copies) and not (copies == 2 and self._half_published()):
                found.append(f"{name} is there {copies} times")
        for queue_id, act in self.told.items():
            entry = get(queue_id)
            if act in ("hold", "release") and (
                entry is None or (entry.standing is Standing.HELD) != (act == "hold")
            ):
                found.append(f"{act} was said, and it is {entry and entry.standing}")
        if ("after", "a@test.local") not in self.taken:
            found.append("no mail is taken afterwards")
        left = [path.name for path in (self.data / "spool/tmp/w0").iterdir()]
        if left and not any(call.startswith("unlink") for call in self.fs.failed):
            found.append(f"left in tmp/: {left}")
        found += [f"in bad/: {path.name}" for path in (self.data / "spool/bad").iterdir()]
        return found


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is a place for it: hundreds of small disks."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="forkd-crash-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Path]:
    """What the log says meanwhile."""
    path = tmp_path / "log"
    log.setup("json", "info", os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    yield path
    log.setup("json", "error", os.open(os.devnull, os.O_WRONLY))


@pytest.mark.parametrize("on", [False, True], ids=["one call", "from one on"])
@pytest.mark.parametrize("error", quick_first(reversed(REFUSES)), ids=lambda number: errno.errorcode[number])
def test_whichever_call_fails_no_promise_is_broken(error: int, on: bool, disks: Path, said: Path) -> None:
    """For each call in turn; no bug is logged and no descriptor is left open."""
    whole = Life(FailingFs(error), disks / "whole")
    whole.play()
    calls = whole.fs.calls
    whole.recover()
    assert whole.problems() == []
    assert calls > 30
    broken = []
    for at in range(1, calls + 1):
        data = disks / f"disk-{at}"
        life = Life(FailingFs(error), data)
        # What the start has called is not to fail: another test's subject.
        life.fs.calls, life.fs.at, life.fs.on = 0, at, on
        life.play()
        life.recover()
        broken += [f"{at} ({life.fs.failed[:1]}): {problem}" for problem in life.problems()]
        shutil.rmtree(data)
        log.flush()
        bugs = [line for line in said.read_text().splitlines() if json.loads(line)["event"] == "bug"]
        if bugs or len(broken) > 5:
            break
    assert (broken, bugs) == ([], [])


def test_a_full_disk_does_not_make_us_ask_more_often(disks: Path) -> None:
    """What was deferred, and could not be recorded, is due when it would be; what was delivered, soon."""
    life = Life(FailingFs(errno.ENOSPC), disks / "disk")
    life.receive("waits", to=(BOTH[1],))
    life.receive("half", to=BOTH)
    life.fs.only, life.fs.at, life.fs.on = ".state", 1, True
    began = time.time()
    life.deliver()
    waits, half = (life.manager.schedule.get(life.taken[name, BOTH[1]]) for name in ("waits", "half"))
    assert waits is not None
    assert half is not None
    assert waits.due > began + 200
    assert half.due < began + 100
    life.recover()
    assert life.problems() == []
