"""How does text become man(7) source that groff and mandoc both take without a word?

Everything goes through Page: it escapes, wraps (no line over 79 columns) and keeps control lines apart from
text. Text may hold `code` in backticks, which is set bold; nothing else in it has a meaning.
"""

from __future__ import annotations

import re
import textwrap
from typing import Final

WIDTH: Final = 79

_ESCAPES: Final = {
    "\\": r"\(rs",
    "-": r"\-",  # a plain one may be set as a hyphen, and is then no option of a command that was copied
    "^": r"\(ha",
    "~": r"\(ti",
    "`": r"\(ga",
    "'": r"\(aq",
    '"': r"\(dq",
}
_CODE: Final = re.compile(r"``?([^`\n]+?)``?")
_MARKED: Final = re.compile(r"(\\f[BIR])")


def escaped(text: str) -> str:
    """Characters as they are, whatever the formatter makes of them elsewhere."""
    return "".join(_ESCAPES.get(char, char if char < "\x7f" else f"\\[u{ord(char):04X}]") for char in text)


def bold(text: str) -> str:
    """Words to be typed or written as they stand."""
    return rf"\fB{escaped(text)}\fR"


def italic(text: str) -> str:
    """Words in whose place others stand."""
    return rf"\fI{escaped(text)}\fR"


def marked(text: str) -> str:
    """Prose: escaped, with `code` set bold."""
    pieces = _CODE.split(text)
    return "".join(bold(piece) if at % 2 else escaped(piece) for at, piece in enumerate(pieces))


def _lines(source: str, *, width: int = WIDTH) -> list[str]:
    """Escaped text, wrapped, no line of which can be taken for a request."""
    wrapped = textwrap.wrap(source, width - 2, break_long_words=False, break_on_hyphens=False)
    return [rf"\&{line}" if line[0] in ".'" else line for line in wrapped]


def _quoted(word: str) -> str:
    """One argument of a macro; escaped() has left no quote in it."""
    return f'"{word}"' if " " in word or not word else word


class Page:
    """One manual page, from its title down; text() is the whole."""

    def __init__(self, name: str, section: int, *, date: str, version: str, volume: str) -> None:
        self.name, self.section = name, section
        title = [
            escaped(name.upper()),
            str(section),
            date,
            _quoted(escaped(version)),
            _quoted(escaped(volume)),
        ]
        self._rows = [
            r".\" Written by `make manual` (tools/manual): change what that reads.",
            f".TH {' '.join(title)}",
        ]
        self._fresh = True
        """Nothing stands below the last heading or term yet: a paragraph there needs no request."""

    def text(self) -> str:
        """The source, ended by a line end."""
        return "\n".join(self._rows) + "\n"

    def heading(self, text: str) -> None:
        """A section: .SH."""
        words = [word if "." in word else word.upper() for word in text.split(" ")]  # not names of files
        self._rows.append(f".SH {_quoted(escaped(' '.join(words)))}")
        self._fresh = True

    def subheading(self, text: str) -> None:
        """A part of a section: .SS."""
        self._rows.append(f".SS {_quoted(escaped(text))}")
        self._fresh = True

    def paragraph(self, source: str) -> None:
        """Escaped text, as marked() gives it."""
        if not source.strip():
            return
        if not self._fresh:
            self._rows.append(".PP")
        self._rows += _lines(source)
        self._fresh = False

    def term(self, source: str) -> None:
        """What the next paragraphs are about: .TP and its line. Escaped already."""
        self._rows += [".TP", rf"\&{source}" if source[0] in ".'" else source]
        self._fresh = True

    def further(self, source: str) -> None:
        """One more paragraph of a term or a bullet."""
        if not source.strip():
            return
        if not self._fresh:
            self._rows.append(".IP")
        self._rows += _lines(source)
        self._fresh = False

    def bullet(self, source: str) -> None:
        """One point of a list."""
        self._rows += [r".IP \(bu 2", *_lines(source)]
        self._fresh = False

    def inner(self) -> None:
        """What follows stands further in, below the last term, until outer()."""
        self._rows.append(".RS")
        self._fresh = True

    def outer(self) -> None:
        """Ends inner()."""
        self._rows.append(".RE")
        self._fresh = False

    def verbatim(self, text: str) -> None:
        """Lines as they are: configuration, commands, programs."""
        if not self._fresh:
            self._rows.append(".PP")
        self._rows += [".RS 2", ".nf"]
        for line in text.rstrip("\n").split("\n"):
            source = escaped(line)
            self._rows.append(rf"\&{source}" if source[:1] in (".", "'", "") else source)
        self._rows += [".fi", ".RE"]
        self._fresh = False
