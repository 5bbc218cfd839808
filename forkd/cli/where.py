"""forkd config where: who gets the mail for an address, and how it gets there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from forkd.cli.lines import tell
from forkd.cli.options import config_option, json_option, print_json
from forkd.cli.tables import print_table
from forkd.config.load import load
from forkd.config.problems import display_path
from forkd.config.schema import Route
from forkd.config.units import format_duration
from forkd.config.where import End, Where
from forkd.config.where import where as where_of
from forkd.exits import Exit

_TAKES = {
    "everybody": "taken from everybody",
    "relay": "taken from clients that may relay",
    "nobody": "not taken",
}


@click.command()
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@config_option
@json_option
def where(addresses: tuple[str, ...], config: Path | None, as_json: bool) -> int:
    """Say for each ADDRESS whether its mail is taken, which aliases count, and which way it goes.

    It asks the configuration as it would be read now, not a running daemon, and no plugin. Exit status 1:
    mail for one of them is not taken from anybody.
    """
    loaded = load(config)
    found = [where_of(loaded, address) for address in addresses]
    if as_json:
        print_json([_data(one) for one in found])
    else:
        for number, one in enumerate(found):
            if number:
                tell()
            _print(one)
    return Exit.FAILED if any(one.takes == "nobody" for one in found) else Exit.OK


def _data(one: Where) -> dict[str, Any]:
    return {
        "address": one.address,
        "taken_from": one.takes,
        "reply": one.reply,
        "aliases": [
            {"address": step.address, "file": step.file, "line": step.line, "targets": list(step.targets)}
            for step in one.steps
        ],
        "ends": [_end(end) for end in one.ends],
    }


def _end(end: End) -> dict[str, Any]:
    data: dict[str, Any] = {"address": end.address, "exists": bool(end.transport), "sender": end.sender}
    route = end.route
    if route is None:
        return data
    return data | {
        "transport": end.transport,
        "kind": end.kind,
        "mailbox": end.mailbox,
        "detail": end.detail,
        "route": end.pattern,
        "retry_first": format_duration(route.retry_first),
        "retry_max": format_duration(route.retry_max),
        "give_up": format_duration(route.give_up),
        "warn_after": format_duration(route.warn_after),
        "concurrency": route.concurrency,
    }


def _print(one: Where) -> None:
    tell(f"{one.address}: {_TAKES[one.takes]} ({one.reply})")
    for step in one.steps:
        place = f"{display_path(Path(step.file))}:{step.line}"
        tell(f"  {place}: {step.address} -> {', '.join(step.targets)}")
    for route in dict.fromkeys(end.route for end in one.ends if end.route is not None):
        print_table(
            ("  ADDRESS", "TRANSPORT", "MAILBOX", "DETAIL", "ROUTE", "SENDER"),
            [_row(end) for end in one.ends if end.route == route],
        )
        tell(f"  {_patience(route)}")
    for end in one.ends:
        if not end.transport:
            tell(f"  {end.address} does not exist")


def _row(end: End) -> tuple[str, ...]:
    return (
        f"  {end.address}",
        f"{end.transport} ({end.kind})",
        end.mailbox,
        end.detail or "-",
        end.pattern or "-",
        end.sender or "as it is",
    )


def _patience(route: Route) -> str:
    warned = f"warned of after {format_duration(route.warn_after)}" if route.warn_after else "not warned of"
    return (
        f"tried again after {format_duration(route.retry_first)} up to {format_duration(route.retry_max)}, "
        f"{warned}, given up after {format_duration(route.give_up)}; {route.concurrency} at once"
    )
