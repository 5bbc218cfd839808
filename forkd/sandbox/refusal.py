"""What is known of a system call that the walls refused? As learn mode notes it (learn.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Final

HARMLESS: Final = frozenset(
    {
        *("clone3", "membarrier", "getcpu", "futex_waitv", "futex_wake", "futex_wait", "futex_requeue"),
        *("ioctl", "rseq"),
    }
)
"""Refused to every program of this kind, whose libraries go on without. No stack is asked for."""


_PRINTS_FAILURES: Final = (str(Path(__file__).parent.parent / "sdk" / "answers.py"), "failure")
"""File and function."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a Python stack."""

    file: str
    line: int
    function: str


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """One call that was refused.

    text      the call with its arguments, as far as they could be read: `openat("/etc/passwd", O_RDONLY)`.
    result    EACCES, ..., or `killed`.
    loading   in the zygote: while the plugin was loaded.
    stack     the innermost frame first; empty where it could not be had.
    path      the file that was meant, where there was one.
    """

    pid: int
    name: str
    text: str
    result: str
    loading: bool
    stack: tuple[Frame, ...]
    path: str = ""

    @property
    def harmless(self) -> bool:
        """A library asked, or we ourselves, and go on without."""
        probing = self.stack and self.stack[0].file.endswith("/selectors.py")
        # The interpreter, printing a traceback for us, looks at the encoding of each source file.
        printing = self.stack and (self.stack[0].file, self.stack[0].function) == _PRINTS_FAILURES
        return (
            self.name in HARMLESS
            or bool(printing and self.name == "fcntl")
            or bool(probing and self.name.startswith("epoll_create"))
            or (self.loading and self.path.endswith("/openssl.cnf"))
        )

    def frame_in(self, folders: Iterable[Path]) -> Frame | None:
        """The innermost frame of the plugin's own code."""
        roots = tuple(folders)
        return next((f for f in self.stack if any(Path(f.file).is_relative_to(r) for r in roots)), None)
