"""forkd queue show: everything about one message."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import tell
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.queue_ask import Queue
from forkd.cli.queue_list import next_try
from forkd.cli.tables import ago, octets, print_facts, print_table


@click.command()
@click.argument("id")
@daemon_options
@json_option
def show(id: str, data_dir: Path, as_json: bool) -> int:
    """Everything about one message: envelope, attempts, what became of each recipient."""
    queue = Queue(data_dir, reads=True)
    answer = queue.ask(act="show", ids=[id])
    if not answer["entries"]:
        raise CommandFailed(
            f"no message {id} in the queue", hint="delivered and removed mail is in the log only"
        )
    entry = dict(answer["entries"][0])
    entry.pop("t", None)
    detail = json.loads(entry.pop("detail", "") or "{}")
    if as_json:
        print_json({**entry, "detail": detail, "offline": queue.offline})
        return 0
    print_facts(_facts(entry, detail.get("envelope", {})))
    envelope = detail.get("envelope", {})
    _table("recipients", _RECIPIENTS, _recipients(detail), more=detail.get("recipients", 0))
    _table("attempts", _ATTEMPTS, [_attempt(line) for line in detail.get("attempts", ())])
    _table("edits", _EDITS, [_edit(edit) for edit in envelope.get("edits", ())])
    return 0


_RECIPIENTS = ("recipient", "status", "code", "next hop", "what was said")
_ATTEMPTS = ("when", "what", "next")
_EDITS = ("edit", "field", "value")

_ENVELOPE = (
    ("original sender", "original_sender"),
    ("client", "client_name"),
    ("client address", "client_ip"),
    ("helo", "helo"),
    ("protocol", "protocol"),
    ("tls", "tls"),
    ("user", "user"),
    ("envid", "envid"),
    ("ret", "ret"),
    ("session", "session"),
)
"""Shown where they say something."""


def _facts(entry: dict[str, Any], envelope: dict[str, Any]) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("id", entry["id"]),
        ("state", entry["state"]),
        ("received", f"{_date(entry['received_at'])} ({ago(entry['received_at'])} ago)"),
        ("size", octets(entry["size"])),
        ("sender", entry["sender"] or "<>"),
        ("attempts", entry["attempts"]),
        ("next attempt", next_try(entry)),
        ("reason", entry["reason"]),
    ]
    return facts + [(name, envelope[key]) for name, key in _ENVELOPE if envelope.get(key)]


def _recipients(detail: dict[str, Any]) -> list[tuple[str, ...]]:
    """As they stand in the envelope, each with its last outcome."""
    said = {outcome["index"]: outcome for outcome in detail.get("outcomes", ())}
    rows: list[tuple[str, ...]] = []
    for index, recipient in enumerate(detail.get("envelope", {}).get("recipients", ())):
        outcome = said.get(index, {})
        rows.append(
            (
                recipient["address"],
                outcome.get("status", "-"),
                outcome.get("enhanced", ""),
                outcome.get("host", ""),
                outcome.get("reply") or outcome.get("text", ""),
            )
        )
    return rows


def _attempt(line: dict[str, Any]) -> tuple[str, ...]:
    if "hold" in line:
        return _date(line["at"]), line["hold"] or "released", ""
    what = ", ".join(f"{line[name]} {name}" for name in ("delivered", "deferred", "failed") if line.get(name))
    return _date(line["at"]), what, _date(line["next_try_at"]) if line.get("next_try_at") else "-"


def _edit(edit: dict[str, Any]) -> tuple[str, ...]:
    place = f" ({edit['n']})" if edit.get("n") else ""
    return f"{edit['op']}{place}", edit["name"], edit.get("value", "")


def _table(what: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, more: int = 0) -> None:
    shown = list(rows)
    if not shown:
        return
    tell()
    print_table(columns, shown)
    if more > len(shown):
        tell(f"and {more - len(shown)} {what} more")


def _date(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
