"""Does each path of a [transport] of kind "maildir" lead where it should?"""

from __future__ import annotations

import string

from forkd.config.checking import Check
from forkd.config.lines import KeyPath
from forkd.config.maildir_schema import FIELDS, Maildir
from forkd.config.problems import toml_key
from forkd.config.reader import nearest


def maildirs(c: Check) -> None:
    """Of CHECKS: only the fields we fill in; no folder of mail with two meanings."""
    for name, transport in c.config.transport.items():
        if not isinstance(transport, Maildir):
            continue
        for key in ("path", "catch_all"):
            path: KeyPath = ("transport", name, key)
            text = getattr(transport, key)
            if c.clean(path) and (text or key == "path"):
                _path(c, path, text)
        shown = f"transport.{toml_key(name)}"
        if transport.subfolder != "never" and "{detail}" in transport.path:
            rule = "path has {detail} already: an address would have two folders"
            c.bad(
                ("transport", name, "subfolder"),
                rule,
                value=transport.subfolder,
                hint="leave one of them out",
            )
        if transport.catch_all and "{user}" not in transport.path:
            c.notes.append(
                f"{shown}.catch_all is used only until the Maildir of path is there: it has no {{user}}"
            )
        if transport.subfolder == "create":
            c.notes.append(f'{shown}.subfolder = "create": whoever sends mail can make folders in mailboxes')


def _path(c: Check, path: KeyPath, text: str) -> None:
    if not text:
        c.bad(path, "this must not be empty", value=text)
        return
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError:
        c.bad(path, "the braces do not match", value=text)
        return
    for field in sorted({field for _, field, _, _ in parsed if field is not None} - set(FIELDS)):
        hint = nearest(field, FIELDS, listing=False)
        c.bad(path, "only {domain}, {user} and {detail} can stand in a path", value=text, hint=hint)
    if ".." in text.split("/"):
        c.bad(path, "no .. in a path: write where it leads", value=text)
