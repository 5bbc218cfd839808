"""forkd config import-qmail: a configuration from the control files of a qmail-smtpd."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click

from forkd.cli.failure import CommandFailed
from forkd.cli.lines import say
from forkd.cli.options import json_option, print_document, print_json
from forkd.config.problems import Problems, display_path
from forkd.config.qmail import Said, read_control
from forkd.config.qmail_known import instead
from forkd.config.qmail_lists import check_lists
from forkd.config.qmail_toml import LISTS_FILE, config_toml, lists_toml
from forkd.exits import Exit

_INDIMAIL: Final = ("/usr/sbin/qmail-queue", "/var/indimail/bin/qmail-queue")
_QMAIL: Final = ("/var/qmail/bin/qmail-queue", "/usr/sbin/qmail-queue", "/usr/lib/qmail/qmail-queue")
"""Where qmail, netqmail and notqmail have it."""


@click.command("import-qmail")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Write here, not to stdout."
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option(
    "--queue-program",
    metavar="PATH",
    default="",
    help="qmail-queue, which the mail is handed to; default: where qmail has it, if it is there.",
)
@json_option
def import_qmail(folder: Path, output: Path | None, force: bool, queue_program: str, as_json: bool) -> int:
    """Write the TOML that says what the qmail control files in DIR say.

    With --output, lists of senders and recipients go to plugins.d beside FILE. What has no counterpart in
    forkd is listed on standard error, with what does the same. Nothing in DIR is changed, and none of it is
    needed any more; `qmail_control` below [server] instead has forkd read DIR at each start and reload.
    """
    problems = Problems()
    folder = Path.cwd() / folder
    if not folder.is_dir():
        raise CommandFailed(f"there is no folder {display_path(folder)}", status=Exit.USAGE)
    said = read_control(folder, problems)
    check_lists(said)
    problems.raise_if_any()
    program = queue_program or next((path for path in places(folder) if os.access(path, os.X_OK)), "")
    if program and not Path(program).is_absolute():
        raise click.UsageError("--queue-program is an absolute path")
    texts = {"forkd.toml": config_toml(said, program), LISTS_FILE: lists_toml(said)}
    if output is not None:
        _write(output, texts, force=force)
    notes = [*said.notes, *([] if program else _without_program(said))]
    if as_json:
        others = {name: instead(name) for name in said.others}
        print_json({"ok": True, "files": texts, "notes": notes, "others": others})
        return 0
    if output is None:
        print_document(_on_one_page(texts))
    _tell(said, notes)
    return 0


def places(folder: Path) -> list[str]:
    """Where the queue program may be that these control files are for, the likeliest first: two mail systems
    on one machine each have one."""
    homes = dict.fromkeys((folder.parent, folder.resolve().parent))
    beside = [str(home / "bin" / "qmail-queue") for home in homes]
    usual = (*_INDIMAIL, *_QMAIL) if any(home.name == "indimail" for home in homes) else (*_QMAIL, *_INDIMAIL)
    return list(dict.fromkeys((*beside, *usual)))


def _write(output: Path, texts: dict[str, str], *, force: bool) -> None:
    files = {output if name == "forkd.toml" else output.parent / name: text for name, text in texts.items()}
    files = {path: text for path, text in files.items() if text}
    there = [path for path in files if path.exists()]
    if there and not force:
        raise CommandFailed(
            f"{display_path(there[0])} is there already",
            hint="name another file, or say --force",
            status=Exit.USAGE,
        )
    for path, text in files.items():
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            raise CommandFailed(f"{display_path(path)} cannot be written: {said}") from None
        say(f"written: {display_path(path)}")


def _on_one_page(texts: dict[str, str]) -> str:
    """forkd.toml, and the other file as comments behind it."""
    lists = texts[LISTS_FILE]
    if not lists:
        return texts["forkd.toml"]
    rows = "".join(f"# {row}\n" if row else "#\n" for row in lists.splitlines())
    head = f"# What belongs into {LISTS_FILE} beside this file (--output writes it there):\n#\n"
    return f"{texts['forkd.toml']}\n{head}{rows}"


def _without_program(said: Said) -> Iterator[str]:
    """What the files say and Maildirs cannot do."""
    yield "no qmail-queue found; mail goes into Maildirs unless --queue-program names one"
    if said.elsewhere:
        names = sorted(said.elsewhere)
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield (
            f"{shown}: in {_files(said.domains[name] for name in names)}, and neither in locals nor in "
            "virtualdomains: qmail passes this mail on to another host; here it would stay, in Maildirs"
        )
    if said.relay:
        files = _files(row.file for row in said.relay.values())
        yield (
            f"{files}: its {len(said.relay)} networks are written as comments: Maildirs are no way to other "
            "domains, so nobody may relay"
        )


def _files(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _tell(said: Said, notes: list[str]) -> None:
    for note in notes:
        say(f"note: {note}")
    if said.others:
        say("not taken over, and what does the same here:")
    width = max(map(len, said.others), default=0)
    for name in said.others:
        say(f"  {name:<{width}}  {instead(name)}")
