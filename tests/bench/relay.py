"""How fast does mail leave for a next hop? forkd beside Postfix, from a full queue to one smtp-sink.

    .venv/bin/python -m tests.bench.relay                              # 1 and 20 connections: two minutes
    .venv/bin/python -m tests.bench.relay --messages 200 --repeats 1   # does it work here?

Both have all the messages in their queue, one recipient each, before they are started: forkd's spool is
filled by its own commit, Postfix' `incoming` by itself, started without its qmgr. Then each is started
beside an empty sink. The clock runs from the first message that the sink has to the last one, so neither
start-up nor receiving counts; CPU is the whole tree's in that time, and until it is at rest.

Both are on their defaults but for how many connections there are at most. Both keep connections open for
more mail; both open with five and have more as these succeed. Both sync what they must: forkd's commit and
Postfix' queue file were synced before, the removal is not, by either.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.bench.forkd import Forkd
from tests.bench.machine import NOT_IDLE, Watch, describe
from tests.bench.peers.postfix import Postfix
from tests.bench.peers.sink import SmtpSink
from tests.bench.process import adopt_orphans
from tests.bench.report import spread, table
from tests.bench.servers import Missing, Server, program
from tests.support.spooling import a_spool, queued

CONNECTIONS: Final = (1, 20)
OCTETS: Final = 4096
LIMIT_S: Final = 300.0
_COUNTED: Final = re.compile(rb"mesg=(\d+)")


class CountingSink(SmtpSink):
    """smtp-sink, which says at each message how many it has had."""

    def __init__(self, folder: Path, wanted: int) -> None:
        super().__init__(folder)
        self.first = threading.Event()
        self.done = threading.Event()
        self.had = 0
        self.first_at = self.last_at = 0.0
        self._wanted = wanted

    def launch(self) -> None:
        """Its standard output is read here, and not kept."""
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        read_end, write_end = os.pipe()
        self.running.start(
            "/bin/sh", "-c", f'exec "$@" >/proc/{os.getpid()}/fd/{write_end}', "sh",
            program("smtp-sink"), *user, "-c", f"127.0.0.1:{self.port}", "4096",
        )  # fmt: skip
        threading.Thread(target=self._read, args=(read_end,), daemon=True).start()
        self._write_end = write_end

    def _read(self, read_end: int) -> None:
        with open(read_end, "rb", buffering=0) as counters:
            while octets := counters.read(65_536):
                now = time.perf_counter()
                had = max((int(count) for count in _COUNTED.findall(octets)), default=0)
                if had and not self.had:
                    self.first_at = now
                    self.first.set()
                self.had = max(self.had, had)
                if self.had >= self._wanted and not self.done.is_set():
                    self.last_at = now
                    self.done.set()


class Relay(Server):
    """One that has its queue full, and empties it into a sink.

    fill()  puts the messages there; start() follows, and delivers
    """

    sink_port = 0
    connections = 1

    def fill(self, count: int) -> None:
        """So many messages, each with a recipient of its own. Raises Missing."""
        raise NotImplementedError


class ForkdRelay(Relay, Forkd):
    """kind = "smtp", to a fixed host."""

    name = "forkd"

    def config(self) -> str:
        head = super().config().partition("[domain.")[0]
        return f"""{head}
[queue]
concurrency = {self.connections}

[domain."test.local"]
transport = "next"

[transport.next]
kind = "smtp"
hosts = ["127.0.0.1:{self.sink_port}"]
connections = {self.connections}
"""

    def fill(self, count: int) -> None:
        self.start()  # makes its folders, as their owners want them
        self.stop()
        root = self.folder / "var" / "spool"
        owner = (root / "new" / "w0").stat()
        spool = a_spool(root, durable=False)
        now = time.time()
        for number in range(count):
            queued(spool, f"u{number}@test.local", message=a_message(), received_at=now)
        for path in (root / "new" / "w0").iterdir():
            os.chown(path, owner.st_uid, owner.st_gid)
        os.sync()


class PostfixRelay(Relay, Postfix):
    """relayhost, and no more smtp processes than connections."""

    name = "Postfix"
    options = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._filled = False

    def launch(self) -> None:
        if not self._filled:
            super().launch()
            return
        etc = self.folder / "etc"
        asked = [str(program("postconf")), "-dh", "daemon_directory"]
        daemons = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        self.running.start(Path(daemons, "master"), "-c", etc, "-d", environment=self.environment)

    def beside(self) -> None:
        """Without a qmgr: what comes in stays in `incoming`."""
        etc = self.folder / "etc"
        with (etc / "main.cf").open("a") as file:
            file.write(
                f"relay_transport = smtp:[127.0.0.1]:{self.sink_port}\n"
                f"default_destination_concurrency_limit = {self.connections}\n"
                f"smtp_host_lookup = native\nsmtp_dns_support_level = disabled\nlmtp_assume_final = no\n"
            )
        lines = (etc / "master.cf").read_text().splitlines(keepends=True)
        (etc / "master.cf.full").write_text(
            "".join(
                line.replace("-       smtp\n", f"{self.connections}       smtp\n")
                if line.startswith("smtp ")
                else line
                for line in lines
            )
        )
        (etc / "master.cf").write_text("".join(line for line in lines if not line.startswith("qmgr ")))

    def fill(self, count: int) -> None:
        self.start()
        command = [program("smtp-source"), "-N", "-s", "20", "-l", str(OCTETS), "-m", str(count)]
        command += ["-f", "a@b.c", "-t", "u@test.local", f"inet:127.0.0.1:{self.port}"]
        subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=LIMIT_S)
        self.stop()
        (self.folder / "etc" / "master.cf.full").replace(self.folder / "etc" / "master.cf")
        self._filled = True


def a_message() -> bytes:
    """As large as smtp-source's."""
    head = b"Subject: a message\r\n\r\n"
    return (head + (b"x" * 78 + b"\r\n") * (OCTETS // 80 + 1))[: OCTETS - 2] + b"\r\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Emptied:
    """One queue, emptied. Rate in messages per second, cost in CPU seconds per 1,000 messages."""

    server: str
    connections: int
    rate: float
    cpu: float
    others: float
    problem: str = ""


def empty(kind: type[Relay], folder: Path, connections: int, count: int) -> Emptied:
    """Fill, start, and wait for the last one. Raises Missing, RuntimeError."""
    sink = CountingSink(folder / "sink", count)
    server = kind(folder / "server")
    server.connections = connections
    server.sink_port = sink.port
    problem, rate, cpu, others = "", float("nan"), float("nan"), 0.0
    try:
        server.fill(count)
        sink.start()
        watch = Watch(process.pid for process in sink.running.roots)
        server.launch()
        if sink.first.wait(LIMIT_S):
            before = server.running.cpu_s()
            if sink.done.wait(LIMIT_S):
                others = watch.share()
                rate = (count - 1) / (sink.last_at - sink.first_at)
                server.running.settle()
                cpu = (server.running.cpu_s() - before) / count * 1000
        if not sink.done.is_set():
            problem = f"{sink.had} of {count} messages in {LIMIT_S:.0f} s"
        elif sink.had != count or server.left():
            problem = f"the sink has {sink.had} of {count} messages, {server.left()} are left"
    finally:
        server.stop()
        sink.stop()
    return Emptied(kind.name, connections, rate, cpu, others, problem)


def paper(runs: Sequence[Emptied]) -> str:
    """One row for each number of connections."""
    rows = []
    for connections in dict.fromkeys(run.connections for run in runs):
        ours, theirs = (
            [run for run in runs if (run.connections, run.server) == (connections, name) and not run.problem]
            for name in (ForkdRelay.name, PostfixRelay.name)
        )
        cells = [str(connections)]
        for key, digits in (("rate", 0), ("cpu", 3)):
            mine, other = ([getattr(run, key) for run in some] for some in (ours, theirs))
            cells += [spread(mine, digits), spread(other, digits)]
            if mine and other:
                ratio = statistics.median(mine) / statistics.median(other)
                cells.append(f"{ratio if key == 'rate' else 1 / ratio:.2f}")
            else:
                cells.append("–")
        rows.append(cells)
    head = ("connections", "forkd /s", "Postfix /s", "ratio", "forkd CPU", "Postfix CPU", "ratio")
    lines = [table(head, rows)]
    lines += [f"- {run.server}, {run.connections} connections: {run.problem}" for run in runs if run.problem]
    worst = max((run.others for run in runs), default=0.0)
    state = "**not idle**" if worst > NOT_IDLE else "idle"
    lines.append(f"- {describe()}; {PostfixRelay.version()}; {state}: others used {worst:.0%} at most")
    return "\n".join(lines)


def runs(messages: int, repeats: int, where: str) -> Iterator[Emptied]:
    """Interleaved, each time another one first."""
    for repeat in range(repeats):
        for connections in CONNECTIONS:
            kinds: list[type[Relay]] = [ForkdRelay, PostfixRelay]
            for kind in kinds if repeat % 2 == 0 else reversed(kinds):
                folder = Path(tempfile.mkdtemp(prefix="relay-", dir=where))
                folder.chmod(0o755)
                try:
                    found = empty(kind, folder, connections, messages)
                    print(found, file=sys.stderr, flush=True)
                    yield found
                finally:
                    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """The table, to standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp", help="where queues lie: on the disk that is measured")
    chosen = parser.parse_args()
    adopt_orphans()
    try:
        print(paper([*runs(chosen.messages, chosen.repeats, chosen.dir)]))
    except (Missing, RuntimeError, OSError, subprocess.SubprocessError) as why:
        sys.exit(f"cannot be measured here: {why}")


if __name__ == "__main__":
    main()
