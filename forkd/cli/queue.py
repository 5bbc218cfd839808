"""forkd queue: what waits to be delivered, why, and what an admin does about it."""

from __future__ import annotations

import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from forkd.cli.control import QUEUE_TIMEOUT_S, request
from forkd.cli.failure import CommandFailed
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.tables import ago, octets, print_facts, print_table

PAGE = 100
"""Entries in one answer: one record between our processes stays small."""
IDS = 500
"""Ids in one request: 20 characters each, below MAX_LINE_BYTES of admin/requests.py."""


@click.group()
def queue() -> None:
    """List, show, remove, retry, hold, release queued mail."""


@queue.command("list")
@daemon_options
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="Entries at most.")
@json_option
def list_(data_dir: Path, limit: int, as_json: bool) -> int:
    """Messages in the queue, oldest first, with the reason why each is still there."""
    entries: list[dict[str, Any]] = []
    more, count = True, 0
    while more and len(entries) < limit:
        after = entries[-1]["id"] if entries else ""
        page = min(PAGE, limit - len(entries))
        answer = _ask(data_dir, act="list", limit=page, after=after)
        entries += answer["entries"]
        count = answer["count"]
        more = bool(answer["more"] and answer["entries"])
    if as_json:
        print_json({"entries": entries, "count": count, "more": more})
        return 0
    if not entries:
        click.echo("the queue is empty")
        return 0
    print_table(
        ("id", "state", "age", "size", "sender", "recipients", "tries", "next", "reason"),
        [_row(entry) for entry in entries],
        right=("size", "tries"),
    )
    if more:
        click.echo(f"{len(entries)} of {count}; all: --limit {count}", err=True)
    return 0


@queue.command()
@click.argument("id")
@daemon_options
@json_option
def show(id: str, data_dir: Path, as_json: bool) -> int:
    """Everything about one message: envelope, attempts, outcomes."""
    answer = _ask(data_dir, act="show", ids=[id])
    if not answer["entries"]:
        raise CommandFailed(
            f"no message {id} in the queue", hint="delivered and removed mail is in the log only"
        )
    entry = dict(answer["entries"][0])
    detail = entry.pop("detail", "")
    if detail:
        entry["detail"] = json.loads(detail)
    if as_json:
        print_json(entry)
        return 0
    print_facts(
        [
            ("id", entry["id"]),
            ("state", entry["state"]),
            ("received", f"{_date(entry['received_at'])} ({ago(entry['received_at'])} ago)"),
            ("size", octets(entry["size"])),
            ("sender", entry["sender"] or "<>"),
            ("recipients", _recipients(entry)),
            ("attempts", entry["attempts"]),
            ("next attempt", _next(entry)),
            ("reason", entry["reason"]),
        ]
    )
    if "detail" in entry:
        click.echo()
        print_json(entry["detail"])
    return 0


@queue.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@daemon_options
@json_option
def remove(ids: tuple[str, ...], yes: bool, data_dir: Path, as_json: bool) -> int:
    """Delete messages for good: no delivery, no bounce."""
    if not yes and not as_json and sys.stdin.isatty():
        click.confirm(f"delete {_messages(len(ids))} for good?", abort=True)
    return _act(data_dir, "remove", ids, done="removed", as_json=as_json)


@queue.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@daemon_options
@json_option
def flush(ids: tuple[str, ...], data_dir: Path, as_json: bool) -> int:
    """Try to deliver now: the messages named, or all."""
    return _act(data_dir, "flush", ids, done="to be tried now", as_json=as_json)


@queue.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@daemon_options
@json_option
def hold(ids: tuple[str, ...], data_dir: Path, as_json: bool) -> int:
    """Keep messages back, also over restarts, until they are released; no flush reaches them."""
    return _act(data_dir, "hold", ids, done="on hold", as_json=as_json)


@queue.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@daemon_options
@json_option
def release(ids: tuple[str, ...], data_dir: Path, as_json: bool) -> int:
    """Deliver messages that a plugin quarantined or an admin held."""
    return _act(data_dir, "release", ids, done="released", as_json=as_json)


def _ask(data_dir: Path, *, partly: bool = False, **arguments: Any) -> dict[str, Any]:
    """The daemon's answer; `partly`: one that did something beside its error is for the caller to judge."""
    answer: dict[str, Any] = request(data_dir, "queue", timeout_s=QUEUE_TIMEOUT_S, **arguments)
    if answer.get("error") and not (partly and answer["count"]):
        raise CommandFailed(answer["error"])
    return answer


def _act(data_dir: Path, act: str, ids: tuple[str, ...], *, done: str, as_json: bool) -> int:
    pages = [ids[at : at + IDS] for at in range(0, len(ids), IDS)] or [()]
    answers = [_ask(data_dir, partly=True, act=act, ids=page) for page in pages]
    count = sum(answer["count"] for answer in answers)
    if ids and count < len(ids):
        known = f"; {_messages(count)} {done}" if count else ""
        why = "; ".join(answer["error"] for answer in answers if answer.get("error"))
        missing = len(ids) - count
        raise CommandFailed((why or f"{_messages(missing)} of those named not in the queue") + known)
    if as_json:
        print_json({"ok": True, "count": count})
    else:
        click.echo(f"{_messages(count)} {done}")
    return 0


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    return (
        entry["id"],
        entry["state"],
        ago(entry["received_at"]),
        octets(entry["size"]),
        entry["sender"] or "<>",
        _recipients(entry),
        entry["attempts"],
        _next(entry),
        entry["reason"],
    )


def _recipients(entry: dict[str, Any]) -> str:
    more = entry.get("more_recipients", 0)
    return ", ".join(entry["recipients"]) + (f" and {more} more" if more else "")


def _next(entry: dict[str, Any]) -> str:
    at = entry.get("next_try_at") or 0
    if entry["state"] not in ("active", "deferred") or not at:
        return "-"
    now = time.time()
    return "now" if at <= now else f"in {ago(2 * now - at, now)}"


def _date(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"
