"""How is a table of the configuration shown? Each key: what it takes, within which range, its default, why.

Only types that the schema has today are known; another one is an error here, so that nobody reads a guess.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec

from forkd.config.problems import toml_value
from forkd.config.table import Between, NotEmpty, Table
from forkd.config.units import Bytes, Seconds, format_duration, format_size
from tools.manual import source, words
from tools.manual.roff import Page, bold, escaped, italic


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A table as it is headed in the file, the struct behind it, and which of its keys are shown here."""

    heading: str
    cls: type[msgspec.Struct]
    keys: tuple[str, ...]
    about: str = ""
    """Said in the place of the struct's docstring."""


@dataclasses.dataclass(frozen=True, slots=True)
class Takes:
    """What a key takes: source of man(7)."""

    what: str
    range: str = ""


_PLAIN = {
    bool: Takes(f"{bold('true')} or {bold('false')}"),
    int: Takes("a whole number"),
    float: Takes("a number"),
    str: Takes("a text"),
    Path: Takes("a path"),
    Seconds: Takes("a duration"),
    Bytes: Takes("a size"),
    Any: Takes("a value"),
}
_MANY = {
    bool: "true or false",
    int: "whole numbers",
    str: "texts",
    Path: "paths",
    Seconds: "durations",
    Bytes: "sizes",
}


def sections(root: type[msgspec.Struct], path: str = "", *, about: str = "") -> Iterator[Section]:
    """The tables of a file, in the order of the schema; the root's own keys first, if it has any.

    about   what is said of the root, in the place of its docstring
    """
    inner: list[Section] = []
    own: list[str] = []
    docs = source.fields(root)
    for field in msgspec.structs.fields(root):
        name = f"{path}.{field.encode_name}" if path else field.encode_name
        kinds = _structs(field.type)
        if typing.get_origin(field.type) is dict and kinds:
            inner += _named(f"[{name}.NAME]", kinds, docs.get(field.name, ""))
        elif typing.get_origin(field.type) is not dict and len(kinds) == 1 and _is_table(field.type):
            inner += sections(kinds[0], name)
        else:
            own.append(field.name)
    if own:
        yield Section(f"[{path}]" if path else "", root, tuple(own), about)
    yield from inner


def write_sections(page: Page, found: typing.Iterable[Section]) -> None:
    """Each table under a heading of its own."""
    for section in found:
        if section.heading:
            page.subheading(section.heading)
        about = section.about or _about(section.cls)
        words.write(page, about)
        write_keys(page, section.cls, section.keys)


def write_keys(page: Page, cls: type[msgspec.Struct], keys: typing.Iterable[str]) -> None:
    """The keys as terms."""
    docs = source.fields(cls)
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    for name in keys:
        field = fields[name]
        page.term(f"{bold(field.encode_name)} = {takes(field.type).what}")
        page.further(_range_and_default(field))
        if docs.get(name):
            words.write(page, docs[name], below_term=True)


def takes(wanted: Any, rules: tuple[Any, ...] = ()) -> Takes:
    """What a field's type means for who writes the file. Raises TypeError for a type that is not known."""
    origin = typing.get_origin(wanted)
    if origin is Annotated:
        base, *inner = typing.get_args(wanted)
        return takes(base, (*rules, *inner))
    if origin is Literal:
        return Takes(" | ".join(bold(toml_value(value)) for value in typing.get_args(wanted)))
    if origin in (Union, types.UnionType):
        choices = [one for one in typing.get_args(wanted) if one is not type(None)]
        if any(_is_table(one) for one in choices):
            tables = [one for one in choices if _is_table(one)]
            others = [takes(one).what for one in choices if not _is_table(one)]
            return Takes(" or ".join([*others, *(_inline(one) for one in tables)]))
        found = [takes(one, rules) for one in choices]
        return Takes(" or ".join(one.what for one in found), found[0].range)
    if origin is tuple:
        item = typing.get_args(wanted)[0]
        return Takes(_list_of(item), "" if not _has(rules, NotEmpty) else "not empty")
    if origin is dict:
        return Takes(f"a table of names = {takes(typing.get_args(wanted)[1]).what}")
    if _is_table(wanted):
        return Takes(_inline(wanted))
    if wanted in _PLAIN:
        return Takes(_PLAIN[wanted].what, _range(wanted, rules))
    raise TypeError(f"tools/manual/schema.py has no words for the type {wanted!r}")


def _list_of(item: Any) -> str:
    if typing.get_origin(item) is Annotated:
        item = typing.get_args(item)[0]
    if typing.get_origin(item) is Literal:
        return "a list of " + ", ".join(bold(toml_value(value)) for value in typing.get_args(item))
    if item in _MANY:
        return f"a list of {_MANY[item]}"
    raise TypeError(f"tools/manual/schema.py has no words for a list of {item!r}")


def _inline(cls: type[msgspec.Struct]) -> str:
    names = ", ".join(
        f"{field.encode_name} = \N{HORIZONTAL ELLIPSIS}" for field in msgspec.structs.fields(cls)
    )
    return bold("{ ") + italic(names) + bold(" }")


def _range(wanted: Any, rules: tuple[Any, ...]) -> str:
    for rule in rules:
        if isinstance(rule, Between):
            low, high = _number(wanted, rule.low), "" if rule.high is None else _number(wanted, rule.high)
            return f"{low} to {high}" if high else f"{low} or more"
    return "not empty" if _has(rules, NotEmpty) else ""


def _number(wanted: Any, value: float) -> str:
    if wanted is Seconds:
        return format_duration(value)
    return format_size(int(value)) if wanted is Bytes else f"{value:g}" if value % 1 else str(int(value))


def _range_and_default(field: msgspec.structs.FieldInfo) -> str:
    """`10s to 1h; default: 5m.`"""
    default = _default(field)
    known = takes(field.type).range
    said = [escaped(known)] if known and not (known == "not empty" and default) else []
    said.append(f"default: {default}" if default else "must be given" if field.required else "")
    text = "; ".join(part for part in said if part)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required or field.default is msgspec.UNSET or field.default is None:
        return ""
    if field.default is msgspec.NODEFAULT:
        return bold("{}") if field.default_factory is dict else ""
    if isinstance(field.default, msgspec.Struct):
        return ""
    return bold(written(field.default))


def written(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, Seconds):
        return toml_value(format_duration(value))
    return toml_value(format_size(value)) if isinstance(value, Bytes) else toml_value(value)


def _named(heading: str, kinds: list[type[msgspec.Struct]], about: str) -> Iterator[Section]:
    """A table of tables; where there are several kinds of them, what two have in common comes last."""
    if len(kinds) == 1:
        text = "\n\n".join(part for part in (_about(kinds[0]), about) if part)
        yield Section(heading, kinds[0], _all(kinds[0]), text)
        return
    if about:
        yield Section(heading, kinds[0], (), about)
    shared: dict[type[msgspec.Struct], list[str]] = {}
    for cls in kinds:
        base = cls.__mro__[1]
        kind = str(cls.__struct_config__.tag)
        if base is not Table:
            shared.setdefault(base, []).append(kind)
        own = tuple(name for name in _all(cls) if base is Table or name in source.own_fields(cls))
        yield Section(f'{heading} kind = "{kind}"', cls, own)
    for base, names in shared.items():
        quoted = " and ".join(f'"{name}"' for name in names)
        yield Section(f"{heading} kind = {quoted}: both", base, _all(base), f"What the kinds {quoted} share.")


def _all(cls: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(cls))


def _about(cls: type[msgspec.Struct]) -> str:
    """A struct's docstring without the table's name, which is the heading."""
    text = inspect.getdoc(cls) or ""
    first, colon, rest = text.partition(": ")
    if first.startswith("[") and colon and "\n" not in first:
        text = rest if rest.startswith("forkd") else rest[:1].upper() + rest[1:]
    elif first.startswith("["):
        text = text.partition("\n\n")[2]
    return text


def _structs(wanted: Any) -> list[type[msgspec.Struct]]:
    """The tables that a type names."""
    origin = typing.get_origin(wanted)
    if origin is dict:
        return _structs(typing.get_args(wanted)[1])
    if origin in (Union, types.UnionType):
        return [cls for one in typing.get_args(wanted) for cls in _structs(one)]
    return [wanted] if _is_table(wanted) else []


def _is_table(wanted: Any) -> bool:
    return isinstance(wanted, type) and issubclass(wanted, msgspec.Struct)


def _has(rules: tuple[Any, ...], kind: type) -> bool:
    return any(isinstance(rule, kind) for rule in rules)
