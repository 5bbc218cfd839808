"""forkd queue flush, hold, release, remove: what an admin does to messages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import safe, say, tell
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.queue_ask import Queue, progress
from forkd.cli.queue_choice import Choice, choice_options
from forkd.exits import Exit

IDS = 500
"""Ids in one request: 20 characters each, below MAX_LINE_BYTES of admin/requests.py."""
SHOWN = 20
"""Messages that could not be acted on."""

_MEANWHILE = (": not in the queue", ": not as it was chosen any more")
"""As qmgr/acts.py and requests.py say it."""

_F = TypeVar("_F", bound=Callable[..., Any])


def _options(function: _F) -> _F:
    """What all acts have."""
    for option in (
        json_option,
        daemon_options,
        click.option("--all", "all_", is_flag=True, help="All of the queue."),
        choice_options,
        click.argument("ids", nargs=-1, metavar="[ID...]"),
    ):
        function = option(function)
    return function


def _destination(function: _F) -> _F:
    """What acts on next hops have."""
    return click.option(
        "--destination", default="", metavar="NAME", help="This next hop or transport instead of messages."
    )(function)


@click.command()
@_options
@_destination
def flush(
    *, ids: tuple[str, ...], choice: Choice, all_: bool, destination: str, data_dir: Path, as_json: bool
) -> int:
    """Try to deliver now: the messages named or chosen, or all that wait.

    --destination says that a next hop, a transport, or TRANSPORT/NEXT-HOP is back: what waits for it is tried
    now.
    """
    queue = Queue(data_dir)
    if destination:
        _instead(destination, ids, choice, all_=all_)
        count = queue.ask(act="flush", destination=destination)["count"]
        return _said(count, f"to be tried now, for {destination}", as_json=as_json)
    if ids or choice.given:
        chosen = _chosen(queue, ids, choice, all_=all_)
        return _act(queue, "flush", chosen, choice, "to be tried now", as_json=as_json)
    count = seen = 0
    with progress("looked at") as told:
        for answer in queue.pages("flush"):
            count += answer["count"]
            seen += answer["seen"]
            told(seen, seen)
    return _said(count, "to be tried now", as_json=as_json)


@click.command()
@_options
@_destination
def hold(
    *, ids: tuple[str, ...], choice: Choice, all_: bool, destination: str, data_dir: Path, as_json: bool
) -> int:
    """Keep messages back, also over restarts, until they are released; no flush reaches them.

    --destination starts no delivery to a next hop that mail waits for, a transport, or TRANSPORT/NEXT-HOP,
    until that is released. It is not written down: a restart of forkd, or of its qmgr, ends it.
    """
    queue = Queue(data_dir)
    if destination:
        _instead(destination, ids, choice, all_=all_)
        queue.ask(act="hold", destination=destination)
        return _held(f"nothing is delivered to {destination} now", as_json=as_json)
    return _act(queue, "hold", _chosen(queue, ids, choice, all_=all_), choice, "on hold", as_json=as_json)


@click.command()
@_options
@_destination
def release(
    *, ids: tuple[str, ...], choice: Choice, all_: bool, destination: str, data_dir: Path, as_json: bool
) -> int:
    """Deliver messages that a plugin quarantined or an admin held; --destination: to it again."""
    queue = Queue(data_dir)
    if destination:
        _instead(destination, ids, choice, all_=all_)
        queue.ask(act="release", destination=destination)
        return _held(f"mail for {destination} is delivered again", as_json=as_json)
    if (choice.given or all_) and not ids and "states" not in choice.fields:
        # Nothing else can be released.
        choice = Choice({**choice.fields, "states": ("hold",)}, choice.pattern)
    return _act(queue, "release", _chosen(queue, ids, choice, all_=all_), choice, "released", as_json=as_json)


@click.command()
@_options
@click.option("--bounce", is_flag=True, help="With a report to the sender, as of any mail that fails.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(
    *,
    ids: tuple[str, ...],
    choice: Choice,
    all_: bool,
    bounce: bool,
    yes: bool,
    data_dir: Path,
    as_json: bool,
) -> int:
    """Delete messages for good: no delivery, and no report to the sender but with --bounce.

    What is being delivered just now is removed when that ends, as far as it is still there. A report goes to
    whoever gets one for mail that fails: none to the null sender. What was chosen by options is asked about
    first; where nobody can be asked, --yes has to be given. Messages named by their ids are not.
    """
    queue = Queue(data_dir)
    chosen = _chosen(queue, ids, choice, all_=all_)
    named = bool(ids) and not choice.given
    if chosen and not (yes or named):
        told = ", with a report to the sender" if bounce else ""
        if not sys.stdin.isatty():
            raise CommandFailed(
                f"{_messages(len(chosen))} would be deleted for good{told}, and nobody can be asked",
                hint="say --yes if that is wanted",
                status=Exit.USAGE,
            )
        click.confirm(safe(f"delete {_messages(len(chosen))} for good{told}?"), abort=True, err=True)
    return _act(queue, "bounce" if bounce else "remove", chosen, choice, "removed", as_json=as_json)


def _instead(destination: str, ids: Sequence[str], choice: Choice, *, all_: bool) -> None:
    if ids or choice.given or all_:
        raise click.UsageError(f"either --destination {destination} or messages")


def _held(text: str, *, as_json: bool) -> int:
    if as_json:
        print_json({"ok": True})
    else:
        tell(text)
    return 0


def _chosen(queue: Queue, ids: Sequence[str], choice: Choice, *, all_: bool) -> list[str]:
    """The ids that an act is for."""
    if not (ids or choice.given or all_):
        raise click.UsageError("name messages, choose them by options, or say --all")
    if ids and all_:
        raise click.UsageError("either ids or --all")
    if ids and not choice.given:
        return list(dict.fromkeys(ids))
    with progress("looked at") as told:
        return [entry["id"] for entry in queue.entries(choice, told, tuple(dict.fromkeys(ids)))]


def _act(queue: Queue, act: str, ids: Sequence[str], choice: Choice, done: str, *, as_json: bool) -> int:
    """In pages, until none is left; what a choice found may have gone meanwhile, what was named may not."""
    todo, count, problems = list(ids), 0, []
    with progress(done) as told:
        while todo:
            page, todo = _still(queue, todo[:IDS], choice), todo[IDS:]
            if page:
                answer = queue.ask(act=act, ids=page, **choice.checked())
                left = answer.get("left", [])
                problems += answer.get("not_done", [])
                count += answer["count"]
                if len(left) == len(page):
                    raise CommandFailed(f"qmgr has no time for it; {_messages(count)} {done}")
                todo = [*left, *todo]
            told(len(ids) - len(todo), len(ids))
    missing = len(ids) - count
    if choice.given:
        # What was found by looking may have gone or changed since: that is no failure.
        problems = [problem for problem in problems if not problem.endswith(_MEANWHILE)]
        if missing and not problems:
            say(f"note: {_messages(missing)} had gone or changed meanwhile")
            missing = 0
    if missing:
        why = "; ".join(problems[:SHOWN]) or f"{_messages(missing)} not {done}"
        raise CommandFailed(f"{why}; {_messages(count)} {done}" if count else why)
    return _said(count, done, as_json=as_json)


def _still(queue: Queue, ids: list[str], choice: Choice) -> list[str]:
    """Those that a regular expression, which is matched here, still fits: time may have passed since."""
    if choice.pattern is None:
        return ids
    return [entry["id"] for entry in queue.entries(choice, lambda _done, _total: None, ids)]


def _said(count: int, done: str, *, as_json: bool) -> int:
    if as_json:
        print_json({"ok": True, "count": count})
    else:
        tell(f"{_messages(count)} {done}")
    return 0


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"
