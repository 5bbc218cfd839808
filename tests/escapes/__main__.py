"""Every attack in every mode of this machine, in one table: what stopped it, and how.

python -m tests.escapes [--mode MODE ...] [--attack NAME ...] [--tables-only] [--measure] [--jobs N]

Exit status: 0 all stopped as their rows say; 1 something went otherwise.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import sys
from collections.abc import Sequence

from tests.escapes import rows
from tests.escapes.rows import BY_NAME, Row
from tests.support.sandboxes import FURTHER_MODES, MODES

_HOW = 90
"""Octets of an outcome in the table."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for, print the table."""
    options = _parse(arguments)
    modes = options.mode or [*MODES, *FURTHER_MODES]
    unknown = [mode for mode in modes if mode not in (*MODES, *FURTHER_MODES)]
    unknown += [name for name in options.attack if name not in BY_NAME]
    if unknown:
        sys.exit(f"unknown here: {', '.join(unknown)}")
    chosen = [BY_NAME[name] for name in options.attack] or list(BY_NAME.values())
    pairs = [(attack.name, mode) for mode in modes for attack in chosen]
    with concurrent.futures.ProcessPoolExecutor(
        options.jobs, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        one = rows.measured if options.measure else rows.tried
        found: list[Row] = list(pool.map(one, *zip(*pairs, strict=True), chunksize=4))
    if not options.tables_only and not options.attack:
        found += rows.tests(modes)
    _print(sorted(found))
    failed = [row for row in found if not row.stopped]
    for row in failed:
        print(f"NOT STOPPED  {row.name} ({row.mode}): {row.how}")
    print(f"{len(found)} tried, {len(failed)} not stopped as claimed")
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.escapes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--mode", action="append", default=[], help="; ".join((*MODES, *FURTHER_MODES)))
    parser.add_argument("--attack", action="append", default=[], metavar="NAME", help="as the table names it")
    parser.add_argument("--tables-only", action="store_true", help="leave out what is a test of its own")
    parser.add_argument("--measure", action="store_true", help="also without what stops it: does that show?")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time (%(default)s)")
    return parser.parse_args(arguments)


def _print(found: Sequence[Row]) -> None:
    names = max(len(row.name) for row in found)
    modes = max(len(row.mode) for row in found)
    walls = max(len(row.by) for row in found)
    print(f"{'attack':{names}}  {'mode':{modes}}  {'stopped by':{walls}}  how")
    for row in found:
        how = row.how if len(row.how) <= _HOW else row.how[: _HOW - 1] + "…"
        print(f"{row.name:{names}}  {row.mode:{modes}}  {row.by:{walls}}  {how}")


if __name__ == "__main__":
    sys.exit(main())
