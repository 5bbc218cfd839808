"""forkd plugin try-so: what does a compiled plugin of qmail-smtpd say?"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Final

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say, tell
from forkd.cli.options import json_option, print_json
from forkd.cli.plugin_kit import PRINTED, meanwhile, milliseconds, run
from forkd.cli.tables import octets, print_table
from forkd.config.kinds import environment_slip
from forkd.exits import Exit
from forkd.kit.samples import SampleError
from forkd.kit.stage import NotStarted
from forkd.kit.try_so import Call, Result, Tried, Unusable
from forkd.kit.try_so import try_so as trial

FILE: Final = click.Path(exists=True, path_type=Path)


@click.command("try-so")
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option(
    "--sender",
    "senders",
    multiple=True,
    default=("",),
    metavar="ADDRESS",
    help='Who sends; may be given again. Default: "", the null sender.',
)
@click.option(
    "--recipient", "recipients", multiple=True, metavar="ADDRESS", help="To whom; may be given again."
)
@click.option("--remote-ip", default="192.0.2.1", show_default=True, help="The client's address.")
@click.option("--remote-host", default="", help="The client's name. Default: unknown.")
@click.option("--remote-info", "user", default="", help="Who has authenticated. Default: nobody.")
@click.option("--local-host", default="mx.test.local", show_default=True, help="Our own name.")
@click.option("--relay", is_flag=True, help="The client may send anywhere: RELAYCLIENT is set.")
@click.option("--symbol", default="plugin_init", show_default=True, help="The function that gives the table.")
@click.option(
    "--base", default="smtpd-plugin.so", show_default=True, help="Name of the first in a folder of them."
)
@click.option(
    "--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable of its environment."
)
@click.option("--reads", multiple=True, type=FILE, help="A file or folder that it may read.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.001, 600),
    default=5.0,
    show_default=True,
    help="Seconds for one call.",
)
@json_option
def try_so(
    *,
    files: tuple[Path, ...],
    senders: tuple[str, ...],
    reads: tuple[Path, ...],
    variables: tuple[str, ...],
    timeout: float,
    as_json: bool,
    **more: Any,
) -> int:
    """Run compiled plugins of IndiMail's qmail-smtpd in a real sandbox, and show what each call comes to.

    FILE is a plugin, or a folder with a row of them (smtpd-plugin.so, smtpd-plugin0.so, ...); they are asked
    one after the other, as forkd and qmail-smtpd do: about each sender, each recipient, and at the end of
    data. The first that refuses is the last one asked.

    Exit status 0: all of it is accepted; 1: something is refused; 72: a plugin crashed, did not come back in
    time, or cannot be loaded.
    """
    tried = Tried(
        files=files,
        senders=senders,
        reads=reads,
        environment=_variables(variables),
        timeout_s=timeout,
        **more,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="forkd-try-so-") as folder:
            result = run(trial(tried, data_dir=Path(folder)))
    except NotStarted as why:
        raise CommandFailed("\n".join([str(why), *meanwhile(why)]), status=Exit.PLUGIN) from why
    except (SampleError, Unusable) as error:
        raise CommandFailed(str(error), status=Exit.USAGE) from error
    if as_json:
        print_json(_as_data(result))
    else:
        _show(result)
    return Exit.PLUGIN if result.failed else Exit.FAILED if result.refused else Exit.OK


def _variables(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        slip = environment_slip(name, value) if equals else "this is NAME=VALUE"
        if slip:
            raise CommandFailed(f"--env {text}: {slip}", status=Exit.USAGE)
        found[name] = value
    return found


def _show(result: Result) -> None:
    for note in result.notes:
        say(f"note: {note}")
    for number, file in enumerate(result.files):
        tell(f"[{number}] {file}")
    rows = []
    for call in result.calls:
        cost = call.cost
        rows.append(
            (
                call.function,
                call.argument,
                " ".join("-" if value is None else str(value) for value in call.returned) or "?",
                _said(call),
                milliseconds(cost.wall_s),
                milliseconds(cost.cpu_s),
                octets(cost.memory) if cost.memory else "-",
                cost.faults,
            )
        )
    tell()
    columns = ("function", "about", "returned", "the client gets", "ms", "CPU ms", "memory", "faults")
    print_table(columns, rows, right=("ms", "CPU ms", "memory", "faults"))
    for call in result.calls:
        if call.text:
            tell(f"{call.function} {call.argument}: {call.text}")
    if result.printed:
        tell()
        tell("it printed", bold=True)
        for line in list(dict.fromkeys(result.printed.splitlines()))[:PRINTED]:
            tell(f"  {line}")
    tell()
    tell("crashed" if result.failed else "refused" if result.refused else "accepted")


def _said(call: Call) -> str:
    if call.failure:
        return f"{call.failure}: {call.detail or '-'} -> {call.reply or '-'}"
    return call.reply or "goes on"


def _as_data(result: Result) -> dict[str, Any]:
    return {
        "ok": not result.failed,
        "refused": result.refused,
        "files": [str(file) for file in result.files],
        "calls": [_call_data(call) for call in result.calls],
        "printed": result.printed,
        "notes": list(result.notes),
    }


def _call_data(call: Call) -> dict[str, Any]:
    data = dataclasses.asdict(call)
    cost = data.pop("cost")
    return {
        **data,
        "wall_ms": round(cost["wall_s"] * 1000, 3),
        "cpu_ms": round(cost["cpu_s"] * 1000, 3),
        "memory": cost["memory"],
        "faults": cost["faults"],
    }
