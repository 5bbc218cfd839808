"""What does an entry of kind program switch on? Any program as a filter of messages; it has no manifest.

    kind = "program"
    argv = ["/usr/local/bin/tag", "-v"]         # the program, by its whole path; no shell, no search
    # unchanged_if_empty = true                 # false: no output and exit status 0 is an empty message
    # environment = { SPAMD = "127.0.0.1" }
    [grants]
    # discard = true                            # exit status 2 or 99 may drop mail
    # exec = ["/bin/sed"]                       # what else it may start; its interpreter needs no grant
    # processes = 2                             # how many beside itself, for pipelines
    # files = ["/etc/tag.conf"]                 # what it reads; so is what argv names
    [limits]
    # message_timeout = "60s"

Who switches it on lets it read every message, and put another in its place: there is nothing else it is for.
So it is asked at `message` alone, by itself, and started anew for each message: what is written into its file
takes effect with the next one. Where it, its interpreter or what it may start is replaced by another file (an
upgrade, and most editors), forkd must be started again, and says so in its log: the leave to execute is of
files, not of names. Its name is that of the entry's file.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from forkd.config.grants import Around
from forkd.config.kinds import SESSION, check_environment, check_without_manifest
from forkd.config.limits import limits_in_force
from forkd.config.lines import KeyPath
from forkd.config.problems import display_path
from forkd.config.reader import Reader
from forkd.config.schema import Capabilities, Entry, Grants, PluginConfig, Powers, WantedPowers, Wants
from forkd.config.switched import limits_given, switched_on, without_manifest

READS: Final = ("envelope", "headers", "body")
_GRANTED: Final = frozenset({"discard", "reads", "files", "processes", "exec"})
"""Grants that a program can use; what it reads it has in any case."""
_OF_MESSAGE: Final = re.compile(r"QMAILUSER|QMAILHOST|QMAILRCPTS|NUMRCPTS|MSGSIZE|ENVSIZE")
"""Variables that forkd sets from the message."""


def read_program(
    name: str,
    reader: Reader,
    entry: Entry,
    raw: dict[str, Any],
    around: Around,
    *,
    order: int,
    notes: list[str],
) -> PluginConfig | None:
    """The plugin that an entry of this kind switches on; None where it has a problem, which is noted.

    name  of the entry's file, without number and ending.
    """
    before = len(reader.problems)
    check_without_manifest(reader, entry, name)
    program = _program(reader, entry)
    check_environment(reader, entry.environment, [SESSION, _OF_MESSAGE])
    for at, path in enumerate(entry.grants.exec):
        _startable(reader, ("grants", "exec"), path, f"entry {at + 1} of exec")
    powers = Powers(replace_message=True, discard=entry.grants.discard)
    # Of the powers that edit: what on_failure may be depends on them.
    wanted = Wants(powers=WantedPowers(edit_body="it is a filter"))
    one = without_manifest(name, reader, entry, around, notes, file=program, hooks=("message",), wants=wanted)
    wants = one.wants({})
    for key in _unused(entry.grants):
        one.not_wanted(key)
    one.mode()
    limits = limits_in_force(one, limits_given(raw))
    if limits.reuse != 1:
        rule = "a program is started anew for each message"
        reader.bad(("limits", "reuse"), rule, value=limits.reuse, hint="leave it out")
    one.failure_policy(wants)
    scope = one.scope()
    if len(reader.problems) > before or program is None:
        return None
    return switched_on(
        one,
        {},
        order=order,
        code=(program, *entry.grants.exec),
        argv=entry.argv,
        unchanged_if_empty=entry.unchanged_if_empty,
        environment=entry.environment,
        powers=powers,
        reads=READS,
        files=entry.grants.files,
        capabilities=Capabilities(processes=entry.grants.processes, exec=entry.grants.exec),
        # One message is all that a run lives for; there is nothing to keep warm.
        limits=msgspec.structs.replace(limits, fresh="call", spare=0),
        scope=scope,
    )


def _program(reader: Reader, entry: Entry) -> Path | None:
    """The program itself; None: there is none, which is a problem, and noted."""
    if not entry.argv:
        if reader.problems.clean(reader.source, ("argv",)):
            hint = 'write argv = ["/path/of/program", "argument"]'
            reader.bad(("argv",), "this key must be set: the program and its arguments", hint=hint)
        return None
    path = Path(entry.argv[0])
    if not path.is_absolute():
        found = shutil.which(entry.argv[0], path="/usr/local/bin:/usr/bin:/bin")
        hint = f"did you mean {found}?" if found else ""
        rule = "a program is named by its whole path: nothing is searched for, and there is no shell"
        reader.bad(("argv",), rule, value=entry.argv[0], hint=hint)
        return None
    return path if _startable(reader, ("argv",), path, "the program") else None


def _startable(reader: Reader, key: KeyPath, path: Path, what: str) -> bool:
    """Is it a file that can be executed? By whom it will be, master asks."""
    if not path.is_file():
        reader.bad(key, f"{what} is no file", value=path)
        return False
    if not os.access(path, os.X_OK):
        hint = f"chmod +x {display_path(path)}"
        reader.bad(key, f"{what} cannot be executed", value=path, hint=hint)
        return False
    return True


def _unused(grants: Grants) -> list[str]:
    """What is granted, and of no use to a program."""
    return [
        field.name
        for field in msgspec.structs.fields(Grants)
        if field.name not in _GRANTED and getattr(grants, field.name)
    ]
