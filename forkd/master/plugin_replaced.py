"""Was a file replaced that sessions of a running zygote need? A look once a minute, and one line in the log.

An upgrade puts another file in a file's place; what runs has leave for the one that was there at its start:

    a compiled plugin   each session loads it, and no other file than the one that was tried at the start
    a program           the leave to execute is of files, not of names: of itself, of its interpreter, their
                        loader, and what else it may start. What is written into such a file is no matter

Plugins in Python are in memory: what changes of those takes effect at the next start. Nothing is read here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from forkd.config.problems import display_path
from forkd.sandbox.launch import ZygoteSpec

BEATS: Final = 6
"""Times that a zygote's loop may stand still (server.heartbeat) between two looks: a minute, by default."""

_Stamp = tuple[int, ...]


class InUse:
    """The files of one zygote process, as they were just before it was started.

    content  what is written into them counts too.
    """

    def __init__(self, files: Iterable[Path], *, content: bool) -> None:
        self._content = content
        self._stamps = {path: self._stamp(path) for path in files}
        self._told = False

    @classmethod
    def of(cls, spec: ZygoteSpec) -> InUse:
        """Those of this zygote. Raises executables.ExecutableError."""
        if spec.compiled is not None:
            return cls(spec.compiled.files, content=True)
        return cls(spec.started() if spec.kind == "program" else (), content=False)

    def __eq__(self, other: object) -> bool:
        """The same files, and none of them another one meanwhile."""
        return isinstance(other, InUse) and self._stamps == other._stamps

    def __hash__(self) -> int:
        return hash(tuple(self._stamps.items()))

    def look(self) -> str:
        """Which one is another now, and what to do; empty: none, or it was said already."""
        if self._told:
            return ""
        for path, stamp in self._stamps.items():
            if self._stamp(path) != stamp:
                self._told = True
                return f"{display_path(path)} changed on disk since it was taken into use: restart forkd"
        return ""

    def _stamp(self, path: Path) -> _Stamp:
        """As sandbox/indimail_abi.py tells files apart; empty: it is not there."""
        try:
            found = path.stat()
        except OSError:
            return ()
        which = (found.st_dev, found.st_ino)
        return (*which, found.st_size, found.st_mtime_ns) if self._content else which
