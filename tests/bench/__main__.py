"""forkd beside its peers, in one run. README.md in this folder says what is measured and how to read it.

python -m tests.bench [A B C D E M G] [--only NAME ...] [--repeats 5] [--secs 1.0] [--quick] [--record]
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import machine, report
from tests.bench.catalogue import WORKLOADS
from tests.bench.idle import most_files
from tests.bench.process import adopt_orphans
from tests.bench.run import FULL_REPEATS, FULL_SECS, Bench, say
from tests.bench.servers import HERE, Missing, program

OPEN_FILES = 4096
"""For 500 sessions, and for servers that begin to refuse when they have few."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    budget = sum(workload.budget_s for workload in WORKLOADS.values()) / 60
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"{__doc__.splitlines()[0]} At most about {budget:.0f} minutes in the full form.",
    )
    parser.add_argument("workloads", nargs="*", metavar="|".join(WORKLOADS), help="default: all")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="servers, by part of a name")
    parser.add_argument("--repeats", type=int, default=FULL_REPEATS, help="counted runs, each (%(default)s)")
    parser.add_argument("--secs", type=float, default=FULL_SECS, help="length of a run, about (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one column, one repeat: does it all work?")
    parser.add_argument("--idle", type=int, default=10_000, help="E: idle connections (%(default)s)")
    parser.add_argument(
        "--trips", type=int, nargs="+", default=[16, 200], help="D: offenders at once, beside 1"
    )
    parser.add_argument("--fault-repeats", type=int, default=1, help="D: how often forkd meets each fault")
    parser.add_argument("--fault-peers", action="store_true", help="D: peers too, about 20 minutes more")
    parser.add_argument(
        "--long", type=int, default=0, metavar="N", help="G: a long run of N messages each too"
    )
    parser.add_argument("--json", type=Path, help="append every single measurement to this file")
    parser.add_argument("--out", type=Path, help="write the Markdown to this file too")
    parser.add_argument("--record", action="store_true", help="write it to tests/bench/runs/DATE.md")
    parser.add_argument("--dir", type=Path, help="where queues lie; on the disk that is to be measured")
    found = parser.parse_args(arguments)
    unknown = [word for word in found.workloads if word not in WORKLOADS]
    if unknown:
        parser.error(f"there are the workloads {' '.join(WORKLOADS)}, not {' '.join(unknown)}")
    if found.quick:
        found.repeats = min(found.repeats, 1)
    if found.record:
        found.out = record_path(time.strftime("%Y-%m-%d"))
    return found


def record_path(day: str) -> Path:
    """A file in runs/ that is not there yet: a record is never written over."""
    path, number = HERE / "runs" / f"{day}.md", 1
    while path.exists():
        number += 1
        path = path.with_name(f"{day}-{number}.md")
    return path


class Paper:
    """Standard output and, where wished, a file: both have the same Markdown, as soon as it is known."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path:
            path.write_text("")

    def write(self, text: str) -> None:
        """One more piece, and an end of line."""
        print(text, flush=True)
        if self.path:
            with self.path.open("a") as file:
                file.write(text + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the result goes to standard output and --out, progress to standard error."""
    chosen = parse(arguments)
    try:
        program("smtp-source")
    except Missing as why:
        say(f"{why}: it makes the load (Debian: postfix)")
        return 2
    adopt_orphans()
    most_files(OPEN_FILES)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="forkd-bench-", dir=chosen.dir))
    folder.chmod(0o755)
    bench = Bench(chosen, folder)
    paper = Paper(chosen.out)
    began = time.monotonic()
    keys = list(chosen.workloads or WORKLOADS)
    try:
        words = " ".join(sys.argv[1:] if arguments is None else arguments)
        versions = {kind.version() for key in keys for kind in WORKLOADS[key].servers} - {""}
        paper.write(f"- {time.strftime('%Y-%m-%d %H:%M %Z')}, {machine.describe()}")
        paper.write(f"- {', '.join(sorted(versions))}")
        paper.write(f"- `python -m tests.bench{' ' + words if words else ''}`")
        for key in keys:
            bench.workload(key)
            ours = WORKLOADS[key].servers[0].name if key in "ABCO" else ""
            paper.write(f"\n### {key}. {WORKLOADS[key].title}\n")
            paper.write(report.workload(key, bench.results, ours))
        paper.write("\n### What forkd must reach\n")
        paper.write(report.aims(bench.results) + "\n")
        paper.write(report.idleness([share for shares in bench.results.shares.values() for share in shares]))
        for name, reason in bench.missing.items():
            paper.write(f"- not measured: {name}: {reason.splitlines()[0][:300] if reason else ''}")
        paper.write(f"\nTook {(time.monotonic() - began) / 60:.1f} minutes.")
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
