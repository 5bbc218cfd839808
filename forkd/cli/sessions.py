"""forkd sessions, forkd kick: who is connected now, and what is he about?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from forkd.cli.control import request
from forkd.cli.failure import CommandFailed
from forkd.cli.lines import tell
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.queue_choice import unit
from forkd.cli.tables import octets, print_table, seconds_ago
from forkd.config.units import parse_duration
from forkd.exits import Exit
from forkd.queue.ids import ID
from forkd.rpc.messages_sessions import MOST, Sort, State

LIMIT = 100

COLUMNS = (
    *("id", "client", "listener", "state", "age", "idle"),
    *("user", "tls", "mails", "refused", "transaction"),
)
RIGHT = ("mails", "refused")


@click.command()
@daemon_options
@click.option("--client", metavar="ADDRESS", help="Of this address or network: 192.0.2.0/24.")
@click.option("--listener", metavar="NAME", help="At this listener.")
@click.option("--user", metavar="NAME", help="Who has authenticated as this user.")
@click.option(
    "--state", multiple=True, type=click.Choice(get_args(State)),
    help="In this state; several: in any of them.",
)  # fmt: skip
@click.option("--idle", callback=unit(parse_duration), metavar="TIME", help="Not heard for so long: 30s, 5m.")
@click.option("--age", callback=unit(parse_duration), metavar="TIME", help="Connected for so long.")
@click.option(
    "--sort", type=click.Choice(get_args(Sort)), default="age", show_default=True, help="What comes first."
)
@click.option(
    "--limit", type=click.IntRange(0, MOST), default=LIMIT, show_default=True, help="So many at most."
)
@json_option
def sessions(data_dir: Path, sort: str, limit: int, as_json: bool, **chosen: Any) -> int:
    """Sessions that there are now, over all workers; the oldest first.

    States: connect (not greeted yet), tls, idle, auth, mail, data, plugin (its answer is awaited),
    wait (another answer is), tarpit, commit, closing.
    """
    wanted = {name: value for name, value in chosen.items() if value}
    answer = request(data_dir, "sessions", filter=wanted, sort=sort, limit=limit)
    if as_json:
        print_json(answer)
        return 0
    found = answer["sessions"]
    if found:
        print_table(COLUMNS, [row(session) for session in found], right=RIGHT)
    else:
        tell("no session fits" if answer["total"] else "no sessions")
    if len(found) < answer["fit"]:
        tell(f"{len(found)} of {answer['fit']}; see more by --limit", error=True)
    say_silent(answer["silent"])
    return 0


def row(session: dict[str, Any]) -> tuple[object, ...]:
    """Of the table, here and in `forkd top`."""
    name = session["name"] or session["helo"]
    return (
        session["id"],
        f"{session['client']} ({name})" if name else session["client"],
        session["listener"],
        f"plugin {session['asked']}" if session["state"] == "plugin" else session["state"],
        seconds_ago(session["age_s"]),
        seconds_ago(session["idle_s"]),
        session["user"] or "-",
        session["tls"].partition(" ")[0] or "-",
        session["messages"],
        session["errors"],
        _mail(session),
    )


def _mail(session: dict[str, Any]) -> str:
    """`<a@example.org> to 3, 4.0 KiB`: the transaction so far."""
    if not session["mail"]:
        return "-"
    size = f", {octets(session['octets'])}" if session["octets"] else ""
    return f"<{session['sender']}> to {session['recipients']}{size}"


def say_silent(silent: list[dict[str, Any]]) -> None:
    """Whose sessions are missing, and why."""
    for worker in silent:
        why = f"worker {worker['worker']} (pid {worker['pid']}) did not answer: {worker['why']}"
        tell(f"{why}; its sessions are not in here", error=True)


@click.command()
@daemon_options
@click.argument("ids", nargs=-1, required=True, metavar="SESSION-ID...")
@json_option
def kick(data_dir: Path, ids: tuple[str, ...], as_json: bool) -> int:
    """End sessions: 421 4.3.2, whatever they are about; no mail is lost, their clients may come again.

    A message that is just being made durable is answered first, and one that its next hop has (accept =
    "proxy") too, where that answer comes within 30 s: without it that mail may come twice. The ids are
    those of `forkd sessions` and of the log. Exit status 1: one of them is not there, or its worker does not
    say whether it is.
    """
    if wrong := [each for each in ids if not ID.fullmatch(each.upper())]:
        raise CommandFailed(
            f"no id of a session: {', '.join(wrong)}",
            hint="`forkd sessions` lists them: 15 to 20 digits and capital letters",
            status=Exit.USAGE,
        )
    answer = request(data_dir, "kick", ids=[each.upper() for each in ids])
    missing = [f"no such session: {', '.join(answer['not_there'])}"] if answer["not_there"] else []
    if answer["unknown"]:
        missing.append(
            f"not known whether it has ended, its worker is silent: {', '.join(answer['unknown'])}"
        )
    if as_json:
        print_json({"ok": not missing, **answer})
        return int(bool(missing))
    count = len(answer["kicked"])
    if count:
        tell(f"{count} session{'' if count == 1 else 's'} ended")
    say_silent(answer["silent"])
    if missing:
        raise CommandFailed("; ".join(missing))
    return 0
