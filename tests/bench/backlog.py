"""What does a long queue cost the mail that comes after it? Start, memory and delivery beside N messages.

    .venv/bin/python -m tests.bench.backlog                     # none, 20,000 and 200,000: five minutes
    .venv/bin/python -m tests.bench.backlog --counts 0 1000000 --dir /var/tmp

Each row is a process of its own with qmgr's manager on a spool without syncs, so that it is its own time
that is seen, not the disk's; next hops are stand-ins on its event loop (support/scripted_hops.py). Backlogs:

    deferred   tried before (`.state`), due in an hour, of 1,000 domains
    away       never tried, all for one destination that is away
    slow       never tried, all for one destination that hangs

*start* is wall time until the queue is known, *look* CPU time for the first look at all that is due (it goes
on beside deliveries), *KiB each* what that adds to memory. Then 2,000 messages come for a Maildir, and 2,000
for quick next hops: CPU microseconds for one, over all of qmgr's threads. Flat is what all rows have alike.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from forkd import log
from forkd.queue import state
from forkd.queue.outcome import Outcome
from forkd.queue.spool import Spool
from forkd.queue.state import Attempt
from tests.support.scripted_hops import Driven, NextHops, hangs, hop_config, is_away
from tests.support.spooling import a_spool, queued

KINDS = ("deferred", "away", "slow")
FRESH = 2000


def fill(spool: Spool, kind: str, count: int) -> None:
    """The backlog."""
    now = time.time()
    for number in range(count):
        domain = f"d{number % 1000}.test" if kind == "deferred" else "backlog.test"
        queue_id = queued(spool, f"u{number}@{domain}", received_at=now)
        if kind == "deferred":
            line = Attempt(
                at=now, next_try_at=now + 3600, outcomes=(Outcome(0, "deferred", "4.0.0", "greylisted"),)
            )
            state.append(f"{spool.new}/{queue_id}", line, state.State(), durable=False)


def resident_mib() -> float:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def fresh(it: Driven, spool: Spool, domain: str) -> float:
    """CPU seconds for one message that comes now, until it is gone."""
    now = time.time()
    ids = [
        queued(spool, f"u{number % 50}@{domain.format(number % 20)}", received_at=now)
        for number in range(FRESH)
    ]
    before = time.process_time()
    for at in range(0, FRESH, 50):
        some = ids[at : at + 50]
        it.poke(*some)
        it.until(lambda some=some: not any(each in it.manager.schedule for each in some))  # type: ignore[misc]
    return (time.process_time() - before) / FRESH


def measure(folder: Path, kind: str) -> str:
    """In a process of its own, on a spool that is filled."""
    log.setup("json", "error", os.open(os.devnull, os.O_WRONLY))
    base = resident_mib()
    hops = NextHops()
    hops.acts["backlog.test"] = is_away if kind == "away" else hangs
    began = time.perf_counter()
    it = Driven(hop_config(folder, durability="none"), hops)
    start_s = time.perf_counter() - began
    known, memory = len(it.manager.schedule), resident_mib() - base
    began = time.process_time()
    while it.turn():
        pass
    look_s = time.process_time() - began
    gc.collect()  # what the first look costs the collector is not the fresh mail's
    spool = Spool(folder / "spool", "w0", durable=False)
    local, remote = fresh(it, spool, "test.local"), fresh(it, spool, "q{}.test")
    after = resident_mib() - base
    each = (after - memory) * 1024 / known if known else 0.0
    cells = (
        kind, f"{known:,}", f"{start_s:.2f}", f"{memory:.0f}", f"{look_s:.1f}", f"{after:.0f}", f"{each:.2f}",
        f"{local * 1e6:.0f}", f"{remote * 1e6:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def rows(counts: list[int], where: str) -> Iterator[str]:
    """One line each, as Markdown."""
    head = (
        "backlog",
        "messages",
        "start s",
        "MiB",
        "look s",
        "MiB then",
        "KiB each",
        "local µs",
        "next hop µs",
    )
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for count in counts:
        for kind in KINDS:
            folder = Path(tempfile.mkdtemp(prefix="backlog-", dir=where))
            try:
                fill(a_spool(folder / "spool", durable=False), kind, count)
                done = subprocess.run(
                    [sys.executable, "-m", "tests.bench.backlog", "--measure", str(folder), kind],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                yield done.stdout.strip()
            finally:
                shutil.rmtree(folder)


def main() -> None:
    """The table, to standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[0, 20_000, 200_000])
    parser.add_argument("--dir", default="/dev/shm", help="where spools lie: 2 GiB for 200,000")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "KIND"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        sys.stdout.write(measure(Path(chosen.measure[0]), chosen.measure[1]) + "\n")
        sys.stdout.flush()
        os._exit(0)  # threads that hang on purpose
    for row in rows(chosen.counts, chosen.dir):
        sys.stdout.write(row + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
