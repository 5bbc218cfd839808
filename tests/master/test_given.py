"""forkd/master/given.py: who must be another process after a reload?"""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import msgspec
import pytest

import forkd
from forkd.config.load import LoadedConfig, load
from forkd.config.schema import Config, Route, Seconds, Table
from forkd.master.given import NOT_QMGRS, given
from forkd.master.reload_report import AT_START
from tests.support.settings import other

CODE = Path(forkd.__file__).parent


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    return load(None, cwd=tmp_path)


def with_(loaded: LoadedConfig, table: str, **keys) -> LoadedConfig:
    changed = msgspec.structs.replace(getattr(loaded.config, table), **keys)
    return dataclasses.replace(loaded, config=msgspec.structs.replace(loaded.config, **{table: changed}))


@pytest.mark.parametrize(
    ("table", "keys", "others"),
    [
        ("limits", {"sessions": 7}, {"admin"}),
        ("server", {"greeting": "new", "workers": 3, "stop_timeout": Seconds(1)}, {"admin"}),
        ("server", {"hostname": "other.example"}, {"admin", "qmgr"}),
        ("admin", {"view": ("daemon",)}, {"admin"}),
        ("probe", {"enabled": False}, {"admin"}),
        ("queue", {"give_up": Seconds(60)}, {"admin", "qmgr"}),
        ("dns", {"timeout": Seconds(1)}, {"admin", "qmgr", "broker"}),
        ("queue", {"concurrency": 9}, {"admin", "qmgr", "launcher"}),
        ("trace", {"keep": Seconds(0)}, {"admin", "qmgr", "broker"}),
        ("metrics", {"listen": "127.0.0.1:9252"}, {"admin"}),
        ("metrics", {"listen": ""}, {"admin", "qmgr", "broker"}),
        ("log", {"format": "json"}, {"admin", "qmgr", "broker", "launcher"}),
    ],
)
def test_only_who_goes_by_it_is_another_process(loaded: LoadedConfig, table: str, keys, others: set[str]):
    """Deliveries, counts and caches of the others outlast the reload."""
    changed = with_(loaded, table, **keys)
    roles = ("anvil", "admin", "qmgr", "broker", "launcher")
    assert {role for role in roles if given(role, loaded) != given(role, changed)} == others


def test_qmgr_goes_by_the_order_of_routes(loaded: LoadedConfig):
    """The first pattern that matches counts, and a dict is equal to one in another order."""
    there = {"a.example": Route(), "*": Route()}
    back = dict(reversed(there.items()))
    one, other = (
        dataclasses.replace(loaded, config=msgspec.structs.replace(loaded.config, route=routes))
        for routes in (there, back)
    )
    assert given("qmgr", one) != given("qmgr", other)


CODE_OF = {
    "anvil": ("anvil/*.py",),
    "broker": ("broker/*.py", "lookups/*.py"),
    "launcher": ("launcher/*.py",),
    "qmgr": (
        *("qmgr/*.py", "deliver/*.py", "lookups/*.py"),
        *(f"config/{name}.py" for name in ("recipients", "expansion", "routes")),
    ),
}


def read_by(role: str) -> set[tuple[str, str]]:
    """Table and key that its code reads of `config` (`self._config`, `start.config`); key "": all of it."""
    found = set()
    paths = [path for pattern in CODE_OF[role] for path in CODE.glob(pattern)]
    assert paths
    for path in paths:
        inner = set()
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(attr=key, value=ast.Attribute(attr=table, value=base) as whole):
                    if ast.unparse(base).endswith("config"):
                        found.add((table, key))
                        inner.add(whole)
                case ast.Attribute(attr=table, value=base) if node not in inner:
                    if ast.unparse(base).endswith("config") and table in Config.__struct_fields__:
                        found.add((table, ""))
    return found


@pytest.mark.parametrize("role", CODE_OF)
def test_who_reads_a_key_goes_by_it(loaded: LoadedConfig, role: str):
    """Else its process would go on with the old value, and the report would say that it was applied."""
    kept = []
    for table, key in sorted(read_by(role)):
        before = getattr(loaded.config, table)
        if not isinstance(before, Table):  # tables by name; the launcher has transports of its kind
            assert role == "launcher" or table not in NOT_QMGRS
            continue
        for name in [key] if key else before.__struct_fields__:
            changed = with_(loaded, table, **{name: other(getattr(before, name))})
            if given(role, changed) == given(role, loaded):
                kept.append(f"{table}.{name}")
    assert not set(kept) - AT_START.keys()
    assert set(Config.__struct_fields__) >= NOT_QMGRS


def test_qmgr_goes_by_the_paths_where_it_asks(loaded: LoadedConfig):
    """A zygote that was started anew for a pipe has another socket."""
    assert given("qmgr", loaded, {"@pipe-a": "run/a"}) != given("qmgr", loaded, {"@pipe-a": "run/a~1"})
