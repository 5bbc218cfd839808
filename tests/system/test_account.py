"""Every process is killed at random under load, then every message is accounted for.

queue.md, promise: what was answered 250 is in a mailbox, in the queue, or reported to its sender. It may be
delivered twice, where queue/FORMAT.md says so: its queue id is the same, and qmgr (or master, with all of
them) was killed after the first copy was written and before the second was.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import os
import random
import re
import signal
import smtplib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forkd.queue import stored
from forkd.queue.format import Damaged
from forkd.queue.ids import ID
from tests.support.daemon import Daemon, alive, titles
from tests.support.params import quick_first
from tests.support.people import Person
from tests.support.sinks import Sink
from tests.support.waiting import wait_for

from .conftest import STOCK, Make

SEED = int(os.environ.get("FORKD_SEED", "0")) or int(time.time())
SENDER = "back@test.local"
"""Reports come here."""

CONFIG = """
[queue]
retry_first = "2s"
retry_max = "5s"
scan_interval = "500ms"
[domain."test.local"]
[domain."stuck.local"]
transport = "stuck"
[transport.stuck]
kind = "maildir"
# Nobody can make a folder there: mail for it waits.
path = "/proc/stuck/{user}"
"""


@dataclasses.dataclass(frozen=True)
class Copy:
    """A message that came out at the other end."""

    name: str
    queue_id: str
    at: float
    """Unix time at which it was written."""


Far = Callable[[], list[Copy]]
"""What the next hop has."""


@contextlib.contextmanager
def to_maildir(daemon: Daemon) -> Iterator[tuple[str, Far]]:
    """Into mailboxes of this machine."""
    yield "", lambda: copies((daemon.var / "mail/test.local/kill/new").glob("*"))


@contextlib.contextmanager
def to_server(table: str, *arguments: str) -> Iterator[tuple[str, Far]]:
    """To Postfix' smtp-sink, which keeps each mail; `table`: how it is told where, with its {port}."""
    with Sink().start(*arguments) as sink:
        config = f'[domain."far.local"]\ntransport = "far"\n[transport.far]\n{table.format(port=sink.port)}\n'
        # What was cut off in the middle lies there too.
        yield config, lambda: copies(sink.folder.glob("mail.*"), halves=True)


def to_smtp(_: Daemon) -> contextlib.AbstractContextManager[tuple[str, Far]]:
    """Over SMTP."""
    return to_server('kind = "smtp"\nhosts = ["127.0.0.1:{port}"]\ntls = "off"')


def to_lmtp(_: Daemon) -> contextlib.AbstractContextManager[tuple[str, Far]]:
    """Over LMTP."""
    return to_server('kind = "lmtp"\naddress = "127.0.0.1:{port}"', "-L")


WAYS = {"maildir": to_maildir, "smtp": to_smtp, "lmtp": to_lmtp}
"""A transport -> what must be configured for far.local ("": nothing), and what has arrived."""


def copies(paths: Iterator[Path], *, halves: bool = False) -> list[Copy]:
    """Files of one mail each; whole ones, or the test ends here, unless there may be halves."""
    found = []
    for path in paths:
        text = path.read_bytes().decode()
        if halves and not re.search(r"\nend \S+\s*\Z", text):
            continue
        name = re.search(r"(?m)^Subject: (\S+)\r?$", text)
        queue_id = re.search(r"\bid ([0-9A-Z]{15,20})\b", text)
        assert name, text
        assert queue_id, text
        assert text.rstrip("\r\n").endswith(f"end {name[1]}"), f"not whole: {text}"
        found.append(Copy(name[1], queue_id[1], path.stat().st_mtime))
    return found


class Client(threading.Thread):
    """Sends numbered messages and notes each 250; goes on after whatever happens to a connection.

    Of ten messages seven can be delivered, two wait, one fails for good: it claims to have been delivered
    there before, a loop.
    """

    def __init__(self, daemon: Daemon, number: int, to: str) -> None:
        super().__init__()
        self._daemon, self._number, self._to = daemon, number, to
        self.over = threading.Event()
        self.taken: dict[str, str] = {}
        """Name -> what must become of it: delivered, queued, reported."""
        self.lost = 0
        self.unexpected: list[str] = []

    def run(self) -> None:
        count = 0
        while not self.over.is_set():
            try:
                with smtplib.SMTP(
                    "127.0.0.1", self._daemon.port, local_hostname="c.example", timeout=30
                ) as client:
                    for _ in range(10):
                        count += 1
                        self._send(client, f"m{self._number}-{count}", count)
            except (OSError, smtplib.SMTPException) as error:
                code = getattr(error, "smtp_code", 421)
                # 451 and 452 too: a plugin's process, or whoever counts, has just been killed.
                if code not in (421, 450, 451, 452, -1):
                    self.unexpected.append(repr(error))
                self.lost += 1
                self.over.wait(0.02)

    def _send(self, client: smtplib.SMTP, name: str, count: int) -> None:
        kind, to, head = "delivered", self._to, ""
        if count % 10 in (3, 7):
            kind, to = "queued", "user@stuck.local"
        elif count % 10 == 5:
            kind, to, head = "reported", "loop@test.local", "Delivered-To: loop@test.local\r\n"
        # Some are too large for memory.
        filler = "0123456789abcde\r\n" * (6000 if count % 13 == 4 else 10)
        client.sendmail(SENDER, [to], f"Subject: {name}\r\n{head}\r\n{filler}end {name}\r\n")
        self.taken[name] = kind


@dataclasses.dataclass
class Killer:
    """Kills one process after the other; master too, and starts it again."""

    daemon: Daemon
    rng: random.Random
    killed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    at: list[tuple[float, str]] = dataclasses.field(default_factory=list)
    """When whom, Unix time."""
    log: str = ""
    """Of all the masters before."""

    def one(self) -> None:
        """Somebody below master, by role first: there are many sandboxes and one qmgr."""
        by_role: dict[str, list[int]] = {}
        for pid, title in sorted(titles(self.daemon.pids()).items()):
            if title.startswith("forkd: "):
                by_role.setdefault(re.split(r"[ .]", title.removeprefix("forkd: "))[0], []).append(pid)
        if by_role:
            # Nobody is to be spared by chance.
            fewest = min(self.killed[role] for role in by_role)
            roles = sorted(role for role in by_role if self.killed[role] == fewest or self.rng.random() < 0.3)
            role = self.rng.choice(roles)
            self._kill(self.rng.choice(by_role[role]), role)

    def master(self) -> None:
        """All others end with it; then it is started again, as systemd would."""
        process = self.daemon.process
        assert process is not None
        below = self.daemon.pids()
        self._kill(process.pid, "master")
        process.wait(30)
        wait_for(lambda: not any(alive(pid) for pid in below), timeout_s=30)
        self.log += self.daemon.log_text()
        self.daemon.start()

    def _kill(self, pid: int, role: str) -> None:
        self.at.append((time.time(), role))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed[role] += 1


def queued(daemon: Daemon) -> dict[str, str]:
    """Name -> id of what lies in the spool."""
    found = {}
    for path in (daemon.var / "spool/new").glob("*/*"):
        if ID.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # delivered meanwhile
                try:
                    message = stored.load(str(path), path.name)
                except Damaged:
                    if path.exists():
                        raise
                    continue  # the same: a worker writes its next message into that file
                name = re.search(rb"(?m)^Subject: (\S+)\r$", b"".join(message.chunks()))
                if name and message.envelope.sender:
                    found[name[1].decode()] = path.name
    return found


def reported(daemon: Daemon) -> collections.Counter[str]:
    """Names of what the sender was told of."""
    texts = [path.read_text() for path in (daemon.var / "mail/test.local/back/new").glob("*")]
    return collections.Counter(
        name for text in texts for name in set(re.findall(r"(?m)^Subject: (m\d+-\d+)$", text))
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("way", quick_first(reversed(WAYS)))
def test_everything_that_had_250_is_accounted_for(
    make_daemon: Make, who: Person, way: str, seconds: int
) -> None:
    """In a mailbox, in the queue, or reported; what is there twice is explained."""
    print(f"seed {SEED} (FORKD_SEED={SEED} repeats the choice of whom to kill)")
    daemon = make_daemon(plugins=STOCK, config=CONFIG, start=False)
    with WAYS[way](daemon) as (config, far):
        if config:
            daemon.config += config
            daemon.write_config()
        account(daemon.start(), far, "user@far.local" if config else "kill@test.local", seconds)


def account(daemon: Daemon, far: Far, to: str, seconds: int) -> None:
    """Load and kills for so long; then everything is counted."""
    killer = Killer(daemon, random.Random(SEED))
    clients = [Client(daemon, number, to) for number in range(6)]
    for client in clients:
        client.start()
    # The pace of the killing is the test's subject.
    end, masters = time.monotonic() + seconds, [time.monotonic() + seconds * part for part in (0.35, 0.7)]
    pace = threading.Event()
    while time.monotonic() < end:
        pace.wait(killer.rng.uniform(0.1, 0.6))
        if masters and time.monotonic() >= masters[0]:
            masters.pop(0)
            killer.master()
        else:
            killer.one()
    for client in clients:
        client.over.set()
    for client in clients:
        client.join(60)
    taken = {name: kind for client in clients for name, kind in client.taken.items()}
    wanted = {name for name, kind in taken.items() if kind == "delivered"}

    def settled() -> bool:
        """Nothing is under way: no mail that can be delivered, and no report (which has no name there)."""
        waiting, there = queued(daemon), {copy.name for copy in far()}
        if wanted - there or any(taken.get(name) == "delivered" for name in waiting):
            return False
        return taken.keys() <= waiting.keys() | there | reported(daemon).keys()

    with contextlib.suppress(AssertionError):  # the account says more
        wait_for(settled, timeout_s=90)
    waiting, told, there = queued(daemon), reported(daemon), far()
    count = collections.Counter(copy.name for copy in there)
    lost = [name for name in taken if not (count[name] or name in waiting or told[name])]
    twice = {name: [copy for copy in there if copy.name == name] for name in count if count[name] > 1}
    print(
        f"killed {dict(killer.killed)}; {len(taken)} x 250, {sum(c.lost for c in clients)} connections lost:"
        f" {len(wanted & set(count))} delivered, {len(taken.keys() & waiting.keys())} in the queue,"
        f" {len(taken.keys() & told.keys())} reported; {len(twice)} delivered twice; lost: {lost}"
    )
    assert not [error for client in clients for error in client.unexpected]
    assert len(taken) > 20 * seconds / 10
    assert len(killer.killed) >= 4
    assert not lost
    assert wanted <= set(count), sorted(wanted - set(count))[:10]
    for name, found in twice.items():
        assert len({copy.queue_id for copy in found}) == 1, f"{name} was committed twice"
        times = sorted(copy.at for copy in found)
        for first, second in itertools.pairwise(times):
            assert [
                who
                for at, who in killer.at
                if first - 0.1 <= at <= second + 0.1 and who in ("qmgr", "master")
            ], f"{name}: nobody was killed between {first} and {second}"
    unexplained = [line for line in (killer.log + daemon.log_text()).splitlines() if '"event": "bug"' in line]
    assert not unexplained
