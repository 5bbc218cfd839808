"""How are measurements shown? As Markdown tables that read well on a terminal too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from statistics import median

from tests.bench import bars
from tests.bench.faults import Kill, Trip
from tests.bench.idle import Idle
from tests.bench.load import Latency, Run
from tests.bench.machine import NOT_IDLE
from tests.bench.memory import Rest
from tests.bench.results import Results, Slice

NOTHING = "–"


def spread(values: Sequence[float], digits: int) -> str:
    """min / **median** / max."""
    values = [value for value in values if not isnan(value)]
    if not values:
        return NOTHING
    low, middle, high = min(values), median(values), max(values)
    return f"{low:.{digits}f} / **{middle:.{digits}f}** / {high:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns padded to one width."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    padded = [
        "| " + " | ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    padded.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(padded)


def workload(key: str, results: Results, ours: str) -> str:
    """All that was measured in one workload."""
    parts: list[str] = []
    runs, waits = results.runs.get(key, []), results.latencies.get(key, [])
    if runs:
        parts += [overview(runs, waits), throughput(runs, ours)]
    if waits:
        parts.append(latency(waits))
    if key == "C" and results.forks_ms:
        parts.append(f"bare fork, exit and wait of such an interpreter: {spread(results.forks_ms, 2)} ms CPU")
    if key == "D":
        parts += [faults(results.trips), kills(results.kills)]
    if key == "E":
        parts.append(idle(results.idles))
    if key == "M":
        parts.append(memory(results.rests))
    if key == "G" and results.slices:
        parts.append(slices(results.slices))
    if key in results.accounts:
        parts.append("\n".join(f"- {line}" for line in results.accounts[key]))
    if key in results.short:
        parts.append(f"**Short**: {results.short[key].rstrip('; ')}.")
    if shares := results.shares.get(key):
        parts.append(idleness(shares))
    return "\n\n".join(part for part in parts if part)


def overview(runs: Sequence[Run], waits: Sequence[Latency]) -> str:
    """All columns of a workload at a glance: median messages per second · median CPU s per 1,000."""
    cells = list(dict.fromkeys(run.cell for run in runs))
    rows = []
    for name in dict.fromkeys(run.server for run in runs):
        row = [name]
        for cell in cells:
            fine = [r for r in runs if (r.server, r.cell) == (name, cell) and not r.problem]
            row.append(
                f"{median(r.rate for r in fine):.0f} · {median(r.cpu for r in fine):.3f}" if fine else NOTHING
            )
        mine = [wait.median for wait in waits if wait.server == name and not wait.problem]
        rows.append([*row, f"{median(mine):.2f}"] if waits and mine else [*row, NOTHING] if waits else row)
    head = ["messages/s · CPU s per 1,000", *cells, *(["ms at S=1"] if waits else [])]
    return table(head, rows)


def throughput(runs: Sequence[Run], ours: str) -> str:
    """One table a column of performance figures; ratios are to our median: above 1, forkd is better."""
    parts = []
    for cell in dict.fromkeys(run.cell for run in runs):
        here = [run for run in runs if run.cell == cell]
        of = {name: [r for r in here if r.server == name] for name in dict.fromkeys(r.server for r in here)}
        good = {name: [r for r in found if not r.problem] for name, found in of.items()}
        rows = []
        for name, found in of.items():
            fine = good[name]
            rates, cpus = [r.rate for r in fine], [r.cpu for r in fine]
            ratio_rate = ratio_cpu = NOTHING
            if name != ours and fine and good.get(ours):
                ratio_rate = f"{median(r.rate for r in good[ours]) / median(rates):.2f}"
                our_cpu = median(r.cpu for r in good[ours])
                ratio_cpu = f"{median(cpus) / our_cpu:.2f}" if our_cpu else NOTHING
            remarks = []
            if len(fine) < len(found):
                why = next(r.problem for r in found if r.problem)
                remarks.append(f"{len(found) - len(fine)} of {len(found)} failed: {why}")
            if not all(r.quiet for r in fine):
                remarks.append("not at rest when counted")
            if found[0].sessions < max(r.sessions for r in here):
                remarks.append(f"driven with {found[0].sessions} sessions")
            rows.append(
                (name, spread(rates, 0), spread(cpus, 3), ratio_rate, ratio_cpu,
                 str(max((r.messages for r in found), default=0)), "; ".join(remarks))
            )  # fmt: skip
        head = (cell, "messages/s", "CPU s per 1,000", "forkd's rate ×", "its CPU ÷ forkd's", "n", "")
        parts.append(table(head, rows))
    return "\n\n".join(parts)


def latency(found: Sequence[Latency]) -> str:
    """Medians over the repeats of each repeat's median and 99th percentile."""
    rows = []
    for name in dict.fromkeys(one.server for one in found):
        mine = [one for one in found if one.server == name and not one.problem]
        problem = next((one.problem for one in found if one.server == name and one.problem), "")
        rows.append(
            (name, spread([one.median for one in mine], 2), spread([one.p99 for one in mine], 2), problem)
        )
    return table(("latency at S=1, connect to the last 250", "median ms", "99 % ms", ""), rows)


def faults(trips: Sequence[Trip]) -> str:
    """Who suffered, and what became of the offenders."""
    rows = []
    keys = dict.fromkeys((t.server, t.fault, t.trips, t.origin) for t in trips)
    for name, fault, count, origin in keys:
        mine = [t for t in trips if (t.server, t.fault, t.trips, t.origin) == (name, fault, count, origin)]
        late = [ms for t in mine for ms in t.after_ms]
        rows.append(
            (
                name,
                fault,
                str(count) if fault != "none" else NOTHING,
                origin if fault != "none" else NOTHING,
                _several(t.failed for t in mine),
                _several(t.stalled for t in mine),
                spread([t.worst_ms for t in mine], 0),
                spread([t.rate_after / t.rate_before for t in mine if t.rate_before], 2),
                "; ".join(sorted({text for t in mine for text in t.offenders})),
                spread(late, 0),
                ", ".join(sorted({_short(kind) for t in mine for kind in t.kinds})),
            )
        )
    head = ("server", "fault", "at once", "from", "failed of 20", "stalled", "worst wait ms",
            "rate after ÷ before", "offender", "its end after ms", "what the others saw")  # fmt: skip
    return table(head, rows) if rows else ""


def kills(found: Sequence[Kill]) -> str:
    """Offenders in a loop, on a forkd that does nothing else: the client's 421 and the process' end."""
    rows = []
    for fault, at_once in dict.fromkeys((kill.fault, kill.at_once) for kill in found):
        mine = [kill for kill in found if (kill.fault, kill.at_once) == (fault, at_once)]
        replies = [ms for kill in mine for ms in kill.reply_ms]
        gone = [ms for kill in mine for ms in kill.gone_ms]
        problems = "; ".join(sorted({kill.problem for kill in mine if kill.problem}))
        rows.append((fault, str(at_once), spread(replies, 1), spread(gone, 1), problems))
    head = ("forkd: loop", "at once", "421 after the deadline, ms", "process dead after the deadline, ms", "")
    return table(head, rows) if rows else ""


def idle(found: Sequence[Idle]) -> str:
    """Idle connections, memory, and what real mail noticed; min / median / max over the rounds."""
    rows = []
    for name in dict.fromkeys(one.server for one in found):
        mine = [one for one in found if one.server == name]
        failed = sum(one.mail.failed for one in mine)
        rows.append(
            (
                name,
                f"{min(one.held for one in mine)} of {mine[0].asked}",
                spread([one.kib for one in mine], 1),
                spread([one.kernel_kib for one in mine], 1),
                spread([one.before.median() for one in mine], 2),
                spread([one.mail.median() for one in mine], 2),
                spread([one.before.p99() for one in mine], 2),
                spread([one.mail.p99() for one in mine], 2),
                f"{failed} real messages failed" if failed else "",
            )
        )
    head = ("server", "held", "KiB each", "kernel KiB each, both ends", "median ms before",
            "median ms with them", "99 % ms before", "99 % ms with them", "")  # fmt: skip
    return table(head, rows)


def memory(found: Sequence[Rest]) -> str:
    """PSS at rest."""
    rows = [(one.server, str(one.processes), f"{one.pss_mib:.1f}") for one in found]
    return table(("server", "processes", "PSS MiB"), rows)


def slices(found: Sequence[Slice]) -> str:
    """A long run, part by part."""
    rows = []
    total: dict[str, int] = {}
    for one in found:
        total[one.server] = total.get(one.server, 0) + one.messages
        figures = (f"{one.cpu:.3f}", f"{one.pss_mib:.1f}", one.problem)
        rows.append((one.server, f"{total[one.server]:,}", *figures))
    return table(("long run", "messages so far", "CPU s per 1,000", "PSS MiB", ""), rows)


def aims(results: Results) -> str:
    """What forkd must reach, with a plain word each."""
    words = {True: "reached", False: "**missed**", None: NOTHING}
    rows = []
    for row in bars.rows(results):
        bar = (row.bar.wanted, row.bar.figure, words[row.bar.reached])
        goal = (row.goal.wanted, row.goal.figure, words[row.goal.reached]) if row.goal else ("", "", "")
        rows.append((row.what, *bar, *goal))
    return table(("what forkd must reach", "bar", "found", "", "goal", "found", ""), rows)


def idleness(shares: Sequence[float]) -> str:
    """One sentence on whether the machine was ours."""
    disturbed = [share for share in shares if share > NOT_IDLE]
    if not disturbed:
        return (
            f"The machine was idle otherwise (others used at most {max(shares, default=0):.0%} of its CPU)."
        )
    return (
        f"**The machine was not idle**: others used {median(disturbed):.0%} of its CPU (median; at most "
        f"{max(disturbed):.0%}) in {len(disturbed)} of {len(shares)} measurements."
    )


def _short(kind: str) -> str:
    """`reply at MAIL 451` -> `451`, `eof at dot` -> `eof`: which command it hit is chance."""
    what, _, where = kind.partition(" at ")
    return where.rpartition(" ")[2] if what == "reply" else what.partition(" to ")[0]


def _several(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"
