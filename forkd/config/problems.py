"""What is wrong with a configuration, said so that an admin can repair it without the manual?

One Problem is one thing to repair; a ConfigError carries all of them. As one line:

    forkd.toml:12: [timeouts] comand = "5m": no such key (did you mean "command"?)
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from forkd.config.lines import KeyPath

MAX_VALUE: Final = 60
"""Characters of a value shown in a message."""

DEFAULTS: Final = "built-in defaults"
"""Instead of a file's path."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class _NotGiven:
    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = _NotGiven()
"""For a problem that is not about a value: a missing key, an unreadable file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One TOML file: where it lies, its text, where its keys stand.

    `path` is None for settings that come from no file; `lines` is empty for a text that is no TOML.
    """

    path: Path | None
    text: str = ""
    lines: Mapping[KeyPath, int] = dataclasses.field(default_factory=dict)
    folder: Path = dataclasses.field(default_factory=Path)
    """Absolute; relative paths in the file start here."""

    def line(self, path: KeyPath) -> int:
        """Line of the key, else of the table around it; 0: unknown."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return 0


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing to repair.

    file, line   where; line 0: unknown
    table, key   `[timeouts]` and `command`; either may be empty
    rule         what must hold
    value        what was given, as TOML; empty where there is none
    hint         what to do: the nearest valid key, the value that was probably meant
    source_line  the text of the line, for display
    """

    file: str
    line: int
    table: str
    key: str
    rule: str
    value: str = ""
    hint: str = ""
    source_line: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        what = " ".join(part for part in (self.table, self.key) if part)
        if what and self.value:
            what = f"{what} = {self.value}"
        said = f"{what}: {self.rule}" if what else self.rule
        return f"{where}: {said}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(Exception):
    """The configuration cannot be used; exit status 78. Holds every problem found, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def from_anywhere(self) -> ConfigError:
        """The same, for one who does not sit in the current folder: each file with its whole path."""
        return ConfigError(dataclasses.replace(each, file=whole_path(each.file)) for each in self.problems)


class Problems:
    """Collects problems; remembers which keys are bad, so that no check builds on them."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._bad: set[tuple[Path | None, KeyPath]] = set()

    def add(
        self,
        source: Source,
        path: KeyPath,
        rule: str,
        *,
        value: Any = NOT_GIVEN,
        hint: str = "",
        secret: bool = False,
    ) -> None:
        """Note one problem of the key at `path`; () is the file. secret: the value is not shown."""
        line = source.line(path)
        table, key = (table_name(path[:-1]), toml_key(path[-1])) if path else ("", "")
        if secret:
            value = NOT_GIVEN
        if isinstance(value, dict):
            table, key, value = table_name(path), "", NOT_GIVEN
        self._bad.add((source.path, path))
        self._found.append(
            Problem(
                file=display_path(source.path),
                line=line,
                table=table,
                key=key,
                rule=rule,
                value="" if value is NOT_GIVEN else shorten(toml_value(value)),
                hint=hint,
                source_line=source.text.splitlines()[line - 1] if line and not secret else "",
            )
        )

    def add_at_line(self, source: Source, line: int, rule: str, *, hint: str = "") -> None:
        """Note a problem of the text itself: it is not TOML."""
        rows = source.text.splitlines()
        shown = rows[line - 1] if 0 < line <= len(rows) else ""
        self._bad.add((source.path, ()))
        self._found.append(Problem(display_path(source.path), line, "", "", rule, "", hint, shown))

    def clean(self, source: Source, *paths: KeyPath) -> bool:
        """True when neither these keys, nor a table around them, nor a key in them has a problem."""
        return not any(
            file == source.path and (path[: len(bad)] == bad or bad[: len(path)] == path)
            for file, bad in self._bad
            for path in paths
        )

    def __len__(self) -> int:
        return len(self._found)

    def raise_if_any(self) -> None:
        """Raises ConfigError with all of them, in the order of files and lines."""
        if self._found:
            files = {problem.file: at for at, problem in reversed(list(enumerate(self._found)))}
            raise ConfigError(sorted(self._found, key=lambda p: (files[p.file], p.line)))


def display_path(path: Path | None) -> str:
    """As the admin would type it: relative when it lies in the current folder."""
    if path is None:
        return DEFAULTS
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the current folder is gone
        return str(path)


def whole_path(shown: str) -> str:
    """What display_path() gave, for one who may sit in another folder."""
    return shown if shown == DEFAULTS else str(Path(shown).absolute())


def table_name(path: KeyPath) -> str:
    """`[listener.smtp]`; empty for the top level."""
    return f"[{'.'.join(map(toml_key, path))}]" if path else ""


def toml_key(key: str) -> str:
    """As it must be written in TOML."""
    return key if _BARE.fullmatch(key) else toml_value(key)


def toml_value(value: Any) -> str:
    """A string, number, boolean or list as TOML writes it; others by their own text.

    JSON's string escapes are all TOML escapes but for DEL, which TOML wants escaped and JSON does not.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, frozenset):
        return toml_value(sorted(value, key=str))
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }"
    return str(value)


def shorten(text: str) -> str:
    """At most MAX_VALUE characters."""
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 1] + "…"
