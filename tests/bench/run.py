"""How is one run of the harness done? Starts servers, interleaves, keeps to the time, collects results."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench import bare_fork, faults, idle, load, memory
from tests.bench.catalogue import FAULT_PEERS, WORKLOADS
from tests.bench.forkd import CHECKOUT, PLUGINS, Forkd, ForkdFaults
from tests.bench.results import Results, Slice
from tests.bench.servers import HERE, Missing, Server

FULL_REPEATS: Final = 5
FULL_SECS: Final = 1.0
LATENCY_MESSAGES: Final = 200
FAULT_WINDOW_S: Final = 3.0
CROWD: Final = 100
"""From more offenders than this on it is told apart where they come from."""
FAULT_PEERS_BUDGET_S: Final = 1500.0
IDLE_ROUNDS: Final = 3
SLICES: Final = 10
FAULTS: Final = ("none", "abort", "exit", "raise", "segv", "memory", "sleep", "spin", "cspin")
"""What forkd's plugin does; "none" is a run without an offender, to compare with."""
PEER_FAULTS: Final = {
    "Postfix": ("none", "abort", "exit", "raise", "segv", "sleep", "spin", "pabort", "psleep", "pspin"),
    "aiosmtpd": ("none", "abort", "exit", "raise", "segv", "sleep", "spin"),
    "Haraka": ("none", "abort", "exit", "raise", "araise", "sleep", "spin"),
    "OpenSMTPD": ("none", "abort", "exit", "raise", "sleep", "spin"),
    "qpsmtpd": ("none", "abort", "exit", "raise", "sleep", "spin"),
}
"""By the first word of a peer's name. With p: in Postfix' policy service instead of the milter."""


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One run: its arguments, its folder, what it found."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.folder = folder
        self.results = Results()
        self.missing: dict[str, str] = {}
        self._deadline = 0.0
        self._starts = 0
        self._live: list[Server] = []

    def workload(self, key: str) -> None:
        """Measure one workload; results are in `results`. Blocks for its budget at most, about."""
        wanted = self.arguments.repeats / FULL_REPEATS * max(1.0, self.arguments.secs / FULL_SECS)
        budget_s = WORKLOADS[key].budget_s * max(1.0, wanted)
        if key == "D":
            budget_s *= self.arguments.fault_repeats
            budget_s += FAULT_PEERS_BUDGET_S if self.arguments.fault_peers else 0
        self._deadline = time.monotonic() + budget_s
        self.results.shares[key] = []
        measures: dict[str, Callable[[str], None]] = {
            "D": self._faults, "E": self._idle, "M": self._memory, "G": self._growth,
        }  # fmt: skip
        began = time.monotonic()
        measures.get(key, self._throughput)(key)
        say(f"{key}: took {time.monotonic() - began:.0f} s")

    def close(self) -> None:
        """End every server that still runs: after an interrupt there are some."""
        for server in list(self._live):
            self._stop(server)

    # --- A, B, C, O ------------------------------------------------------------------------------------

    def _throughput(self, key: str) -> None:
        """Interleaved by repeat and column, so that drifting hits all servers alike."""
        with self._servers(key) as servers:
            cells = load.WATCHED if key == "O" else load.CELLS
            self._cells(key, servers, (load.MAIN,) if self.arguments.quick else cells, latency=key != "O")
            if key == "C":
                for _ in range(self.arguments.repeats):
                    self._bare_fork()

    def _cells(
        self, key: str, servers: Sequence[Server], cells: Sequence[load.Cell], *, latency: bool
    ) -> None:
        runs = self.results.runs.setdefault(key, [])
        waits = self.results.latencies.setdefault(key, [])
        counts: dict[tuple[str, load.Cell], int] = {}
        for cell in cells:
            say(f"{key}: warming up, {cell}")
            for server in servers:
                count, problem = load.calibrate(server, cell, self.arguments.secs)
                if problem:
                    say(f"{key}: left out: {server.name}, {cell}: {problem}")
                counts[server.name, cell] = count
        for repeat in self._repeats(key):
            turn = repeat % max(1, len(servers))
            turned = [*servers[turn:], *servers[:turn]]
            for cell in cells:
                for server in turned:
                    if count := counts[server.name, cell]:
                        runs.append(load.throughput(server, cell, count))
                        self._note("throughput", key, runs[-1])
            for server in turned if latency else ():
                waits.append(load.latency(server, LATENCY_MESSAGES))
                self._note("latency", key, waits[-1])
        self.results.accounts[key] = [account(server) for server in servers]
        order = [kind.name for kind in WORKLOADS[key].servers]
        runs.sort(key=lambda run: order.index(run.server))
        waits.sort(key=lambda wait: order.index(wait.server))

    def _bare_fork(self) -> None:
        try:
            found = bare_fork.ask(CHECKOUT, [HERE / "plugins" / name for name in PLUGINS])
        except (subprocess.CalledProcessError, OSError) as why:
            say(f"bare fork: {why}")
            return
        self.results.forks_ms.append(found)

    # --- D ---------------------------------------------------------------------------------------------

    def _faults(self, key: str) -> None:
        """forkd meets all faults in one go; a peer is started anew for each, for it may not survive."""
        counts = (1, *self.arguments.trips)
        if server := self._start(ForkdFaults):
            for fault, count in self._fault_rows(FAULTS, counts):
                for origin in faults.ORIGINS if count > CROWD else faults.ORIGINS[:1]:
                    if self._in_time(key, f"{fault} × {count}, {origin}"):
                        self._trip(key, server, fault, count, origin)
            assert isinstance(server, ForkdFaults)
            server.running.settle()
            for fault in ("spin", "cspin"):
                for count in counts[:2]:
                    for _ in range(self.arguments.repeats):
                        self.results.kills.append(faults.kill_time(server, fault, count))
                        self._note("kill", key, self.results.kills[-1])
                        server.running.settle()
            self._stop(server)
        for kind in self._chosen(FAULT_PEERS) if self.arguments.fault_peers else ():
            for fault, count in self._fault_rows(PEER_FAULTS[kind.name.replace(",", " ").split()[0]], counts):
                late = not self._in_time(key, f"{kind.name}, {fault} × {count}")
                if late or not (server := self._start(kind)):
                    continue
                self._trip(key, server, fault, count, "trusted")
                self._stop(server)

    def _fault_rows(self, names: Sequence[str], counts: Sequence[int]) -> list[tuple[str, int]]:
        chosen = names[:2] if self.arguments.quick else names
        return [(name, count) for name in chosen for count in (counts if name != "none" else counts[:1])]

    def _trip(self, key: str, server: Server, fault: str, count: int, origin: faults.Origin) -> None:
        for _ in range(self.arguments.fault_repeats if isinstance(server, ForkdFaults) else 1):
            found = faults.trip(server, fault, count, window_s=FAULT_WINDOW_S, origin=origin)
            what = f"{fault} × {count}, {origin}"
            say(f"{key}: {server.name}: {what}: {found.failed} failed, {found.stalled} stalled")
            self.results.trips.append(found)
            self._note("fault", key, found)

    # --- E, M, G ---------------------------------------------------------------------------------------

    def _idle(self, key: str) -> None:
        """forkd in every round, started anew; a peer in one of them."""
        count = self.arguments.idle if not self.arguments.quick else min(500, self.arguments.idle)
        rounds = min(IDLE_ROUNDS, self.arguments.repeats)
        chosen = self._chosen(WORKLOADS[key].servers)
        ours = [kind for kind in chosen if issubclass(kind, Forkd)]
        peers = [kind for kind in chosen if not issubclass(kind, Forkd)]
        for number in self._repeats(key, rounds):
            for kind in (*ours, *peers[number::rounds]):
                if not (server := self._start(kind)):
                    continue
                found = idle.hold(server, count)
                self._stop(server)
                say(f"{key}: {found.server}: {found.held} of {found.asked} held")
                self.results.idles.append(found)
                self._note("idle", key, found)

    def _memory(self, key: str) -> None:
        for kind in self._chosen(WORKLOADS[key].servers):
            if server := self._start(kind):
                self.results.rests.append(memory.at_rest(server))
                self._note("memory", key, self.results.rests[-1])
                self._stop(server)

    def _growth(self, key: str) -> None:
        with self._servers(key) as servers:
            self._cells(
                key, servers, load.GROWTH[1:2] if self.arguments.quick else load.GROWTH, latency=False
            )
            part = self.arguments.long // SLICES
            for number in range(1, SLICES + 1) if part else ():
                for server in servers:
                    run = load.throughput(server, load.MAIN, part, limit_s=3600)
                    mib = memory.pss_kib(server.running.pids()) / 1024
                    found = Slice(server.name, number, part, run.cpu, mib, run.problem)
                    say(f"{key}: {server.name}: {number * part} messages, {run.cpu:.3f} s per 1,000")
                    self.results.slices.append(found)
                    self._note("slice", key, found)
            self.results.accounts[key] = [account(server) for server in servers]

    # --- servers, time, notes --------------------------------------------------------------------------

    def _repeats(self, key: str, count: int | None = None) -> Iterator[int]:
        """The first one always; the others while the workload's time lasts."""
        wanted = self.arguments.repeats if count is None else count
        longest = 0.0
        for number in range(wanted):
            began = time.monotonic()
            if number and began + longest > self._deadline:
                self.results.short[key] = f"{number} of {wanted} repeats: the time for it was used up"
                return
            if wanted > 1:
                say(f"{key}: repeat {number + 1} of {wanted}")
            yield number
            longest = max(longest, time.monotonic() - began)

    def _in_time(self, key: str, what: str) -> bool:
        """False, and told, when the workload's time is used up."""
        if time.monotonic() < self._deadline:
            return True
        before = self.results.short.get(key, "the time for it was used up; left out: ")
        self.results.short[key] = before + f"{what}; "
        return False

    @contextlib.contextmanager
    def _servers(self, key: str) -> Iterator[list[Server]]:
        """The servers of a workload, all started; what is missing here is named and left out."""
        started: list[Server] = []
        try:
            for kind in self._chosen(WORKLOADS[key].servers):
                if server := self._start(kind):
                    started.append(server)
            yield started
        finally:
            for server in started:
                self._stop(server)

    def _chosen(self, kinds: Sequence[type[Server]]) -> list[type[Server]]:
        """Those of --only, by any part of a name."""
        words = [word.lower() for word in self.arguments.only]
        return [kind for kind in kinds if not words or any(word in kind.name.lower() for word in words)]

    def _start(self, kind: type[Server]) -> Server | None:
        """A fresh server, or None and a line that says why not."""
        self._starts += 1
        server = kind(self.folder / f"{self._starts}-{kind.__name__}")
        self._live.append(server)
        try:
            server.start()
        except (Missing, RuntimeError, OSError, subprocess.SubprocessError) as why:
            self.missing[kind.name] = str(why)
            say(f"skipped: {kind.name}: {why}")
            self._stop(server)
            return None
        return server

    def _stop(self, server: Server) -> None:
        """End a server; one that had to be killed is told."""
        self._live.remove(server)
        if killed := server.stop():
            say(f"{server.name}: {len(killed)} processes had to be killed")
        shutil.rmtree(server.folder, ignore_errors=True)

    def _note(self, kind: str, key: str, value: Any) -> None:
        """One line of --json; also remembers how idle the machine was."""
        if (share := getattr(value, "others", None)) is not None:
            self.results.shares[key].append(share)
        if self.arguments.json:
            record = {"kind": kind, "workload": key, "at": time.time(), **dataclasses.asdict(value)}
            with self.arguments.json.open("a") as file:
                file.write(json.dumps(record) + "\n")


def account(server: Server) -> str:
    """Was every message that got 250 counted by the server, and is none left over?"""
    counted, left = server.counted(), server.left()
    parts = [f"{server.sent} answered 250"]
    if counted is not None:
        differs = "" if counted == server.sent else " (**differs**)"
        parts.append(f"{counted} counted by the server{differs}")
    if left is not None:
        parts.append(f"{left} left in its queue")
    return f"{server.name}: " + ", ".join(parts)
