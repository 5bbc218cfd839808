"""Which pages are there, and how do they come into a folder?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import forkd
from tools.manual import daemon, plugin, settings
from tools.manual.roff import Page

DATE: Final = "2026-11-23"
"""Of the version: no page may change because a day has gone by."""

PAGES: Final[dict[str, tuple[str, int, str, Callable[[Page], Page]]]] = {
    "forkd.8": ("forkd", 8, "System Manager's Manual", daemon.page),
    "forkd.toml.5": ("forkd.toml", 5, "File Formats Manual", settings.page),
    "forkd-plugin.7": ("forkd-plugin", 7, "Miscellaneous Information Manual", plugin.page),
}
"""File -> name, section, volume, and the function that fills it."""


def text(file: str) -> str:
    """A page's source, made anew."""
    name, section, volume, fill = PAGES[file]
    return fill(Page(name, section, date=DATE, version=f"forkd {forkd.__version__}", volume=volume)).text()


def write(folder: Path) -> list[Path]:
    """All of them; the folder is made when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in PAGES:
        (folder / file).write_text(text(file), encoding="utf-8")
    return [folder / file for file in PAGES]
