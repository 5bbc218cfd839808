"""How are measurements shown? As Markdown tables: minimum, median and maximum, and ratios."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from tests.bench.faults import Kill, Trip
from tests.bench.load import Latency, Run
from tests.bench.machine import NOT_IDLE


def spread(values: Sequence[float], digits: int) -> str:
    """min / **median** / max."""
    if not values:
        return "–"
    low, middle, high = min(values), median(values), max(values)
    return f"{low:.{digits}f} / **{middle:.{digits}f}** / {high:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


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
            ratio_rate = ratio_cpu = "–"
            if name != ours and fine and good.get(ours):
                ratio_rate = f"{median(r.rate for r in good[ours]) / median(rates):.2f}"
                our_cpu = median(r.cpu for r in good[ours])
                ratio_cpu = f"{median(cpus) / our_cpu:.2f}" if our_cpu else "–"
            remarks = []
            if len(fine) < len(found):
                why = next(r.problem for r in found if r.problem)
                remarks.append(f"{len(found) - len(fine)} of {len(found)} failed: {why}")
            if not all(r.quiet for r in fine):
                remarks.append("not at rest when counted")
            rows.append(
                (name, spread(rates, 0), spread(cpus, 3), ratio_rate, ratio_cpu,
                 str(max((r.messages for r in found), default=0)), "; ".join(remarks))
            )  # fmt: skip
        head = ("server", "messages/s", "CPU s per 1,000", "forkd's rate ×", "its CPU ÷ forkd's", "n", "")
        parts.append(f"{cell}\n\n" + table(head, rows))
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
    head = ("server", "median ms", "99 % ms", "")
    return "latency of a message at S=1, connect to the last 250\n\n" + table(head, rows)


def faults(trips: Sequence[Trip]) -> str:
    """Who suffered, and what became of the offenders."""
    rows = []
    for name, fault, count in dict.fromkeys((t.server, t.fault, t.trips) for t in trips):
        mine = [t for t in trips if (t.server, t.fault, t.trips) == (name, fault, count)]
        late = [ms for t in mine for ms in t.after_ms]
        rows.append(
            (
                name,
                fault,
                str(count),
                _several(t.failed for t in mine),
                _several(t.stalled for t in mine),
                spread([t.worst_ms for t in mine], 0),
                spread([t.rate_after / t.rate_before for t in mine if t.rate_before], 2),
                "; ".join(sorted({text for t in mine for text in t.offenders})),
                spread(late, 0),
                ", ".join(sorted({_short(kind) for t in mine for kind in t.kinds})),
            )
        )
    head = ("server", "fault", "trips", "failed of 20", "stalled", "worst wait ms", "rate after ÷ before",
            "offender", "its end after ms", "what the others saw")  # fmt: skip
    return table(head, rows)


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


def _short(kind: str) -> str:
    """`reply at MAIL 451` -> `451`, `eof at dot` -> `eof`: which command it hit is chance."""
    what, _, where = kind.partition(" at ")
    return where.rpartition(" ")[2] if what == "reply" else what.partition(" to ")[0]


def _several(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}"


def idleness(shares: Sequence[float]) -> str:
    """One sentence on whether the machine was ours."""
    disturbed = [share for share in shares if share > NOT_IDLE]
    if not disturbed:
        return (
            f"The machine was idle otherwise (others used at most {max(shares, default=0):.0%} of its CPU)."
        )
    return (
        f"**The machine was not idle**: others used {median(disturbed):.0%} of its CPU (median; at most "
        f"{max(disturbed):.0%}) in {len(disturbed)} of {len(shares)} runs."
    )
