"""forkd plugin test: what do a plugin's hooks do in a real sandbox?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from forkd.cli.lines import say, tell
from forkd.cli.options import json_option, print_json
from forkd.cli.plugin_kit import (
    PRINTED,
    dns_option,
    given_plugin,
    milliseconds,
    plugin_options,
    refusal_lines,
    run,
)
from forkd.cli.tables import octets, print_table
from forkd.exits import Exit
from forkd.kit import samples, trial
from forkd.kit.drive import Step
from forkd.kit.noted import Noted
from forkd.kit.samples import Sample
from forkd.kit.trial import Tested
from forkd.kit.watch import Cost


@click.command()
@plugin_options
@dns_option
@click.option(
    "--eml",
    "mails",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A mail to show it, in the place of the built-in ones; may be given again.",
)
@click.option(
    "--session",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sessions to show it, as TOML (plugins/README.md says how).",
)
@click.option("--all", "everything", is_flag=True, help="Show harmless refused system calls too.")
@json_option
def test(
    *,
    path: str,
    settings: tuple[str, ...],
    connect: tuple[str, ...],
    name_servers: tuple[str, ...],
    python: Path | None,
    mails: tuple[Path, ...],
    files: tuple[Path, ...],
    everything: bool,
    as_json: bool,
) -> int:
    """Run the hooks of the plugin in PATH in a real sandbox, and say what came of each.

    PATH is a plugin's folder, or the name of one that comes with forkd. All that plugin.toml wants is
    granted. Shown are built-in sessions, or yours. System calls that the walls refuse are named, with the
    line of the plugin, and what to do instead.

    Exit status 0: every hook answered; 1: one crashed, hung, or made a call that is death; 72: the plugin
    does not start; 78: forkd would not start with it.
    """
    with given_plugin(path, settings, connect, name_servers, python=python) as given:
        tested = run(trial.test(given, _samples(mails, files)))
        if as_json:
            print_json(_as_data(tested))
        else:
            _show(tested, everything=everything)
    return Exit.FAILED if tested.failures or tested.killed else Exit.OK


def _samples(mails: Iterable[Path], files: Iterable[Path]) -> list[Sample]:
    chosen = [samples.of_mail(file) for file in mails]
    chosen += [sample for file in files for sample in samples.of_file(file)]
    return chosen or samples.builtin()


def _show(tested: Tested, *, everything: bool) -> None:
    plugin = tested.given.plugin
    who = "your own user" if tested.uid is None else f"uid {tested.uid}"
    tell(f"{plugin.name} {plugin.version}, in a real sandbox as {who}")
    tell("granted, as plugin.toml wants it: " + ("; ".join(tested.given.granted) or "nothing"))
    for note in tested.notes:
        say(f"note: {note}")
    for session in tested.sessions:
        tell()
        tell(f"session: {session.sample.name}", bold=True)
        if session.steps:
            _show_steps(session.steps)
        else:
            tell("no hook of the plugin was reached")
    noted = _together(tested, everything=everything)
    if noted:
        tell()
        tell("refused system calls", bold=True)
    for one in noted:
        for line in refusal_lines(one):
            tell(f"  {line}")
    printed = "".join(tested.printed).strip()
    if printed:
        tell()
        tell("it printed", bold=True)
        lines = list(dict.fromkeys(printed.splitlines()))
        for line in lines[:PRINTED]:
            tell(f"  {line}")
        if len(lines) > PRINTED:
            tell(f"  ... and {len(lines) - PRINTED} more")
    tell()
    tell(_summary(tested, noted))


def _show_steps(steps: Iterable[Step]) -> None:
    rows = []
    for times, step, cost in _runs(steps):
        hook = f"{step.hook} x{times}" if times > 1 else step.hook
        said = (
            step.reply if not step.failure else f"{step.failure}: {step.detail or '-'} -> {step.reply or '-'}"
        )
        rows.append(
            (
                hook,
                step.argument,
                "; ".join([said or "-", *step.changes]),
                milliseconds(cost.wall_s),
                milliseconds(cost.cpu_s),
                octets(cost.memory) if cost.memory else "-",
                cost.faults,
            )
        )
    columns = ("hook", "about", "the client gets", "ms", "CPU ms", "memory", "faults")
    print_table(columns, rows, right=("ms", "CPU ms", "memory", "faults"))


def _runs(steps: Iterable[Step]) -> Iterator[tuple[int, Step, Cost]]:
    """Steps that are alike, as one: a hundred recipients."""
    for _, alike in itertools.groupby(
        steps, key=lambda s: (s.hook, s.reply, s.verdict, s.changes, s.failure, s.detail)
    ):
        group = list(alike)
        cost = Cost()
        for step in group:
            cost.add(step.cost)
        yield len(group), group[0], cost


def _together(tested: Tested, *, everything: bool) -> list[Noted]:
    """Of all sessions, each kind once."""
    seen: dict[tuple[Any, ...], Noted] = {}
    for noted in [*tested.loading, *(noted for session in tested.sessions for noted in session.refused)]:
        if everything or not noted.harmless:
            refusal = noted.refusal
            seen.setdefault((refusal.text, refusal.result, noted.where, refusal.loading), noted)
    return list(seen.values())


def _summary(tested: Tested, noted: list[Noted]) -> str:
    steps = [step for session in tested.sessions for step in session.steps]
    refused = sum(step.refused and not step.failure for step in steps)
    parts = [f"{len(tested.sessions)} sessions, {len(steps)} calls"]
    parts.append(f"{tested.failures} without an answer" if tested.failures else "all answered")
    if refused:
        parts.append(f"{refused} refusals")
    if noted:
        parts.append(f"{len(noted)} kinds of refused system calls")
    return ", ".join(parts)


def _as_data(tested: Tested) -> dict[str, Any]:
    plugin = tested.given.plugin
    return {
        "ok": not (tested.failures or tested.killed),
        "plugin": plugin.name,
        "version": plugin.version,
        "granted": list(tested.given.granted),
        "uid": tested.uid,
        "notes": list(tested.notes),
        "loading": [_refusal_data(noted) for noted in tested.loading],
        "sessions": [
            {
                "name": session.sample.name,
                "calls": [_step_data(step) for step in session.steps],
                "refused": [_refusal_data(noted) for noted in session.refused],
            }
            for session in tested.sessions
        ],
        "printed": "".join(tested.printed),
    }


def _step_data(step: Step) -> dict[str, Any]:
    cost = step.cost
    return {
        "hook": step.hook,
        "argument": step.argument,
        "verdict": step.verdict,
        "reply": step.reply,
        "refused": step.refused,
        "changes": list(step.changes),
        "failure": step.failure,
        "detail": step.detail,
        "output": step.output,
        "wall_ms": round(cost.wall_s * 1000, 3),
        "cpu_ms": round(cost.cpu_s * 1000, 3),
        "memory": cost.memory,
        "faults": cost.faults,
    }


def _refusal_data(noted: Noted) -> dict[str, Any]:
    refusal, where = noted.refusal, noted.where
    return {
        "call": refusal.name,
        "text": refusal.text,
        "result": refusal.result,
        "times": noted.times,
        "harmless": noted.harmless,
        "file": where.file if where else "",
        "line": where.line if where else 0,
        "function": where.function if where else "",
        "stack": [f"{frame.file}:{frame.line} in {frame.function}" for frame in refusal.stack],
        "instead": noted.advice.instead,
        "grant": noted.advice.grant,
    }
