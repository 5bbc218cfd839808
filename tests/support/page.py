"""Configuration that stands on a page of ours, taken out of it: what a reader copies is what is checked."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Final

_FENCE: Final = re.compile(r"^```(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Shown:
    """One fenced block.

    section  the heading above it (of `##`)
    name     what its first line, a comment, says it is: `/etc/forkd/forkd.toml`
    """

    section: str
    language: str
    name: str
    text: str


def blocks(page: Path) -> list[Shown]:
    """All of a page but what is typed in a shell."""
    found = []
    for part in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        section = part.partition("\n")[0]
        for language, text in _FENCE.findall(part):
            if language != "console":
                name = text.partition("\n")[0].removeprefix("# ")
                found.append(Shown(section, language, name, text))
    return found


def below(folder: Path, text: str) -> str:
    """The text with absolute paths moved into a folder: what it names need not be on this machine."""
    return re.sub(r"(?<=[\s\":=])/(?=(etc|run|var|usr)/)", f"{folder}/", text)
