"""How are configuration problems shown to eyes?

    error: forkd.toml:12: [timeouts] comand: no such key
       12 | comand = "5m"
          | ^^^^^^
          = help: did you mean "command"?

The first line stands alone: grep and editors take file and line from it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from forkd.cli.lines import tell
from forkd.config.problems import ConfigError, Problem

_WIDTH = 120
"""Of a source line, at most: a long list must not hide what is wrong with it."""


def show_problems(error: ConfigError) -> None:
    """All of them on standard error, then their number."""
    for problem in error.problems:
        _show(problem)
    count = len(error.problems)
    tell(f"{count} problem{'s' if count > 1 else ''}", error=True)


def problem_data(problem: Problem) -> dict[str, Any]:
    """For JSON."""
    return dataclasses.asdict(problem)


def _show(problem: Problem) -> None:
    first = str(dataclasses.replace(problem, hint=""))
    tell("error: ", error=True, fg="red", bold=True, end=False)
    tell(first, error=True, bold=True)
    margin = f"{problem.line:>5}" if problem.line else " " * 5
    if problem.line:
        text = problem.source_line.expandtabs(4).rstrip()
        tell(f"{margin} | {text[:_WIDTH]}", error=True)
        at, length = _marked(problem, text)
        if at + length <= _WIDTH:
            tell(f"{' ' * 5} | {' ' * at}{'^' * length}", error=True, fg="red")
    if problem.hint:
        tell(f"{' ' * 5} = help: {problem.hint}", error=True, fg="cyan")
    tell(error=True)


def _marked(problem: Problem, text: str) -> tuple[int, int]:
    """Where the caret stands: below the key when it is on the line, else below the whole line."""
    at = text.find(problem.key) if problem.key else -1
    if at >= 0:
        return at, len(problem.key)
    start = len(text) - len(text.lstrip())
    return start, max(1, len(text) - start)
