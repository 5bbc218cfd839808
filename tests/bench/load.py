"""How fast is a server, what does a message cost it, how long does one take?"""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import time
from typing import Final

from tests.bench import client
from tests.bench.machine import Watch
from tests.bench.servers import Server, program

LIMIT_S: Final = 60.0
"""A run that takes longer is given up."""
LARGEST_RUN: Final = 40_000
"""Messages; keeps smtp-sink's runs within the local ports (60 s in TIME_WAIT for each connection)."""
FEWEST: Final = 10
"""Messages in a run; one at a time some servers take 200 ms for each."""
LATENCY_WARM: Final = 10
LATENCY_LIMIT_S: Final = 2.0
"""A slow server is not asked for all the messages."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One column of a table. `many`: all messages of a session over one connection."""

    sessions: int
    size: int
    many: bool = False

    def __str__(self) -> str:
        size = f", {self.size >> 10} KiB" if self.size > 4096 else ""
        return f"S={self.sessions}{', many per connection' if self.many else ''}{size}"


MAIN: Final = Cell(20, 4096)
MANY: Final = Cell(20, 4096, many=True)
LARGE: Final = Cell(20, 102_400)
CELLS: Final = (Cell(1, 4096), MAIN, Cell(100, 4096), MANY, LARGE)
WATCHED: Final = (MAIN, MANY)
GROWTH: Final = (Cell(1, 4096), MAIN, Cell(100, 4096), Cell(500, 4096))


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One counted run. Rates in messages per second, costs in CPU seconds per 1,000 messages.

    sessions  fewer than the cell's where the server takes no more
    problem   empty when every message got its 250
    quiet     the server came to rest afterwards, so all its work is in `cpu`
    others    share of the machine that others used meanwhile
    """

    server: str
    cell: str
    sessions: int
    messages: int
    seconds: float
    rate: float
    cpu: float
    client_cpu: float
    quiet: bool
    others: float
    problem: str = ""


def throughput(server: Server, cell: Cell, messages: int, *, limit_s: float = LIMIT_S) -> Run:
    """Send `messages` with smtp-source; the clock stops with the last reply, the CPU count when quiet."""
    sessions = min(cell.sessions, server.most_sessions or cell.sessions)
    command = [str(program("smtp-source")), "-s", str(sessions), "-l", str(cell.size), "-m", str(messages)]
    command += ["-f", "a@b.c", "-t", "rcpt@test.local", *(["-d"] if cell.many else [])]
    watch = Watch(process.pid for process in server.running.roots)
    cpu = server.running.cpu_s()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    problem = ""
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, f"inet:127.0.0.1:{server.port}"], capture_output=True, timeout=limit_s, check=False
        )
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.returncode}"]
            problem = lines[-1][-200:]
    except subprocess.TimeoutExpired:
        problem = f"not done within {limit_s:.0f} s"
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    others = watch.share()
    quiet = server.running.settle()
    if not problem:
        server.sent += messages
    spent = used.ru_utime + used.ru_stime - usage.ru_utime - usage.ru_stime
    return Run(
        server=server.name,
        cell=str(cell),
        sessions=sessions,
        messages=messages,
        seconds=seconds,
        rate=messages / seconds,
        cpu=(server.running.cpu_s() - cpu) / messages * 1000,
        client_cpu=spent / messages * 1000,
        quiet=quiet,
        others=others,
        problem=problem,
    )


def calibrate(server: Server, cell: Cell, seconds: float) -> tuple[int, str]:
    """How many messages take about `seconds`? Also the warm-up: these runs are not counted."""
    messages = max(FEWEST, 2 * cell.sessions)
    while True:
        run = throughput(server, cell, messages)
        if run.problem:
            return 0, run.problem
        wanted = int(min(LARGEST_RUN, max(FEWEST, cell.sessions, run.rate * seconds)))
        if wanted <= 6 * messages:
            return wanted, ""
        messages = min(wanted, 30 * messages)


@dataclasses.dataclass(frozen=True, slots=True)
class Latency:
    """One session at a time, one message each. Milliseconds, from connect to the 250 behind the dot."""

    server: str
    median: float
    p99: float
    lowest: float
    highest: float
    others: float
    problem: str = ""


def latency(server: Server, messages: int, *, size: int = 4096) -> Latency:
    """Measure `messages` of them, some before that uncounted."""
    content = client.message(size)
    taken: list[float] = []
    problems: list[str] = []

    def session() -> client.Script:
        try:
            started = client.now()
            yield client.Connect(server.port)
            for command in client.transaction(content, "rcpt@test.local"):
                yield command
                if command.name == "dot":
                    taken.append((client.now() - started) * 1000)
                    server.sent += 1
        except client.SessionError as error:
            problems.append(str(error))

    watch = Watch(process.pid for process in server.running.roots)
    limit = client.now() + LATENCY_LIMIT_S
    for _ in range(messages + LATENCY_WARM):
        if client.now() > limit and len(taken) > 2 * LATENCY_WARM:
            break
        loop = client.Loop()
        loop.add(session())
        loop.run()
        loop.close()
        if problems:
            break
    others = watch.share()
    server.running.settle()
    found = sorted(taken[LATENCY_WARM:]) or [float("nan")]
    return Latency(
        server=server.name,
        median=found[len(found) // 2],
        p99=found[min(len(found) - 1, int(len(found) * 0.99))],
        lowest=found[0],
        highest=found[-1],
        others=others,
        problem=problems[0] if problems else "",
    )
