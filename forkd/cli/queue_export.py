"""forkd queue export: messages as they would be delivered, to standard output, files, or an mbox."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say
from forkd.cli.options import daemon_options, json_option, print_json
from forkd.cli.queue_ask import Queue, progress
from forkd.cli.queue_choice import Choice, choice_options
from forkd.cli.queue_mbox import mbox
from forkd.cli.queue_offline import path_of, unreadable
from forkd.exits import Exit
from forkd.message.edits import LineEnd, stream
from forkd.queue.format import Damaged
from forkd.queue.spool import spool_root
from forkd.queue.stored import StoredMessage, load

Form = Callable[[StoredMessage], Iterator[bytes]]


def _delivered(message: StoredMessage) -> Iterator[bytes]:
    """Trace field and edits applied; line ends of files here."""
    envelope = message.envelope
    return stream(message.chunks(), envelope.trace, envelope.edits, line_end=LineEnd.LF)


def _raw(message: StoredMessage) -> Iterator[bytes]:
    return message.chunks()


def _envelope(message: StoredMessage) -> Iterator[bytes]:
    data = msgspec.to_builtins(message.envelope)
    yield msgspec.json.format(msgspec.json.encode({"id": message.id, **data}), indent=2) + b"\n"


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@choice_options
@click.option("--all", "all_", is_flag=True, help="All of the queue.")
@click.option("--raw", is_flag=True, help="As received: without trace field and edits, CRLF line ends.")
@click.option("--envelope", is_flag=True, help="Sender, recipients and facts as JSON instead of the message.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="A file for each: ID.eml, or ID.json with --envelope; made when it is not there.",
)
@click.option(
    "--mbox",
    "mailbox",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="All into one new mbox file (mboxrd); -: standard output.",
)
@daemon_options
@json_option
def export(
    *,
    ids: tuple[str, ...],
    choice: Choice,
    all_: bool,
    raw: bool,
    envelope: bool,
    folder: Path | None,
    mailbox: Path | None,
    data_dir: Path,
    as_json: bool,
) -> int:
    """Messages as they would be delivered: with trace field and edits, in the line ends of files.

    One goes to standard output; more need a folder or an mbox. What is exported stays in the queue. Reads
    the spool's files: root may, and the user that owns them.

    With --json the counts are printed, where the messages go to files.
    """
    if raw and (envelope or mailbox):
        raise click.UsageError("--raw goes with neither --envelope nor --mbox")
    if mailbox and (envelope or folder):
        raise click.UsageError("--mbox goes with neither --envelope nor --to")
    if as_json and str(mailbox) == "-":
        raise click.UsageError("--json and --mbox - would both be printed: write the mbox to a file")
    chosen = _chosen(data_dir, ids, choice, all_=all_)
    root = str(spool_root(data_dir))
    form = _envelope if envelope else _raw if raw else _delivered
    try:
        if mailbox is not None:
            done = _into_mbox(root, chosen, mailbox)
        elif folder is not None:
            done = _into_folder(root, chosen, folder, form, "json" if envelope else "eml")
        else:
            return _to_stdout(root, chosen, form)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CommandFailed(f"{error.filename or mailbox or folder}: {error.strerror}") from None
    missing = len(chosen) - done
    if as_json:
        print_json({"ok": not (missing and ids), "exported": done, "gone": missing})
    elif mailbox is None or str(mailbox) != "-":
        say(f"{done} exported" + (f", {missing} had gone meanwhile" if missing else ""))
    return Exit.FAILED if missing and ids else Exit.OK


def _chosen(data_dir: Path, ids: Sequence[str], choice: Choice, *, all_: bool) -> list[str]:
    if not (ids or choice.given or all_):
        raise click.UsageError("name messages, choose them by options, or say --all")
    if ids and not choice.given:
        return list(dict.fromkeys(ids))
    with progress("looked at") as told:
        found = Queue(data_dir, reads=True).entries(choice, told, ids)
        return [entry["id"] for entry in found]


def _to_stdout(root: str, chosen: Sequence[str], form: Form) -> int:
    if len(chosen) != 1:
        raise CommandFailed(
            f"{len(chosen)} messages fit; standard output takes one",
            hint="say --to FOLDER, --mbox FILE, or --mbox -",
            status=Exit.USAGE,
        )
    message = _load(root, chosen[0])
    if message is None:
        raise CommandFailed(
            f"no message {chosen[0]} in the queue", hint="delivered and removed mail is in the log only"
        )
    _write(sys.stdout.buffer, message, form)
    sys.stdout.buffer.flush()
    return Exit.OK


def _into_folder(root: str, chosen: Sequence[str], folder: Path, form: Form, suffix: str) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    with progress("exported") as told:
        for number, queue_id in enumerate(chosen, 1):
            message = _load(root, queue_id)
            if message is not None:
                done += _into_file(folder / f"{queue_id}.{suffix}", message, form)
            told(number, len(chosen))
    return done


def _into_file(path: Path, message: StoredMessage, form: Form) -> bool:
    """False: it went meanwhile. No file is left that is not whole."""
    with _new(path) as file:
        try:
            _write(file, message, form)
        except BaseException as failure:
            path.unlink()
            if isinstance(failure, _Gone):
                return False
            raise
    return True


def _into_mbox(root: str, chosen: Sequence[str], mailbox: Path) -> int:
    done = 0
    whole = contextlib.nullcontext(sys.stdout.buffer) if str(mailbox) == "-" else _new(mailbox)
    with whole as file, progress("exported") as told:
        for number, queue_id in enumerate(chosen, 1):
            message = _load(root, queue_id)
            if message is not None:
                done += append_to_mbox(file, message)
            told(number, len(chosen))
        file.flush()
    return done


def append_to_mbox(file: BinaryIO, message: StoredMessage) -> bool:
    """False: it went meanwhile, and nothing is left of it. Raises CommandFailed where that cannot be."""
    begin = file.tell() if file.seekable() else None
    try:
        _write(file, message, lambda message: mbox(_delivered(message), message.envelope))
    except _Gone:
        if begin is None:
            raise
        file.seek(begin)
        file.truncate()
        return False
    return True


def _new(path: Path) -> BinaryIO:
    """Nobody else's to read, and nothing of the name before."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")


def _load(root: str, queue_id: str) -> StoredMessage | None:
    """None: it has gone. Raises CommandFailed."""
    path = path_of(root, queue_id)
    if path is None:
        return None
    try:
        message = load(path, queue_id)
        # A delivered message's file is emptied, renamed and used again: was it still this one?
        return message if os.path.exists(path) else None  # noqa: PTH110
    except FileNotFoundError:
        return None
    except Damaged as damage:
        raise CommandFailed(f"{queue_id} is damaged: {damage}") from None
    except OSError as error:
        raise unreadable(path, error) from None


def _write(file: BinaryIO, message: StoredMessage, form: Form) -> None:
    """Raises CommandFailed, also where it went meanwhile (only a large one can)."""
    try:
        for piece in form(message):
            file.write(piece)
    except FileNotFoundError:
        raise _Gone(f"{message.id} was delivered or removed while it was read") from None
    except Damaged as damage:
        raise CommandFailed(f"{message.id} is damaged: {damage}") from None


class _Gone(CommandFailed):
    """In the middle of it."""
