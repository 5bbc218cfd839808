"""Can [admin] be meant as it stands? Entries are written as names are, and are somebody on this machine."""

from __future__ import annotations

import grp
import pwd
import re
from typing import Final

from forkd.config.checking import Check

ROLES: Final = ("view", "operate", "admin")

MAX_ID: Final = 2**32 - 2
"""The largest uid and gid; one more is "nobody in particular" to the kernel."""

_ENTRY: Final = re.compile(r"%?[^\s%:,/\x00-\x1f\x7f]{1,256}")


def roles(c: Check) -> None:
    """Of CHECKS. Whom this machine does not know is a note: the file may be for another one."""
    for role in ROLES:
        path = ("admin", role)
        if not c.clean(path):
            continue
        for entry in getattr(c.config.admin, role):
            name = entry.removeprefix("%")
            if not _ENTRY.fullmatch(entry) or (name.isdecimal() and int(name) > MAX_ID):
                rule = "this is a user, %group, or the number of one"
                c.bad(path, rule, value=entry, hint='write "alice", "%adm", "1000" or "%100"')
            elif not name.isdecimal() and not _known(entry):
                kind = "group" if entry.startswith("%") else "user"
                c.notes.append(f"admin.{role}: there is no {kind} {name!r} on this machine")


def _known(entry: str) -> bool:
    try:
        if entry.startswith("%"):
            grp.getgrnam(entry[1:])
        else:
            pwd.getpwnam(entry)
    except KeyError:
        return False
    return True
