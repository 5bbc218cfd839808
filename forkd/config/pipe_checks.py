"""Can each [transport] of kind "pipe" be run as it is written, and is it as harmless as it should be?"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from forkd.config.checking import Check
from forkd.config.kinds import environment_slip
from forkd.config.lines import KeyPath
from forkd.config.pipe_schema import FIELD, OF_MESSAGE, OF_RECIPIENT, POSTFIX_FIELDS, VARIABLES, Pipe
from forkd.config.plugin_checks import UIDS
from forkd.config.problems import display_path, toml_key
from forkd.config.reader import nearest

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""Of such a transport: it names a socket, and stands in the list of processes."""
_LANGUAGES: Final = re.compile(r"(?:ba|da|a|k|mk|z)?sh|(?:python|perl|ruby|php|node|lua)[0-9.]*")
"""Programs that take code in their command line, behind an option with one of these letters in it:"""
_CODE: Final = re.compile(r"-[A-Za-z]*[ceEr][A-Za-z]*")
_STARTERS: Final = frozenset({"env", "busybox", "nice", "setsid", "timeout"})
"""Programs that start the one behind them."""
_OURS: Final = ("spool", "run", "state", "crash", "trace")
"""Folders in data_dir that are nobody's to write but ours."""


def pipes(c: Check) -> None:
    """Of CHECKS: programs, their words, their environment, and what they are granted."""
    for name, table in c.config.transport.items():
        if not isinstance(table, Pipe):
            continue
        path: KeyPath = ("transport", name)
        if not NAME.fullmatch(name):
            rule = "a transport of this kind is named by letters, digits, - and _; 32 at most"
            c.bad(path, rule, value=name)
        if c.clean((*path, "argv")):
            _argv(c, (*path, "argv"), table)
        _fields_on_top(c, path, table)
        for variable, value in table.environment.items():
            reserved = "forkd sets this one itself, for each message" if variable in VARIABLES else ""
            if slip := reserved or environment_slip(variable, value):
                c.bad((*path, "environment", variable), slip, value=value)
        _granted(c, path, table)


def _argv(c: Check, path: KeyPath, table: Pipe) -> None:
    if not table.argv:
        hint = 'write argv = ["/path/of/program", "argument", "${recipient}"]'
        c.bad(path, "this key must be set: the program and its arguments", hint=hint)
        return
    program = Path(table.argv[0])
    if not program.is_absolute():
        rule = "a program is named by its whole path: nothing is searched for, and there is no shell"
        c.bad(path, rule, value=table.argv[0])
        return
    _startable(c, path, program, "the program")
    code = _code(table.argv)
    for place, word in enumerate(table.argv[1:], start=1):
        if "\0" in word:
            c.bad(path, "a word of a command line has no NUL", value=word)
        names = FIELD.findall(word)
        if "${" in FIELD.sub("", word):
            c.bad(path, "this ${ has no }", value=word)
        for name in names:
            if name not in (*OF_RECIPIENT, *OF_MESSAGE):
                meant = POSTFIX_FIELDS.get(name)
                near = nearest(name, (*OF_RECIPIENT, *OF_MESSAGE))
                c.bad(path, f"nothing is called ${{{name}}}", value=word, hint=_did_you_mean(meant) or near)
        if names and place == code:
            # Whatever a sender chooses for an address would be a command.
            rule = "an interpreter like a shell would read what comes in with the mail as commands"
            hint = 'give it as an argument: ["/bin/sh", "-c", "program \\"$1\\"", "sh", "${recipient}"]'
            c.bad(path, rule, value=word, hint=hint)


def _code(argv: Sequence[str]) -> int:
    """The place of the word that an interpreter takes for its program; 0: there is none, or in a file."""
    places = iter(range(len(argv)))
    for place in places:
        word = argv[place]
        if _LANGUAGES.fullmatch(Path(word).name):
            break
        if place and not word.startswith("-") and "=" not in word and not word[:1].isdigit():
            return 0
        if not place and Path(word).name not in _STARTERS:
            return 0
    for place in places:
        if not argv[place].startswith("-"):
            return 0
        if _CODE.fullmatch(argv[place]):
            return next(places, 0)
    return 0


def _did_you_mean(name: str | None) -> str:
    return f"did you mean ${{{name}}}?" if name else ""


def _startable(c: Check, path: KeyPath, program: Path, what: str) -> None:
    """By whom it will be started, master asks."""
    if not program.is_file():
        c.bad(path, f"{what} is no file", value=program)
    elif not os.access(program, os.X_OK):
        c.bad(path, f"{what} cannot be executed", value=program, hint=f"chmod +x {display_path(program)}")


def _fields_on_top(c: Check, path: KeyPath, table: Pipe) -> None:
    key: KeyPath = (*path, "delivered_to")
    if table.per == "message" and table.delivered_to and c.given(key):
        rule = 'with per = "message" there is no one recipient that a Delivered-To field could name'
        c.bad(key, rule, value=True, hint='write per = "recipient", or leave it out')


def _granted(c: Check, path: KeyPath, table: Pipe) -> None:
    for program in table.exec:
        if c.clean((*path, "exec")):
            _startable(c, (*path, "exec"), program, "what it may start")
    for file in table.files:
        if c.clean((*path, "files")) and not file.exists():
            c.bad((*path, "files"), "there is no such file", value=file)
    for folder in table.write:
        if c.clean((*path, "write")):
            _written(c, (*path, "write"), folder, table)
    shown = f"transport.{toml_key(path[1])}"
    if c.given((*path, "file_size")) and not table.write:
        c.notes.append(f"{shown}.file_size is not used: `write` names no folder")
    base = c.config.sandbox.uid_base
    if base <= table.uid < base + UIDS:
        rule = f"forkd gives out {base} to {base + UIDS - 1} itself (sandbox.uid_base)"
        c.bad((*path, "uid"), rule, value=table.uid, hint="choose another, or leave it out")


def _written(c: Check, path: KeyPath, folder: Path, table: Pipe) -> None:
    if not folder.is_dir():
        c.bad(path, "there is no such folder", value=folder, hint=f"mkdir {display_path(folder)}")
        return
    real, own = folder.resolve(), c.config.server.data_dir.resolve()
    if real == own or real in own.parents or any(real.is_relative_to(own / each) for each in _OURS):
        c.bad(path, "forkd's own files lie there (server.data_dir)", value=folder, hint="name another folder")
        return
    started = [each for each in (*map(Path, table.argv[:1]), *table.exec) if each.is_absolute()]
    if inside := [each for each in started if each.resolve().is_relative_to(real)]:
        rule = f"{display_path(inside[0])} lies in there: it could change what is started"
        c.bad(path, rule, value=folder, hint="put the program elsewhere")
