"""What is an author told of refused calls? Alike ones once: where in his code, and what to do instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forkd.kit.advice import Advice, advise
from forkd.sandbox.refusal import Frame, Refusal


@dataclasses.dataclass(frozen=True, slots=True)
class Noted:
    """A refused call, as its author is told.

    where   the innermost line of his code; None: none could be seen.
    place   the same as text, the file as it is called in the plugin's folder.
    times   how often.
    """

    refusal: Refusal
    where: Frame | None
    place: str
    times: int
    advice: Advice

    @property
    def harmless(self) -> bool:
        """A library asked, and goes on without."""
        return self.refusal.harmless


def noted(refusals: Iterable[Refusal], folders: Sequence[Path]) -> tuple[Noted, ...]:
    """Alike ones once. `folders`: those of the plugin's own code."""
    counted: dict[tuple[Any, ...], list[Refusal]] = {}
    for refusal in refusals:
        where = refusal.frame_in(folders)
        counted.setdefault((refusal.name, refusal.text, refusal.result, where), []).append(refusal)
    return tuple(
        Noted(alike[0], where, place(where, folders), len(alike), advise(alike[0]))
        for (_, _, _, where), alike in counted.items()
    )


def place(frame: Frame | None, folders: Sequence[Path]) -> str:
    """`bad.py:5 in read`; empty without a frame."""
    if frame is None:
        return ""
    file = Path(frame.file)
    for folder in folders:
        if file.is_relative_to(folder):
            file = file.relative_to(folder)
    return f"{file}:{frame.line} in {frame.function}"
