"""forkd plugin bench: what does a call of a plugin cost?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say, tell
from forkd.cli.options import json_option, print_json
from forkd.cli.plugin_kit import dns_option, given_plugin, plugin_options, run
from forkd.cli.tables import print_facts, print_table
from forkd.exits import Exit
from forkd.kit.bench import Kind, Measured
from forkd.kit.bench import bench as measure
from forkd.kit.samples import builtin
from forkd.rpc.calls import CallFailed, Overloaded


@click.command()
@plugin_options
@dns_option
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, 600),
    default=5.0,
    show_default=True,
    help="To measure for, about.",
)
@json_option
def bench(
    *,
    path: str,
    settings: tuple[str, ...],
    connect: tuple[str, ...],
    name_servers: tuple[str, ...],
    python: Path | None,
    seconds: float,
    as_json: bool,
) -> int:
    """Measure the calls of the plugin in PATH over one plain mail.

    Fresh sandboxes and reused ones, beside what the machine asks for a fork + exit + wait of the same
    interpreter with the same modules, and beside the same calls in one process: all behind the walls, in one
    run.
    """
    with given_plugin(path, settings, connect, name_servers, python=python) as given:
        try:
            measured = run(measure(given, builtin()[0], seconds=seconds))
        except (ValueError, CallFailed, Overloaded) as error:
            raise CommandFailed(f"this cannot be measured: {error}") from error
        if as_json:
            print_json({"plugin": given.plugin.name, **dataclasses.asdict(measured)})
        else:
            _show(measured)
    return Exit.OK


def _show(measured: Measured) -> None:
    for note in measured.notes:
        say(f"note: {note}")
    floor, fresh, reused = measured.floor, measured.fresh, measured.reused
    calls = len(measured.hooks)
    tell(f"a session is {calls} {'call' if calls == 1 else 'calls'}: {', '.join(measured.hooks)}")
    tell()
    ms = _ms
    fork = (
        "bare fork + exit + wait",
        f"{1 / floor.fork_s:,.0f}",
        ms(floor.fork_s),
        "-",
        ms(floor.fork_cpu_s),
        "1.0",
    )
    rows = [
        fork,
        _row("fresh sandbox, session", fresh, measured),
        _row("reused sandbox, session", reused, measured),
    ]
    added = [*_calls("fresh", fresh, calls), *_calls("reused", reused, calls)]
    if floor.call is not None:
        cpu_s = floor.call_cpu_s * calls
        ratio = f"{cpu_s / floor.fork_cpu_s:.2f}"
        wall = ms(floor.call.p50_s * calls)
        rows.append(("one process, session", f"{1 / cpu_s:,.0f}", wall, "-", ms(cpu_s), ratio))
        added.append(("in one process", ms(floor.call.p50_s), ms(floor.call.p99_s), ms(floor.call_cpu_s)))
    columns = ("what", "a second", "p50 ms", "p99 ms", "CPU ms", "x bare fork")
    print_table(columns, rows, right=columns[1:])
    tell()
    added_columns = ("a call adds", "p50 ms", "p99 ms", "CPU ms, mean")
    print_table(added_columns, added, right=added_columns[1:])
    tell()
    first, later = fresh.first_faults, fresh.later_faults
    print_facts(
        [
            (
                "page faults",
                f"bare fork {floor.fork_faults:.0f}; a fresh sandbox {fresh.faults:.0f}:",
            ),
            ("", f"{first:.0f} until its first answer, {later:.0f} by its later calls"),
        ]
    )


def _calls(word: str, kind: Kind, calls: int) -> list[tuple[str, ...]]:
    """Of a session's first call, which has the sandbox' start in it, and of the others."""
    mean = _ms(kind.cpu_s / calls)
    rows: list[tuple[str, ...]] = [
        (f"{word}, first of a session", _ms(kind.first.p50_s), _ms(kind.first.p99_s), mean)
    ]
    if kind.later is not None:
        rows.append((f"{word}, later ones", _ms(kind.later.p50_s), _ms(kind.later.p99_s), mean))
    return rows


def _row(what: str, kind: Kind, measured: Measured) -> tuple[str, ...]:
    return (
        what,
        f"{kind.rate:,.0f}",
        _ms(kind.session.p50_s),
        _ms(kind.session.p99_s),
        _ms(kind.cpu_s),
        f"{kind.cpu_s / measured.floor.fork_cpu_s:.2f}",
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f}"
