"""What is shown can be read again, whatever is in it: show.py, units.py and reader.py together."""

from __future__ import annotations

import tomllib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.config.later import Document
from forkd.config.load import LoadedConfig
from forkd.config.problems import Problems, Source
from forkd.config.reader import Reader
from forkd.config.schema import Between, Bytes, Config, NotEmpty, Ordered, Seconds, Table
from forkd.config.show import as_data, as_toml

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="/\0~."), min_size=1, max_size=9).map(
    lambda name: Path("/") / name
)


def values(wanted: Any, rules: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Everything that a field of the schema may hold."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Annotated:
        return values(arguments[0], arguments[1:])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([st.none() if one is type(None) else values(one) for one in arguments])
    least = 1 if any(isinstance(rule, NotEmpty) for rule in rules) else 0
    if origin is tuple:
        once = None if any(isinstance(rule, Ordered) for rule in rules) else str
        return st.lists(values(arguments[0]), min_size=least, max_size=3, unique_by=once).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, values(arguments[1]), max_size=2)
    if isinstance(wanted, type) and issubclass(wanted, Table):
        fields = msgspec.structs.fields(wanted)
        return st.builds(wanted, **{field.name: values(field.type) for field in fields})
    between = next((rule for rule in rules if isinstance(rule, Between)), Between(0, 1000))
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        str: TEXT.filter(lambda text: len(text) >= least),
        Path: PATHS,
        int: st.integers(int(between.low), int(between.high or 0)),
        Bytes: st.integers(int(between.low), int(between.high or 0)).map(Bytes),
        Seconds: st.floats(between.low, between.high).map(Seconds),
    }
    return scalars[wanted]


@settings(max_examples=60)
@given(values(Config))
def test_any_configuration_that_is_shown_reads_back_as_itself(config: Config):
    """operations.md: `config show --effective`; every type, range and name of the schema."""
    shown = as_toml(LoadedConfig(config, (), Path("/etc/forkd.toml")))
    problems = Problems()
    content = tomllib.loads(shown)
    again = Reader(Source(None, folder=Path("/")), problems, Document.CONFIG).table((), content, Config)
    problems.raise_if_any()
    assert again == config
    assert as_data(LoadedConfig(config, (), None)) == content
