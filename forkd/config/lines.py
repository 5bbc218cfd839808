"""On which line of a TOML text does a key stand?

tomllib checks and reads the text but keeps no positions, and an error without a line makes an admin
search. This scanner runs over text that tomllib has accepted, so it needs to know only what separates
tokens (TOML 1.0: comments, four kinds of strings, brackets), never what is valid.
"""

from __future__ import annotations

import re

KeyPath = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\r\n,]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""+|' r"'''.*?'''+|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"""[^\s,\[\]{}#"']+""")
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line number, from 1, of each table header and key in valid TOML; elements of arrays have none.

    A table that is opened several times (`[a.b]` before `[a]`, an array of tables) keeps its first line.
    """
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[KeyPath, int] = {}
        # Lines are asked for in ascending order: counting goes on from the last answer.
        self._line = 1
        self._counted = 0

    def run(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip_blank()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                while self.text[self.at] == "[":
                    self.at += 1
                table = self._key(())
                while self.text.startswith("]", self.at):
                    self.at += 1
            else:
                self._pair(table)
            self._skip_blank()
        return self.found

    def _pair(self, table: KeyPath) -> None:
        path = self._key(table)
        self.at += 1  # the "="
        self._value(path)

    def _key(self, prefix: KeyPath) -> KeyPath:
        """A dotted key; leaves `at` behind it and its blanks, on `=` or `]`."""
        path = prefix
        while True:
            self._skip_blank()
            start = self.at
            string = _STRING.match(self.text, start)
            if string is not None:
                part = _unquoted(string.group())
                self.at = string.end()
            else:
                bare = _BARE.match(self.text, start)
                if bare is None:
                    raise ValueError(f"no key at offset {start}")
                part = bare.group()
                self.at = bare.end()
            path = (*path, part)
            self.found.setdefault(path, self._line_of(start))
            self._skip_blank()
            if not self.text.startswith(".", self.at):
                return path
            self.at += 1

    def _value(self, path: KeyPath) -> None:
        self._skip_blank()
        first = self.text[self.at]
        if first == "{":
            self.at += 1
            self._skip_blank()
            while self.text[self.at] != "}":
                self._pair(path)
                self._skip_blank()
            self.at += 1
        elif first == "[":
            self.at += 1
            self._skip_blank()
            while self.text[self.at] != "]":
                self._value(path)
                self._skip_blank()
            self.at += 1
        else:
            token = _STRING.match(self.text, self.at) or _SCALAR.match(self.text, self.at)
            if token is None:
                raise ValueError(f"no value at offset {self.at}")
            self.at = token.end()

    def _skip_blank(self) -> None:
        blank = _BLANK.match(self.text, self.at)
        if blank is not None:
            self.at = blank.end()

    def _line_of(self, offset: int) -> int:
        self._line += self.text.count("\n", self._counted, offset)
        self._counted = offset
        return self._line


def _unquoted(key: str) -> str:
    if key[0] == "'":
        return key[1:-1]
    return _ESCAPE.sub(_unescaped, key[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    code = match.group(1)
    if code[0] in "uU" and len(code) > 1:
        return chr(int(code[1:], 16))
    return _ESCAPES.get(code, code)
