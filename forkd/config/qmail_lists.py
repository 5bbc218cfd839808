"""What becomes of badmailfrom, badrcptto and goodrcptto? An entry for qmail_lists, if they are sound.

The plugin reads the files itself. Its lines are read here too, by the same code, so that one which means
nothing is named by `config check` and `config import-qmail`, and not first by a daemon that does not start.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from forkd.config.problems import Source, display_path
from forkd.config.qmail_files import CDB, Control
from forkd.sdk.qmail_list import List

if TYPE_CHECKING:
    from forkd.config.qmail import Said

PLUGIN: Final = "qmail_lists"
ORDER: Final = 5
"""Of the plugin: qmail-smtpd looks at its lists before it asks plugins."""

LISTS: Final = {
    "sender_lists": ("badmailfrom", "badmailpatterns"),
    "recipient_lists": ("badrcptto", "badrcptpatterns"),
    "exempt_lists": ("goodrcptto", "goodrcptpatterns"),
}
"""Setting of the plugin qmail_lists -> control files; the first one may be a .cdb too."""

Entries = Iterable[tuple[Source, dict[str, Any]]]


def read_lists(control: Control, said: Said) -> None:
    """Which of them have something in them."""
    said.regex = bool((control.number("qregex") or (0,))[0])
    for setting, (plain, patterns) in LISTS.items():
        compiled = f"{plain}{CDB}"
        found = {compiled: control.keys(compiled), plain: control.lines(plain)}
        if control.has(patterns) and said.regex:
            said.notes.append(f"{patterns} is not read where qregex is set, as in qmail-smtpd: {plain} is")
        elif control.has(patterns):
            found[patterns] = control.lines(patterns)
        if files := {name: rows for name, rows in found.items() if rows}:
            said.lists[setting] = files
    if said.lists.keys() == {"exempt_lists"}:
        said.lists.clear()
        said.notes.append("goodrcptto exempts from badrcptto, and there is none: it does nothing")


def check_lists(said: Said) -> None:
    """Name every line that means nothing."""
    for files in said.lists.values():
        scratch = List(regex=said.regex)
        for file, rows in files.items():
            take = scratch.add_key if file.endswith(CDB) else scratch.add
            for row in rows:
                try:
                    take(row.text)
                except ValueError as why:
                    said.control.bad(row, str(why))


def lists_entry(said: Said, entries: Entries, notes: list[str]) -> dict[str, Any] | None:
    """What plugins.d/05-qmail_lists.toml would say; None: nothing, or the admin has written one himself. That
    counts, also where it is switched off, which is said: samples are off, and easily copied."""
    if not said.lists:
        return None
    if own := [(entry, raw) for entry, raw in entries if raw.get("plugin") == PLUGIN]:
        _say_what_counts(said, own, notes)
        return None
    check_lists(said)
    files = {setting: [str(said.folder / name) for name in some] for setting, some in said.lists.items()}
    return {
        "plugin": PLUGIN,
        "order": ORDER,
        "settings": {**files, "regex": said.regex},
        "grants": {"files": [file for some in files.values() for file in some]},
    }


def _say_what_counts(said: Said, own: Entries, notes: list[str]) -> None:
    named: set[str] = set()
    shown, on = "", False
    for entry, raw in own:
        if on and raw.get("enabled") is False:
            continue
        shown = display_path(entry.path) if entry.path else ""
        on = raw.get("enabled") is not False
        if on:
            named |= _named(entry.folder, raw.get("settings"))
    unread = [
        display_path(said.folder / name)
        for files in said.lists.values()
        for name in files
        if str(said.folder / name) not in named
    ]
    if unread and on:
        notes.append(f"{shown} counts for the lists, and not {', '.join(unread)}: it does not name them")
    elif unread:
        notes.append(
            f"{shown} counts, and has enabled = false: nobody is refused by {', '.join(unread)}; "
            "remove it, and they are in force, or write them there and enabled = true"
        )


def _named(folder: Path, settings: object) -> set[str]:
    """The files that an entry's settings name."""
    lists = [settings.get(key) for key in LISTS] if isinstance(settings, dict) else []
    return {
        os.path.normpath(folder / path)
        for some in lists
        if isinstance(some, list)
        for path in some
        if isinstance(path, str)
    }
