"""How is a qmail control file read? Lines, a first line, a number, the keys of a .cdb; and where each stands.

As qmail reads them (qmail-control(5)): white space at the end of a line is not part of it; in lists, lines
that are empty or begin with # are skipped; of a single value only the first line counts. Where qmail would
silently do without (a number with letters behind it, a carriage return), we read what is meant or say so.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path
from typing import Final

from forkd.config.problems import Problems, Source, display_path
from forkd.sdk.cdb import CdbError, keys

MAX_REPORTED: Final = 20
"""Problems shown of one file: enough to repair it, few enough to read."""
CDB: Final = ".cdb"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of a control file, or one key of a .cdb.

    number  from 1; 0 for a key
    """

    text: str
    file: str
    number: int


class Control:
    """The folder. Files are read once; what is wrong goes to `problems`, with file and line."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self.folder = folder
        self.problems = problems
        self.used: set[str] = set()
        """Names that were asked for, whether they are there or not."""
        self._sources: dict[str, Source] = {}
        self._known: dict[str, list[Row] | None] = {}
        self._reported: dict[str, int] = {}

    def has(self, name: str) -> bool:
        """There is such a file."""
        self.used.add(name)
        return (self.folder / name).is_file()

    def bad(self, row: Row, rule: str, *, hint: str = "") -> None:
        """Something is wrong with this line or key."""
        count = self._reported[row.file] = self._reported.get(row.file, 0) + 1
        source = self._source(row.file)
        if count > MAX_REPORTED:
            return
        if count == MAX_REPORTED:
            rule, hint = f"{rule}; further problems of this file are not shown", ""
        if row.number:
            self.problems.add_at_line(source, row.number, rule, hint=hint)
        else:
            self.problems.add(source, (), f"{row.text!r}: {rule}" if row.text else rule, hint=hint)

    def lines(self, name: str) -> list[Row] | None:
        """A list; None: there is no such file, or it cannot be read."""
        rows = self._rows(name)
        return rows and [row for row in rows if row.text and not row.text.startswith("#")]

    def first(self, name: str) -> Row | None:
        """A single value: the first line; None: no such file, or nothing there."""
        rows = self._rows(name)
        return rows[0] if rows and rows[0].text else None

    def number(self, name: str) -> tuple[int, Row] | None:
        """A whole number; None: no such file, or none there."""
        row = self.first(name)
        if row is None:
            return None
        text = row.text.lstrip("-")
        if text.isascii() and text.isdecimal() and len(row.text) - len(text) <= 1 and len(text) < 19:
            return int(row.text), row
        digits = row.text[: len(row.text) - len(row.text.lstrip("0123456789"))]
        self.bad(row, "this is a whole number, and nothing else", hint=f"write {digits}" if digits else "")
        return None

    def keys(self, name: str) -> list[Row] | None:
        """What a .cdb has; None: there is no such file, or it cannot be read."""
        octets = self._octets(name)
        if octets is None:
            return None
        rows = []
        try:
            for key in keys(octets):
                row = Row(key.decode("utf-8", "replace"), name, 0)
                if "\ufffd" in row.text or not row.text.isprintable():
                    self.bad(row, "this is no text")
                else:
                    rows.append(row)
        except CdbError as error:
            self.bad(Row("", name, 0), str(error), hint="compile it again")
            return None
        return rows

    def others(self) -> list[str]:
        """Names of what else lies there: files and folders that nobody asked for."""
        try:
            there = sorted(path.name for path in self.folder.iterdir())
        except OSError:
            return []
        return [name for name in there if name not in self.used and not name.startswith(".")]

    def shown(self, name: str) -> str:
        """A file's path, as the admin would type it."""
        return display_path(self.folder / name)

    def _source(self, name: str) -> Source:
        return self._sources.get(name) or Source(self.folder / name, folder=self.folder)

    def _rows(self, name: str) -> list[Row] | None:
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> list[Row] | None:
        octets = self._octets(name)
        if octets is None:
            return None
        # Windows' byte order mark and line ends: qmail takes them for part of a name, and never finds it.
        octets = octets.removeprefix(b"\xef\xbb\xbf")
        self._sources[name] = Source(
            self.folder / name, text=octets.decode("utf-8", "replace"), folder=self.folder
        )
        rows = []
        for number, line in enumerate(octets.split(b"\n"), start=1):
            row = Row(line.decode("utf-8", "replace").rstrip(" \t\r"), name, number)
            if "\ufffd" in row.text:
                self.bad(row, "this is not UTF-8 text", hint="save the file as UTF-8")
            elif not row.text.replace("\t", " ").isprintable():
                self.bad(row, "there is a control character in this line")
            else:
                rows.append(row)
        return rows

    def _octets(self, name: str) -> bytes | None:
        self.used.add(name)
        try:
            # A FIFO would keep us until somebody writes to it.
            with open(self.folder / name, "rb", opener=_at_once) as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return file.read()
            self.bad(Row("", name, 0), "this is no regular file")
            return None
        except FileNotFoundError:
            return None
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            hint = "run this as the user that starts forkd" if isinstance(error, PermissionError) else ""
            self.bad(Row("", name, 0), f"cannot be read: {said}", hint=hint)
            return None


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
