"""Which files did a plugin have when forkd started, and are they still the same? By plugin_files.py's hash.

Nothing else is loaded until forkd starts again. It is asked at each start of a zygote, by master, which does
nothing else meanwhile: so files are read again only where one was touched since the last time.

Programs may change: each message starts what lies there. Of those the hash is told anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from forkd import log
from forkd.config.problems import display_path
from forkd.config.schema import PluginConfig
from forkd.master.plugin_files import CHANGED, digest, digest_of, walk

_Stamp = tuple[int, int, int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """Device, inode, mode, size and time of the last change of each file: nobody sets the last one back.

    newest   the latest of those times
    began    the clock when the look began
    """

    stamps: Mapping[Path, _Stamp]
    newest: int
    began: int

    @classmethod
    def now(cls, plugin: PluginConfig) -> _Look:
        """Raises OSError."""
        began = time.time_ns()
        stamps: dict[Path, _Stamp] = {}
        newest = 0
        for path in _looked_at(plugin):
            found = path.lstat()
            newest = max(newest, found.st_ctime_ns)
            stamps[path] = (found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_ctime_ns)
        return cls(stamps, newest, began)

    def holds(self, now: _Look) -> bool:
        """Nothing was touched since. What was new then can have changed within one tick."""
        return self.newest < self.began - _TICK_NS and self.stamps == now.stamps


_TICK_NS: Final = 100_000_000
"""File systems note times by a clock that goes in steps: 10 ms at most, and some keep less of it."""


def _looked_at(plugin: PluginConfig) -> Iterator[Path]:
    """Files and folders of which the hashes are."""
    for file in plugin.code:
        yield Path(os.path.realpath(file))
    for member in () if plugin.code else plugin.members:
        for path, installed in walk(Path(os.path.realpath(member.folder))):
            if not installed:
                yield path
    for folder in plugin.libraries:
        yield from folder.glob("*.dist-info/RECORD")


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """Which files a plugin or group had when forkd started."""

    plugin: PluginConfig
    digests: dict[str, str]
    """Member -> hash of its files; of a program as they were when its zygote started last."""
    installed: str
    """Hash of what pip wrote down of the packages it may import."""
    looks: list[_Look]
    """The last one, by which nothing had changed."""

    @classmethod
    def now(cls, plugin: PluginConfig) -> Loaded:
        """As they lie there. Raises OSError."""
        look = _Look.now(plugin)  # before they are read: what changes meanwhile is a change
        digests = {
            member.name: digest_of(plugin.code) if plugin.code else digest(member.folder)
            for member in plugin.members
        }
        return cls(plugin, digests, _installed(plugin.libraries), [look])

    def changed(self) -> str:
        """What is not as it was, in words; empty: nothing, or it is a program, which may change.

        Blocks for reading the files, but only where one of them was touched since the last time.
        """
        try:
            if self.looks[-1].holds(_Look.now(self.plugin)):
                return ""
            now = Loaded.now(self.plugin)
        except OSError as error:
            path = display_path(Path(error.filename or self.plugin.folder))
            return f"{path}: {error.strerror}" if self._is_program else f"{path} {CHANGED}"
        if self._is_program:
            self.digests.update(now.digests)
        for member in self.plugin.members:
            if now.digests[member.name] != self.digests[member.name]:
                where = ", ".join(map(display_path, self.plugin.code)) or display_path(member.folder)
                return f"{where} {CHANGED}"
        if now.installed != self.installed:
            return f"what is installed for it {CHANGED}"
        self.looks[:] = now.looks
        return ""

    @property
    def _is_program(self) -> bool:
        return self.plugin.kind == "program"

    def told(self) -> None:
        """Into the log: what was loaded."""
        for member in self.plugin.members:
            group = self.plugin.group
            log.plugin_loaded(
                plugin=member.name, version=member.version, sha256=self.digests[member.name], group=group
            )

    def shown(self) -> dict[str, str]:
        """For `forkd status`."""
        return {f"sha256 {name}": found for name, found in self.digests.items()}


def _installed(folders: Iterable[Path]) -> str:
    whole = hashlib.sha256()
    for folder in folders:
        for record in sorted(folder.glob("*.dist-info/RECORD")):
            whole.update(os.fsencode(record.parent.name) + hashlib.sha256(record.read_bytes()).digest())
    return whole.hexdigest()
