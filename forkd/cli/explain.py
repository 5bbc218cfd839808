"""forkd explain: what happened to a session or a message, and why?"""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import click

from forkd.admin.trace_file import TraceFile, Unusable
from forkd.cli.control import request
from forkd.cli.explain_story import Story
from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say, tell
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.tables import print_facts, print_table
from forkd.exits import Exit
from forkd.queue.ids import ID, time_of
from forkd.rpc import places

ANSWER_S = 20.0
"""A busy store writes first what it was told before the question."""

_ID_IN_TEXT = re.compile(rf"(?<![0-9A-Za-z]){ID.pattern}(?![0-9A-Za-z])")


@click.command()
@click.argument("id", nargs=-1, required=True)
@daemon_options
@json_option
def explain(id: tuple[str, ...], data_dir: Path, as_json: bool) -> int:
    """What happened to a session or a message, and why.

    ID is a session's or a message's: from the log, from a reply ("queued as ID", "(session ID)"), from a
    Received field; the whole reply or line may be given as it is. Told are the plugins' verdicts with their
    time and what they used, failures and limits, replies, edits, and what became of each recipient; [trace]
    says how long it is kept.
    """
    wanted = _wanted(" ".join(id))
    answer = _ask(data_dir, wanted)
    story = Story(answer)
    if not story.events:
        raise _unknown(wanted, answer, story)
    if as_json:
        print_json(story.data())
        return 0
    print_facts(story.facts())
    tell()
    print_table(("when", "what", "how it went"), story.rows())
    for note in story.notes():
        tell(f"note: {note}")
    return 0


def _wanted(text: str) -> str:
    """The id in what was given: the first, where a whole line has several."""
    now = time.time()
    found: list[str] = [each for each in _ID_IN_TEXT.findall(text) if 0 < time_of(each) < now + 86_400]
    if not found:
        raise CommandFailed(
            f"there is no id in {text!r}",
            hint="an id has 15 to 20 digits and capital letters; the log and the replies have them",
        )
    return found[0]


def _ask(data_dir: Path, id_: str) -> dict[str, Any]:
    """What admin knows; where no forkd runs, what its file says."""
    since = time_of(id_)
    try:
        answer: dict[str, Any] = request(data_dir, "explain", timeout_s=ANSWER_S, id=id_, since=since)
    except CommandFailed as failure:
        path = places.trace_file(data_dir).absolute()
        if failure.status is not Exit.NO_DAEMON or not path.exists():
            raise
        say(f"note: no forkd runs here; read from {path}")
        return _read(path, id_, since)
    return answer


def _read(path: Path, id_: str, since: float) -> dict[str, Any]:
    file = TraceFile(path, keep_s=0, sessions=0, max_bytes=0)
    try:
        file.open_to_read()
        return file.find(id_, since=since, now=time.time())
    except (sqlite3.Error, Unusable) as error:
        hint = "run this as root, or as the user that owns it"
        raise CommandFailed(f"{path} cannot be read: {error}", hint=hint) from None
    finally:
        file.drop()


def _unknown(id_: str, answer: dict[str, Any], story: Story) -> CommandFailed:
    made, oldest = time_of(id_), answer["oldest"]
    if made < oldest:
        when = f"it is of {story.date(made)}, and what is kept begins at {story.date(oldest)}"
        return CommandFailed(f"nothing is kept of {id_}: {when}", hint="[trace] says how long and how much")
    lost = story.lost()
    return CommandFailed(
        f"nothing is known of {id_}" + (f"; {lost}, and it may have been in them" if lost else ""),
        hint="is it of this forkd? The log has it, if it is",
    )
