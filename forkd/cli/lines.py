"""How does a line get to the terminal? By what is below: whoever wrote a part of it, no terminal obeys it.

Plugins, processes that were taken over, clients and files of others have their words in nearly all that forkd
prints. So nothing in cli/ prints by itself but tables.py, which does the same to each cell, and who writes
what a program reads (tests/cli/test_lines.py holds the list).
"""

from __future__ import annotations

import os
import sys

import click


def safe(text: str) -> str:
    """Control characters as escapes, the end of a line too: terminals obey, and a line is one line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def use_color() -> bool | None:
    """click's `color`: False under NO_COLOR (https://no-color.org), else click looks at the terminal."""
    return False if os.environ.get("NO_COLOR") else None


def tell(text: str = "", *, fg: str = "", bold: bool = False, error: bool = False, end: bool = True) -> None:
    """A line of what was asked for, to standard output; `error`: to standard error."""
    click.secho(safe(text), err=error, color=use_color(), nl=end, fg=fg or None, bold=bold or None)


def tell_lines(text: str, *, fg: str = "", error: bool = False) -> None:
    """Words of several lines: all but the first are indented, so that none looks like one of ours."""
    indent = ""
    for line in text.split("\n"):
        tell(f"{indent}{line}", fg=fg, error=error)
        indent = "  "


def say(text: str, *, error: bool = False) -> None:
    """A line about what happens, to standard error."""
    tell(text, fg="red" if error else "", error=True)
    sys.stderr.flush()
