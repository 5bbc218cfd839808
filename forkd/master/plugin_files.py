"""May a plugin's files be believed, and which are they? Owners and modes before it starts; a hash.

A plugin runs as a uid that must never be able to change what is loaded next time, and neither may anybody
else whom the admin does not trust anyway. So for a plugin's folder, what lies in it, the folders above,
and the packages of a virtual environment of its own:

    owner   root, the user who runs forkd, or the owner of forkd's own code; started by root, never the uid
            that the plugin gets. Started by a user the plugin has the same uid, and Landlock is the wall
    mode    nobody else writes: not the world, and no group but the owner's private one (umask 002), which
            is noted. Folders above: not the world, unless they are sticky
    links   lead nowhere outside the plugin's folder; those of a virtual environment may

The hash is that of the list that sha256sum(1) prints, so that it can be checked by hand:

    cd FOLDER && find . -type f -not -path '*/.*' -not -path '*/__pycache__/*' -printf '%P\\0' |
      LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum

Hidden files cannot be imported, and compiled ones are never loaded from there (sdk/plugin.py). A virtual
environment's packages are told apart by what pip wrote down of them (RECORD); the plugin's folder itself is
never one.
"""

from __future__ import annotations

import dataclasses
import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import forkd
from forkd.config.problems import display_path
from forkd.config.schema import PluginConfig

CHANGED: Final = "changed on disk since forkd started; takes effect at the next restart"
COMPILED: Final = "__pycache__"
_CODE: Final = Path(forkd.__file__).resolve().parent
_WORLD, _GROUP = stat.S_IWOTH, stat.S_IWGRP


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One file or folder that is not as it should be. A `note` is no reason not to start."""

    text: str
    note: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Judge:
    """Whose files are believed. `plugin_uid`: as whom it will run; None: as we do."""

    trusted: frozenset[int]
    plugin_uid: int | None = None

    @classmethod
    def of(cls, plugin_uid: int | None, *, also: Iterable[int] = ()) -> Judge:
        """For this process' user; `also`: whoever else is believed."""
        return cls(frozenset({0, os.geteuid(), _CODE.stat().st_uid, *also}), plugin_uid)

    def entry(self, path: Path, *, root: Path) -> Finding | None:
        """What is wrong with one file or folder; `root` is the plugin's, for what to do about it."""
        found = path.lstat()
        shown = display_path(path)
        if stat.S_ISLNK(found.st_mode):
            return self._link(path, root)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return Finding(f"{shown} is neither a file nor a folder: remove it")
        if found.st_uid == self.plugin_uid:
            return Finding(f"{shown} belongs to uid {found.st_uid}, as whom the plugin runs: {_chown(root)}")
        if found.st_uid not in self.trusted:
            return Finding(f"{shown} belongs to {_user(found.st_uid)}: {_chown(root)}")
        if found.st_mode & _WORLD:
            return Finding(f"everybody may write {shown}: chmod -R go-w {display_path(root)}")
        if found.st_mode & _GROUP:
            if not _is_private(found.st_gid, found.st_uid) or found.st_gid == self.plugin_uid:
                who = f"the group {_group(found.st_gid)}"
                return Finding(f"{who} may write {shown}: chmod -R go-w {display_path(root)}")
            return Finding(
                f"{shown} can be written by the group {_group(found.st_gid)}, which is its owner's own "
                f"(umask 002): chmod -R g-w {display_path(root)} if others join it",
                note=True,
            )
        return None

    def above(self, folder: Path) -> Finding | None:
        """What is wrong with a folder in which a plugin's folder lies: who could put another in its place?"""
        found = folder.stat()
        shown = display_path(folder)
        if found.st_mode & _WORLD and not found.st_mode & stat.S_ISVTX:
            # Where forkd's own code lies in there too, it is forkd that everybody may replace.
            ours = _CODE.is_relative_to(folder)
            return Finding(f"everybody may rename what lies in {shown}: chmod o-w {shown}", note=ours)
        if found.st_uid == self.plugin_uid:
            return Finding(
                f"{shown} belongs to uid {found.st_uid}, as whom the plugin runs: chown root {shown}"
            )
        if found.st_uid not in self.trusted:
            who = _user(found.st_uid)
            return Finding(f"{shown} belongs to {who}, who can put others in its files' place", note=True)
        return None

    @staticmethod
    def _link(path: Path, root: Path) -> Finding | None:
        target = Path(os.path.realpath(path))
        if target.is_relative_to(os.path.realpath(root)):
            return None
        return Finding(f"{display_path(path)} is a link that leads out of the plugin's folder, to {target}")


def examine(plugin: PluginConfig, plugin_uid: int | None, *, also: Iterable[int] = ()) -> list[Finding]:
    """What is wrong with the files of a plugin or group, each kind of it once; problems before notes.

    also   uids that are believed beside root's, ours and that of forkd's code
    """
    judge = Judge.of(plugin_uid, also=also)
    findings: list[Finding] = []
    if plugin.code:
        findings += _first_of_each(found for file in plugin.code for found in _examine_file(file, judge))
    for member in () if plugin.code else plugin.members:
        findings += examine_folder(member.folder, judge)
    if plugin.python is not None:
        findings += _environment(plugin.python, plugin.libraries, judge)
    return sorted(findings, key=lambda one: one.note)


def _environment(python: Path, libraries: Iterable[Path], judge: Judge) -> list[Finding]:
    """The interpreter, which is trusted: it runs before it is confined; and what is installed for it."""
    venv = python.parent.parent
    with_it = (venv, python.parent) if (venv / "pyvenv.cfg").is_file() else ()
    try:
        found = [judge.entry(path, root=path) for path in (*with_it, python.resolve())]
        installed = [_first_of_each(_judged(folder, judge, environment=True)) for folder in libraries]
    except OSError as error:
        return [_unreadable(error, venv)]
    return [*filter(None, found), *(one for each in installed for one in each)]


def _unreadable(error: OSError, path: Path) -> Finding:
    return Finding(f"{display_path(Path(error.filename or path))}: {(error.strerror or str(error)).lower()}")


def examine_folder(folder: Path, judge: Judge) -> list[Finding]:
    """The same for one plugin's folder."""
    real = Path(os.path.realpath(folder))
    try:
        above = [found for parent in real.parents if (found := judge.above(parent)) is not None]
        return [*above, *_first_of_each(_judged(real, judge))]
    except OSError as error:
        return [_unreadable(error, real)]


def _examine_file(file: Path, judge: Judge) -> list[Finding]:
    """The same for one file of a plugin that is not all of its folder; links to it may lead anywhere."""
    real = Path(os.path.realpath(file))
    try:
        above = [found for parent in real.parents if (found := judge.above(parent)) is not None]
        return [*above, *filter(None, [judge.entry(real, root=real)])]
    except OSError as error:
        return [_unreadable(error, real)]


def examine_entries(plugin: PluginConfig) -> list[str]:
    """Notes on the admin's own files of a plugin: who writes them grants."""
    judge = Judge.of(None)
    notes = []
    for file in dict.fromkeys(member.entry for member in plugin.members if member.entry is not None):
        found = judge.entry(Path(os.path.realpath(file)), root=file)
        if found is not None and not found.note:
            notes.append(f"{found.text.replace('chmod -R', 'chmod')}; who can write it can grant")
    return notes


def _judged(root: Path, judge: Judge, *, environment: bool = False) -> Iterator[Finding]:
    """environment: all of it belongs to one; nobody asks where links lead."""
    for path, installed in walk(root):
        if (environment or installed) and path.is_symlink():
            continue
        if (found := judge.entry(path, root=root)) is not None:
            yield found


def walk(root: Path) -> Iterator[tuple[Path, bool]]:
    """The folder and all that is in it; whether that belongs to a virtual environment. Raises OSError."""
    yield root, False
    environments: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=_raise):
        above = os.path.dirname(folder)  # noqa: PTH120 - thousands of them
        inside = folder != str(root) and "pyvenv.cfg" in files and _is_environment(folder)
        if inside or above in environments:
            environments.add(folder)
        for name in (*folders, *files):
            yield Path(folder, name), folder in environments


def _is_environment(folder: str) -> bool:
    """Has it what `python -m venv` makes, beside pyvenv.cfg? Else that file alone would hide code."""
    path = Path(folder)
    return os.path.lexists(path / "bin/python") and any(path.glob("lib/python3*/"))


def _raise(error: OSError) -> None:
    raise error


def _first_of_each(findings: Iterable[Finding]) -> list[Finding]:
    """One problem and one note: a folder of a thousand files is repaired by one command."""
    first: dict[bool, Finding] = {}
    for found in findings:
        first.setdefault(found.note, found)
    return list(first.values())


# --- the hash -------------------------------------------------------------------------------------------


def digest(folder: Path) -> str:
    """sha256 of all files of a plugin, in hex, as the module's first lines say. Raises OSError.

    Blocks for reading them.
    """
    whole = hashlib.sha256()
    rows = []
    real = Path(os.path.realpath(folder))
    for path, installed in walk(real):
        relative = os.fsencode(path.relative_to(real))
        parts = relative.split(b"/")
        if installed or any(part.startswith(b".") for part in parts) or os.fsencode(COMPILED) in parts:
            continue
        if stat.S_ISREG(path.lstat().st_mode):
            with path.open("rb") as file:
                rows.append((relative, hashlib.file_digest(file, "sha256").hexdigest()))
    for relative, found in sorted(rows):
        whole.update(_row(relative, found))
    return whole.hexdigest()


def digest_of(files: Iterable[Path]) -> str:
    """The same of single files, by their names alone: `cd FOLDER && sha256sum NAME ... | sha256sum`."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(_row(os.fsencode(path.name), hashlib.file_digest(file, "sha256").hexdigest()))
    return whole.hexdigest()


def _row(name: bytes, found: str) -> bytes:
    """As sha256sum has it: a name with a backslash or a line end is written with escapes."""
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != name else b"") + found.encode() + b"  " + escaped + b"\n"


# --- users and groups -----------------------------------------------------------------------------------


def _is_private(gid: int, uid: int) -> bool:
    """A group of one, named or numbered as its user: who creates files with umask 002 gives them to it."""
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return gid == uid  # of a container, or a network's user: no name for either
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return gid == uid and not group.gr_mem
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _chown(root: Path) -> str:
    owner = "root" if os.geteuid() == 0 else "$USER"
    return f"chown -R {owner} {display_path(root)}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
