"""How does a TOML table become a struct of the schema, with every problem found in one go?

The reader walks the struct's fields, not the text: types, ranges and defaults come from schema.py
alone. A value that does not fit is a Problem and is left out, so that the walk goes on to the end of
the file; whoever asked decides by Problems whether the result may be used.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union

import msgspec

from forkd.config.later import Document, later_key, later_value, not_yet
from forkd.config.lines import KeyPath
from forkd.config.problems import NOT_GIVEN, Problems, Source, toml_value
from forkd.config.schema import Between, Config, Entry, Manifest, NotEmpty, Ordered, Table
from forkd.config.units import (
    Bytes,
    Seconds,
    UnitError,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

_T = TypeVar("_T", bound=Table)
_BAD: Final = object()
"""What a reading function returns after it noted a problem."""

_TYPE_NAMES: Final = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    list: "a list",
    dict: "a table",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Reader:
    """Reads tables of one file; notes what is wrong in `problems`."""

    source: Source
    problems: Problems
    document: Document

    def table(self, path: KeyPath, raw: Any, cls: type[_T]) -> _T | None:
        """The struct, problem keys at their defaults; None when a required key is missing or bad."""
        if not isinstance(raw, dict):
            self.bad(path, _a_table(path), value=raw)
            return None
        fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
        tag = cls.__struct_config__.tag_field
        self.unknown_keys(path, raw, [*([tag] if tag else []), *fields])
        values: dict[str, Any] = {}
        whole = True
        for key, field in fields.items():
            if key in raw:
                value = self.value((*path, key), raw[key], field.type)
                if value is not _BAD:
                    values[field.name] = value
                    continue
            elif field.required:
                self.bad((*path, key), "this key must be set")
            whole = whole and not field.required
        return cls(**values) if whole else None

    def unknown_keys(self, path: KeyPath, raw: Iterable[str], known: list[str]) -> None:
        """A problem for each key that is not in `known`: a later version's, or a wrong one."""
        for key in raw:
            if key in known:
                continue
            where = (*path, key)
            feature = later_key(self.document, where)
            if feature:
                self.bad(where, not_yet(feature), hint="remove this key")
            else:
                rule = f"no such {'key' if path else 'table or key'}"
                self.bad(where, rule, hint=self._elsewhere(key, known, path) or nearest(key, known))

    def _elsewhere(self, key: str, known: list[str], path: KeyPath) -> str:
        """A hint: the table in which there is a key of this name; empty at the top for a misspelt table."""
        root = _ROOTS[self.document]
        if (not path and _close(key, known)) or path[:1] == ("settings",):
            return ""
        if path and any(field.name == key for field in msgspec.structs.fields(root)):
            return f"there is a table [{key}] of its own" if _has_tables(root, key) else ""
        tables = [f"[{table}]" for table in _tables_with(root, key) if (table,) != path]
        return f"there is a key of that name in {' and '.join(tables)}" if tables else ""

    def bad(self, path: KeyPath, rule: str, *, value: Any = NOT_GIVEN, hint: str = "") -> Any:
        """Note a problem of this file; returns the mark that says so."""
        self.problems.add(self.source, path, rule, value=value, hint=hint)
        return _BAD

    def value(self, path: KeyPath, raw: Any, wanted: Any) -> Any:
        """`raw` as the type of a schema field wants it, or _BAD."""
        origin = typing.get_origin(wanted)
        if origin is Annotated:
            base, *rules = typing.get_args(wanted)
            if any(isinstance(rule, Ordered) for rule in rules):
                value = self._list(path, raw, typing.get_args(base)[0], twice=True)
            else:
                value = self.value(path, raw, base)
            return value if value is _BAD else self._held(path, raw, value, rules)
        if origin is Literal:
            return self._choice(path, raw, typing.get_args(wanted))
        if origin in (Union, types.UnionType):
            return self._union(path, raw, typing.get_args(wanted))
        if origin is tuple:
            return self._list(path, raw, typing.get_args(wanted)[0])
        if origin is dict:
            return self._tables(path, raw, typing.get_args(wanted)[1])
        if wanted is Any:
            return raw
        if isinstance(wanted, type) and issubclass(wanted, Table):
            table = self.table(path, raw, wanted)
            return _BAD if table is None else table
        return self._scalar(path, raw, wanted)

    def _scalar(self, path: KeyPath, raw: Any, wanted: Any) -> Any:
        if wanted is Seconds:
            return self._with_unit(path, raw, parse_duration, "a duration", "s")
        if wanted is Bytes:
            return self._with_unit(path, raw, parse_size, "a size", "B")
        if wanted is Path:
            return self._path(path, raw)
        if wanted is float and type(raw) is int:
            return float(raw)
        if type(raw) is wanted:
            return raw
        hint = ""
        if wanted is str and isinstance(raw, bool | int | float):
            hint = f'write "{toml_value(raw)}"'
        elif wanted in (int, float, bool) and isinstance(raw, str) and raw.strip():
            hint = f"write {raw.strip()} without quotes" if _looks_like(raw.strip(), wanted) else ""
        return self.bad(path, f"this is {_TYPE_NAMES[wanted]}", value=raw, hint=hint)

    def _with_unit(self, path: KeyPath, raw: Any, parse: Callable[[str], Any], what: str, unit: str) -> Any:
        if isinstance(raw, bool) or not isinstance(raw, str | int | float):
            return self.bad(path, f'{what} is a text in quotes, as in "5{unit}"', value=raw)
        if not isinstance(raw, str):
            return self.bad(path, f"{what} needs a unit", value=raw, hint=f'write "{raw}{unit}"')
        try:
            return parse(raw)
        except UnitError as error:
            return self.bad(path, str(error), value=raw, hint=error.hint)

    def _path(self, path: KeyPath, raw: Any) -> Any:
        if not isinstance(raw, str) or not raw or "\0" in raw:
            return self.bad(path, "this is a path, as a text in quotes", value=raw)
        if raw.startswith("~"):
            return self.bad(
                path, "~ is the shell's; here a path starts at / or at this file's folder", value=raw
            )
        return self.absolute(raw)

    def absolute(self, raw: str) -> Path:
        """Relative paths start at the file's folder. `..` is taken out by text, links are kept."""
        return Path(os.path.normpath(self.source.folder / raw))

    def _choice(self, path: KeyPath, raw: Any, choices: tuple[Any, ...]) -> Any:
        if type(raw) is str and raw in choices:
            return raw
        feature = later_value(self.document, path, raw)
        if feature:
            return self.bad(path, not_yet(feature), value=raw, hint=f"write {one_of(choices)}")
        hint = nearest(raw, choices, listing=False) if isinstance(raw, str) else ""
        return self.bad(path, f"this is {one_of(choices)}", value=raw, hint=hint)

    def _union(self, path: KeyPath, raw: Any, choices: tuple[Any, ...]) -> Any:
        """The unions of the schema: `X | None` (an empty path is none), a text or a
        table, "*" or a list, tables told apart by `kind`."""
        choices = tuple(choice for choice in choices if choice is not type(None))
        if choices == (Path,) and raw == "":
            return None
        if len(choices) == 1:
            return self.value(path, raw, choices[0])
        if all(isinstance(choice, type) and issubclass(choice, Table) for choice in choices):
            return self._tagged(path, raw, choices)
        text = next((choice for choice in choices if typing.get_origin(choice) is Annotated), None)
        if text is not None:
            other = next(choice for choice in choices if choice is not text)
            return self.value(path, raw, other if isinstance(raw, dict) else text)
        literal = next(choice for choice in choices if typing.get_origin(choice) is Literal)
        other = next(choice for choice in choices if choice is not literal)
        words = typing.get_args(literal)
        if isinstance(raw, str):
            if raw in words:
                return raw
            return self.bad(path, f"this is {one_of(words)} or a list", value=raw, hint=f'write ["{raw}"]')
        return self.value(path, raw, other)

    def _tagged(self, path: KeyPath, raw: Any, choices: tuple[Any, ...]) -> Any:
        if not isinstance(raw, dict):
            return self.bad(path, _a_table(path), value=raw)
        by_tag = {choice.__struct_config__.tag: choice for choice in choices}
        tag_field = choices[0].__struct_config__.tag_field
        where = (*path, tag_field)
        if tag_field not in raw:
            return self.bad(where, f"this key must be set, to {one_of(by_tag)}")
        tag = self._choice(where, raw[tag_field], tuple(by_tag))
        if tag is _BAD:
            return _BAD
        table = self.table(path, raw, by_tag[tag])
        return _BAD if table is None else table

    def _list(self, path: KeyPath, raw: Any, wanted: Any, *, twice: bool = False) -> Any:
        if not isinstance(raw, list):
            hint = f"write [{toml_value(raw)}]" if isinstance(raw, str) else ""
            return self.bad(path, "this is a list", value=raw, hint=hint)
        values = [self.value(path, item, wanted) for item in raw]
        if any(value is _BAD for value in values):
            return _BAD
        for at, item in enumerate(raw):
            if item in raw[:at] and not twice:
                return self.bad(path, f"{toml_value(item)} stands twice in this list", value=raw)
        return tuple(values)

    def _tables(self, path: KeyPath, raw: Any, wanted: Any) -> Any:
        if not isinstance(raw, dict):
            return self.bad(path, _a_table(path), value=raw)
        if wanted is Any:
            return dict(raw)
        values = {key: self.value((*path, key), item, wanted) for key, item in raw.items()}
        return {key: value for key, value in values.items() if value is not _BAD}

    def _held(self, path: KeyPath, raw: Any, value: Any, rules: list[Any]) -> Any:
        for rule in rules:
            if isinstance(rule, NotEmpty) and not value:
                return self.bad(path, "this must not be empty", value=raw)
            if isinstance(rule, Between) and not rule.low <= value <= (rule.high or value):
                return self.bad(path, f"this is {_range(rule, value)}", value=raw)
        return value


def nearest(given: str, known: Iterable[str], *, listing: bool = True) -> str:
    """A hint: the known word that was probably meant, or what there is."""
    words = [str(word) for word in known]
    close = _close(given, words)
    if close:
        return f'did you mean "{close}"?'
    return f"there is {', '.join(words)}" if listing and words else ""


def _close(given: str, words: Iterable[str]) -> str:
    folded = {word.lower().replace("-", "_"): word for word in words}
    close = difflib.get_close_matches(given.lower().replace("-", "_"), folded, n=1)
    return folded[close[0]] if close else ""


def one_of(choices: Iterable[Any]) -> str:
    """`"a"`, `"a" or "b"`, `"a", "b" or "c"`."""
    words = [toml_value(choice) for choice in choices]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_ROOTS: Final[dict[Document, type[Table]]] = {
    Document.CONFIG: Config,
    Document.ENTRY: Entry,
    Document.MANIFEST: Manifest,
}


def _tables_with(root: type[Table], key: str) -> list[str]:
    return [
        table.name
        for table in msgspec.structs.fields(root)
        if isinstance(table.type, type)
        and issubclass(table.type, Table)
        and any(field.name == key for field in msgspec.structs.fields(table.type))
    ]


def _has_tables(root: type[Table], key: str) -> bool:
    """`[key]` or `[key.NAME]` can be written."""
    kind = next(field.type for field in msgspec.structs.fields(root) if field.name == key)
    return typing.get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Table))


def _a_table(path: KeyPath) -> str:
    return f"this is a table: write its keys below [{'.'.join(path)}]"


def _looks_like(text: str, wanted: Any) -> bool:
    if wanted is bool:
        return text in ("true", "false")
    return text.removeprefix("-").replace(".", "", wanted is float).isdecimal()


def _range(rule: Between, value: Any) -> str:
    def written(end: float) -> str:
        if isinstance(value, Seconds):
            return format_duration(end)
        if isinstance(value, Bytes):
            return format_size(int(end))
        return f"{end:g}" if isinstance(value, float) else str(int(end))

    if rule.high is None:
        return f"at least {written(rule.low)}"
    return f"{written(rule.low)} to {written(rule.high)}"
