"""What must forkd reach, and did it? Bars and goals as ratios within one run, each with its figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Final

from tests.bench import load
from tests.bench.catalogue import WORKLOADS
from tests.bench.faults import Origin
from tests.bench.forkd import Forkd, ForkdChecks, ForkdDurable, ForkdFaults, ForkdGroup, ForkdIdle, ForkdReuse
from tests.bench.load import Cell, Run
from tests.bench.peers.aiosmtpd import AiosmtpdHooks
from tests.bench.peers.haraka import HarakaChecks, HarakaChecksNodes
from tests.bench.peers.nodemailer import Nodemailer
from tests.bench.peers.opensmtpd import OpenSmtpdDisk
from tests.bench.peers.postfix import Postfix, PostfixChecks, PostfixQueue
from tests.bench.peers.sink import SmtpSink
from tests.bench.results import Results
from tests.bench.servers import Server

LATE_MS: Final = 100
"""An offender has its 421 so long after its deadline at the latest."""
FLAT: Final = 1.2
"""Work that costs so much more at the far end is not flat."""
Kind = type[Server]


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """One bar or goal. reached: None when it could not be measured in this run; then `figure` says why."""

    wanted: str
    figure: str
    reached: bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of aims."""

    what: str
    bar: Found
    goal: Found | None = None


NOT_MEASURED: Final = "not measured"


def rows(results: Results) -> list[Row]:
    """All aims, in the order of the tables."""
    peers = tuple(kind for kind in WORKLOADS["A"].servers if kind not in (Forkd, SmtpSink))
    but_one = tuple(kind for kind in peers if kind is not Nodemailer)
    both = (load.MANY, load.LARGE)
    checks = _Race("C", ForkdGroup, (PostfixChecks,))
    return [
        Row(
            "A: CPU per message",
            _cheaper(results, Nodemailer, factor=1.0, wanted="below nodemailer's"),
            _cheaper(results, SmtpSink, factor=1.5, wanted="at most 1.5 × smtp-sink's"),
        ),
        Row("A: rate", _faster(results, Postfix, factor=2.0, wanted="2 × Postfix'")),
        Row(
            "A: many per connection, and 100 KiB",
            _ahead(results, _Race("A", Forkd, but_one, both), 1.0, "ahead of every peer but nodemailer"),
            _ahead(results, _Race("A", Forkd, peers, both), 1.0, "ahead of every peer"),
        ),
        Row(
            "B: durable",
            _ahead(results, _Race("B", ForkdDurable, (OpenSmtpdDisk,)), 1.0, "ahead of OpenSMTPD"),
            _ahead(results, _Race("B", ForkdDurable, (PostfixQueue,)), 3.0, "3 × Postfix' queue"),
        ),
        Row(
            "C: three plugins in one group, a fresh sandbox each session, durable",
            _ahead(results, checks, 1.4, "1.4 × Postfix with milter and policy"),
            _ahead(results, checks, 2.0, "2 × it"),
        ),
        Row(
            "C: the same with reuse, durable; the peers discard",
            _ahead(results, _Race("C", ForkdReuse, (HarakaChecks,)), 1.0, "ahead of Haraka's three plugins"),
            _ahead(results, _Race("C", ForkdReuse, (AiosmtpdHooks,)), 1.0, "ahead of aiosmtpd's hooks"),
        ),
        Row(
            "C: CPU of a sandbox with three calls",
            _sandbox(results, 3.0, "3 × bare fork, exit, wait"),
            _sandbox(results, 2.0, "2 ×"),
        ),
        Row(
            f"D: none of the 20 suffers, offenders' 421 by deadline + {LATE_MS} ms",
            _isolation(results, (1, 16), "16 at once"),
            _isolation(results, (200,), "200 at once"),
        ),
        Row(
            "D: the same, 200 at once that share no network with each other, or are trusted",
            _isolation(results, (200,), "200 networks", "many"),
            _isolation(results, (200,), "trusted", "trusted"),
        ),
        *_idle_rows(results),
        Row(
            "latency at S=1, durable, three plugins in one group",
            _sooner(results, PostfixChecks, "below Postfix with milter and policy"),
            _sooner(results, PostfixQueue, "below Postfix' queue without plugins"),
        ),
        Row(
            "memory at rest, three plugins, PSS",
            _smaller(results, HarakaChecksNodes),
            _smaller(results, HarakaChecks),
        ),
        Row("cost as work grows: CPU per message", _flat(results), _flat_long(results)),
    ]


def _fine(results: Results, key: str, kind: Kind, cell: Cell) -> list[Run]:
    return [
        run
        for run in results.runs.get(key, ())
        if run.server == kind.name and run.cell == str(cell) and not run.problem
    ]


def _cpu(results: Results, key: str, kind: Kind, cell: Cell) -> float | None:
    found = _fine(results, key, kind, cell)
    return median(run.cpu for run in found) if found else None


def _rate(results: Results, key: str, kind: Kind, cell: Cell) -> float | None:
    found = _fine(results, key, kind, cell)
    return median(run.rate for run in found) if found else None


def _cheaper(results: Results, peer: Kind, *, factor: float, wanted: str) -> Found:
    """A: our CPU per message is at most `factor` × the peer's."""
    mine, theirs = _cpu(results, "A", Forkd, load.MAIN), _cpu(results, "A", peer, load.MAIN)
    if not mine or not theirs:
        return Found(wanted, NOT_MEASURED, None)
    ratio = mine / theirs
    return Found(wanted, f"{mine:.3f} to {theirs:.3f}: {ratio:.2f} ×", ratio <= factor)


def _faster(results: Results, peer: Kind, *, factor: float, wanted: str) -> Found:
    """A: our rate is at least `factor` × the peer's."""
    mine, theirs = _rate(results, "A", Forkd, load.MAIN), _rate(results, "A", peer, load.MAIN)
    if not mine or not theirs:
        return Found(wanted, NOT_MEASURED, None)
    return Found(wanted, f"{mine:.0f} to {theirs:.0f}/s: {mine / theirs:.2f} ×", mine / theirs >= factor)


@dataclasses.dataclass(frozen=True, slots=True)
class _Race:
    """Who is to be ahead of whom, in which columns of which workload."""

    key: str
    ours: Kind
    peers: tuple[Kind, ...]
    cells: tuple[Cell, ...] = (load.MAIN,)


def _ahead(results: Results, race: _Race, factor: float, wanted: str) -> Found:
    """Rate and CPU per message are both `factor` × better, than every peer in every cell; tells the worst."""
    rates: list[tuple[float, str]] = []
    costs: list[tuple[float, str]] = []
    for cell in race.cells:
        for peer in race.peers:
            mine, theirs = (_rate(results, race.key, kind, cell) for kind in (race.ours, peer))
            my_cpu, their_cpu = (_cpu(results, race.key, kind, cell) for kind in (race.ours, peer))
            if mine and theirs and my_cpu and their_cpu:
                rates.append((mine / theirs, peer.name))
                costs.append((their_cpu / my_cpu, peer.name))
    if not rates:
        return Found(wanted, NOT_MEASURED, None)
    named = len({name for _, name in rates}) > 1
    parts = [
        f"{what} {ratio:.2f} ×{f' ({name})' if named else ''}"
        for what, (ratio, name) in (("rate", min(rates)), ("CPU", min(costs)))
    ]
    worst = min(min(rates)[0], min(costs)[0])
    return Found(wanted, ", ".join(parts), worst >= factor if factor > 1 else worst > 1)


def _sandbox(results: Results, factor: float, wanted: str) -> Found:
    """One group is one sandbox a session with three calls: C with it less C without plugins, in CPU."""
    with_it, without = (_cpu(results, "C", kind, load.MAIN) for kind in (ForkdGroup, ForkdDurable))
    if not with_it or not without or not results.forks_ms:
        return Found(wanted, NOT_MEASURED, None)
    cost, bare = with_it - without, median(results.forks_ms)  # s per 1,000 are ms for each
    return Found(wanted, f"{cost:.2f} to {bare:.2f} ms: {cost / bare:.1f} ×", cost <= factor * bare)


def _isolation(results: Results, counts: tuple[int, ...], wanted: str, origin: Origin = "one") -> Found:
    """Who got 451 at MAIL had no sandbox to misbehave in: others of his network held its share."""
    trips = [
        t
        for t in results.trips
        if (t.server, t.origin) == (ForkdFaults.name, origin) and t.trips in counts and t.fault != "none"
    ]
    if max(counts) not in {trip.trips for trip in trips}:
        return Found(wanted, NOT_MEASURED, None)
    suffered = sum(trip.failed + trip.stalled for trip in trips)
    other = sum(said not in ("RCPT: 421", "MAIL: 451") for trip in trips for said in trip.offenders)
    latest = max((ms for trip in trips for ms in trip.after_ms), default=float("nan"))
    limit = ForkdFaults.deadline_s * 1000 + LATE_MS
    figure = (
        f"{suffered} suffered in {len(trips)} runs; last 421 {latest - ForkdFaults.deadline_s * 1000:+.0f} ms"
    )
    figure += f"; {other} offenders had no 421" if other else ""
    return Found(wanted, figure, not suffered and not other and latest <= limit)


def _idle_rows(results: Results) -> list[Row]:
    found = [one for one in results.idles if one.server == ForkdIdle.name]
    asked = max((one.asked for one in found), default=0)
    aims = ((10_000, 8.0, 1.5), (20_000, 4.0, 1.1))

    def aim(number: int, wanted: str, figure: Callable[[], tuple[str, bool]]) -> Found:
        if asked < number:
            return Found(wanted, f"{asked} asked" if asked else NOT_MEASURED, None)
        return Found(wanted, *figure())

    def held(number: int) -> tuple[str, bool]:
        least = min(one.held for one in found)
        return f"{least} of {asked}", least >= number

    def memory(most: float) -> tuple[str, bool]:
        middle = median(one.kib for one in found)
        return f"{middle:.1f} KiB", middle <= most

    def tail(most: float) -> tuple[str, bool]:
        ratio = median(one.mail.p99() / one.before.p99() for one in found)
        failed = sum(one.mail.failed for one in found)
        return f"{ratio:.2f} ×" + (f", {failed} failed" if failed else ""), ratio <= most and not failed

    return [
        Row("E: held", *(aim(n, f"{n:,}", partial(held, n)) for n, _, _ in aims)),
        Row("E: memory of one", *(aim(n, f"at most {k:.0f} KiB", partial(memory, k)) for n, k, _ in aims)),
        Row(
            "E: p99 of real mail beside them",
            *(aim(n, f"at most {ratio} × before", partial(tail, ratio)) for n, _, ratio in aims),
        ),
    ]


def _sooner(results: Results, peer: Kind, wanted: str) -> Found:
    waits = results.latencies.get("C", [])
    mine = [one.median for one in waits if one.server == ForkdGroup.name and not one.problem]
    theirs = [one.median for one in waits if one.server == peer.name and not one.problem]
    if not mine or not theirs:
        return Found(wanted, NOT_MEASURED, None)
    return Found(wanted, f"{median(mine):.2f} to {median(theirs):.2f} ms", median(mine) < median(theirs))


def _smaller(results: Results, peer: Kind) -> Found:
    wanted = f"below {peer.name}"
    mine = [one.pss_mib for one in results.rests if one.server == ForkdChecks.name]
    theirs = [one.pss_mib for one in results.rests if one.server == peer.name]
    if not mine or not theirs:
        return Found(wanted, NOT_MEASURED, None)
    return Found(wanted, f"{median(mine):.0f} to {median(theirs):.0f} MiB", median(mine) < median(theirs))


def _flat(results: Results) -> Found:
    wanted = f"S=500 at most {FLAT} × S=20"
    ratios = []
    for kind in (Forkd, ForkdDurable):
        few, many = (_cpu(results, "G", kind, cell) for cell in (load.MAIN, load.GROWTH[-1]))
        if not few or not many:
            return Found(wanted, NOT_MEASURED, None)
        ratios.append(many / few)
    return Found(wanted, ", ".join(f"{r:.2f} ×" for r in ratios), max(ratios) <= FLAT)


def _flat_long(results: Results) -> Found:
    wanted = f"the last tenth of a long run at most {FLAT} × the first"
    ratios = []
    for name in dict.fromkeys(one.server for one in results.slices):
        mine = [one for one in results.slices if one.server == name and not one.problem]
        if len(mine) > 1:
            ratios.append(mine[-1].cpu / mine[0].cpu)
    if not ratios:
        return Found(wanted, f"{NOT_MEASURED} (--long)", None)
    return Found(wanted, ", ".join(f"{r:.2f} ×" for r in ratios), max(ratios) <= FLAT)
