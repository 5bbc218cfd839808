"""forkd beside its peers, in one run. README.md in this folder says what is measured and how to read it.

python -m tests.bench [A B C D] [--repeats 5] [--secs 1.2] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench import faults, load, machine, report
from tests.bench.postfix import Postfix, PostfixChecks, PostfixQueue
from tests.bench.process import adopt_orphans
from tests.bench.servers import (
    Aiosmtpd,
    AiosmtpdChecks,
    AiosmtpdDurable,
    Forkd,
    ForkdChecks,
    ForkdDurable,
    ForkdFaults,
    Missing,
    Server,
    SmtpSink,
    program,
)

SERVERS: Final[dict[str, tuple[type[Server], ...]]] = {
    "A": (Forkd, SmtpSink, Aiosmtpd, Postfix),
    "B": (ForkdDurable, AiosmtpdDurable, PostfixQueue),
    "C": (ForkdChecks, AiosmtpdChecks, PostfixChecks),
    "D": (ForkdFaults, AiosmtpdChecks, PostfixChecks),
}
TITLES: Final = {
    "A": "accept and discard",
    "B": "durable: 250 only after the disk has it",
    "C": "three checks, at MAIL, RCPT and end of data, the last one reading the message; durable",
    "D": "one plugin misbehaves while 20 other sessions deliver",
}
FAULTS: Final = {
    ForkdFaults: ("none", "abort", "exit", "raise", "segv", "memory", "sleep", "spin", "cspin"),
    AiosmtpdChecks: ("none", "abort", "exit", "raise", "segv", "sleep", "spin"),
    PostfixChecks: ("none", "abort", "exit", "raise", "segv", "sleep", "spin", "pabort", "psleep", "pspin"),
}
LATENCY_MESSAGES: Final = 200
FAULT_WINDOW_S: Final = 4.0


class Bench:
    """One run of the harness: its arguments, its folder, what it found."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.folder = folder
        self.shares: list[float] = []

    def note(self, kind: str, workload: str, value: Any) -> None:
        """One line of --json; also remembers how idle the machine was."""
        self.shares.append(getattr(value, "others", 0.0))
        if self.arguments.json:
            record = {"kind": kind, "workload": workload, "at": time.time(), **dataclasses.asdict(value)}
            with self.arguments.json.open("a") as file:
                file.write(json.dumps(record) + "\n")

    @contextlib.contextmanager
    def servers(self, workload: str) -> Iterator[list[Server]]:
        """The servers of a workload, started; what is missing here is named and left out."""
        started: list[Server] = []
        try:
            for number, kind in enumerate(self.chosen(workload)):
                try:
                    server = kind(self.folder / f"{workload}{number}-{kind.__name__}")
                    server.start()
                except (Missing, RuntimeError) as why:
                    say(f"skipped: {kind.name}: {why}")
                    continue
                started.append(server)
            yield started
        finally:
            for server in started:
                stop(server)

    def chosen(self, workload: str) -> Sequence[type[Server]]:
        """Those of --only, by any part of a name."""
        words = [word.lower() for word in self.arguments.only]
        return [k for k in SERVERS[workload] if not words or any(w in k.name.lower() for w in words)]

    def throughput(self, workload: str) -> str:
        """Workloads A to C: interleaved by repeat and column, so that drifting hits all servers alike."""
        ours = SERVERS[workload][0].name
        cells = [cell for cell in load.CELLS if workload != "C" or cell.sessions <= 20]
        if self.arguments.quick:
            cells = [load.Cell(20, 4096)]
        runs: list[load.Run] = []
        waits: list[load.Latency] = []
        with self.servers(workload) as servers:
            counts: dict[tuple[str, load.Cell], int] = {}
            for cell in cells:
                for server in servers:
                    count, problem = load.calibrate(server, cell, self.arguments.secs)
                    if problem:
                        say(f"left out: {server.name}, {cell}: {problem}")
                    counts[server.name, cell] = count
            for repeat in range(self.arguments.repeats):
                say(f"{workload}: repeat {repeat + 1} of {self.arguments.repeats}")
                turned = (
                    servers[repeat % len(servers) :] + servers[: repeat % len(servers)] if servers else []
                )
                for cell in cells:
                    for server in turned:
                        if count := counts[server.name, cell]:
                            runs.append(load.throughput(server, cell, count))
                            self.note("throughput", workload, runs[-1])
                for server in turned:
                    waits.append(load.latency(server, LATENCY_MESSAGES))
                    self.note("latency", workload, waits[-1])
            accounts = "\n".join(account(server) for server in servers)
        order = [kind.name for kind in SERVERS[workload]]
        runs.sort(key=lambda run: order.index(run.server))
        waits.sort(key=lambda wait: order.index(wait.server))
        return "\n\n".join((report.throughput(runs, ours), report.latency(waits), accounts))

    def faults(self, workload: str) -> str:
        """Workload D. A peer is started anew for each fault, since it may not survive the last one."""
        trips: list[faults.Trip] = []
        kills: list[faults.Kill] = []
        repeats = self.arguments.fault_repeats
        for number, kind in enumerate(self.chosen(workload)):
            is_forkd = kind is ForkdFaults
            server: Server | None = None
            for fault in FAULTS[kind] if not self.arguments.quick else FAULTS[kind][:2]:
                for count in (1,) if fault == "none" else (1, self.arguments.trips):
                    for repeat in range(repeats if is_forkd else 1):
                        if server is None:
                            server = self.start_one(kind, f"D{number}-{fault}-{count}-{repeat}")
                        if server is None:
                            break
                        trips.append(faults.trip(server, fault, count, window_s=FAULT_WINDOW_S))
                        say(f"D: {kind.name}: {fault} × {count}: {trips[-1].failed} failed, "
                            f"{trips[-1].stalled} stalled")  # fmt: skip
                        self.note("fault", workload, trips[-1])
                        if not is_forkd:
                            stop(server)
                            server = None
            if isinstance(server, ForkdFaults):
                server.running.settle()
                for fault in ("spin", "cspin"):
                    for count in (1, self.arguments.trips):
                        for _ in range(self.arguments.repeats):
                            kills.append(faults.kill_time(server, fault, count))
                            self.note("kill", workload, kills[-1])
                            server.running.settle()
            if server is not None:
                stop(server)
        return report.faults(trips) + "\n\n" + report.kills(kills)

    def start_one(self, kind: type[Server], name: str) -> Server | None:
        """A fresh server, or None and a line that says why not."""
        try:
            server = kind(self.folder / name)
            server.start()
        except (Missing, RuntimeError) as why:
            say(f"skipped: {kind.name}: {why}")
            return None
        return server


def account(server: Server) -> str:
    """Was every message that got 250 counted by the server, and is none left over?"""
    counted, left = server.counted(), server.left()
    parts = [f"{server.sent} answered 250"]
    if counted is not None:
        parts.append(
            f"{counted} counted by the server" + ("" if counted == server.sent else " (**differs**)")
        )
    if left is not None:
        parts.append(f"{left} left in its queue")
    return f"- {server.name}: " + ", ".join(parts)


def stop(server: Server) -> None:
    """End a server; one that had to be killed is told."""
    killed = server.stop()
    if killed:
        say(f"{server.name}: {len(killed)} processes had to be killed")
    shutil.rmtree(server.folder, ignore_errors=True)


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="A|B|C|D", help="default: all")
    parser.add_argument("--repeats", type=int, default=5, help="counted runs of each server and column")
    parser.add_argument("--secs", type=float, default=1.2, help="length of a run, about")
    parser.add_argument("--json", type=Path, help="append every single measurement to this file")
    parser.add_argument("--trips", type=int, default=16, help="D: offenders at once, beside one alone")
    parser.add_argument("--fault-repeats", type=int, default=2, help="D: how often forkd meets each fault")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="servers, by part of a name")
    parser.add_argument("--quick", action="store_true", help="one column, two faults: does it all work?")
    parser.add_argument("--dir", type=Path, help="where queues lie; on the disk that is to be measured")
    found = parser.parse_args(arguments)
    unknown = [word for word in found.workloads if word not in SERVERS]
    if unknown:
        parser.error(f"there are the workloads {' '.join(SERVERS)}, not {' '.join(unknown)}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print Markdown on standard output, progress on standard error."""
    chosen = parse(arguments)
    try:
        program("smtp-source")
    except Missing as why:
        say(f"{why}: it makes the load (Debian: postfix)")
        return 2
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="forkd-bench-", dir=chosen.dir))
    folder.chmod(0o755)
    bench = Bench(chosen, folder)
    began = time.monotonic()
    try:
        print(f"- {time.strftime('%Y-%m-%d %H:%M %Z')}, {machine.describe()}")
        versions = {kind.version() for kinds in SERVERS.values() for kind in kinds} - {""}
        print(f"- {', '.join(sorted(versions))}")
        print(
            f"- `python -m tests.bench {' '.join(sys.argv[1:] if arguments is None else arguments)}`",
            flush=True,
        )
        for workload in chosen.workloads or SERVERS:
            print(f"\n### {workload}. {TITLES[workload]}\n", flush=True)
            before = len(bench.shares)
            print(bench.faults(workload) if workload == "D" else bench.throughput(workload))
            print("\n" + report.idleness(bench.shares[before:]), flush=True)
        say(f"took {time.monotonic() - began:.0f} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
