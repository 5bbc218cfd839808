"""forkd/master/given.py: who must be another process after a reload?"""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import msgspec
import pytest

import forkd
from forkd.config.load import LoadedConfig, load
from forkd.config.schema import Config, Route, Seconds, Table
from forkd.master.given import NOT_QMGRS, given
from tests.support.settings import other

CODE = Path(forkd.__file__).parent


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    return load(None, cwd=tmp_path)


def with_(loaded: LoadedConfig, table: str, **keys) -> LoadedConfig:
    changed = msgspec.structs.replace(getattr(loaded.config, table), **keys)
    return dataclasses.replace(loaded, config=msgspec.structs.replace(loaded.config, **{table: changed}))


def test_qmgr_reads_no_table_that_is_said_not_to_concern_it():
    """Else it would go on with an old setting, and the report would say that it was applied."""
    read = re.compile(rf"\bconfig\.({'|'.join(sorted(NOT_QMGRS))})\b")
    files = [*CODE.glob("qmgr/*.py"), *CODE.glob("deliver/*.py"), *CODE.glob("lookups/*.py")]
    files += [CODE / "config" / name for name in ("recipients.py", "expansion.py", "routes.py")]
    wrong = [
        f"{path.name}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if read.search(line) and "import" not in line
    ]
    assert not wrong
    assert set(Config.__struct_fields__) >= NOT_QMGRS


@pytest.mark.parametrize(
    ("table", "keys", "others"),
    [
        ("limits", {"sessions": 7}, {"admin"}),
        ("queue", {"give_up": Seconds(60)}, {"admin", "qmgr"}),
        ("dns", {"timeout": Seconds(1)}, {"admin", "qmgr", "broker"}),
        ("queue", {"concurrency": 9}, {"admin", "qmgr", "launcher"}),
        ("trace", {"keep": Seconds(0)}, {"admin", "qmgr", "broker"}),
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


def read_by(package: str) -> set[tuple[str, str]]:
    """Table and key that its code reads of `config` (`self._config`, `start.config`); key "": all of it."""
    found = set()
    for path in CODE.glob(f"{package}/*.py"):
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


@pytest.mark.parametrize("role", ["anvil", "broker", "launcher"])
def test_who_reads_a_key_goes_by_it(loaded: LoadedConfig, role: str):
    """Else its process would go on with the old value, and the report would say that it was applied."""
    kept = []
    for table, key in sorted(read_by(role)):
        before = getattr(loaded.config, table)
        if not isinstance(before, Table):
            continue  # tables by name: transports, of which the launcher has those of its kind
        for name in [key] if key else before.__struct_fields__:
            changed = with_(loaded, table, **{name: other(getattr(before, name))})
            if given(role, changed) == given(role, loaded):
                kept.append(f"{table}.{name}")
    assert not kept


def test_qmgr_goes_by_the_paths_where_it_asks(loaded: LoadedConfig):
    """A zygote that was started anew for a pipe has another socket."""
    assert given("qmgr", loaded, {"@pipe-a": "run/a"}) != given("qmgr", loaded, {"@pipe-a": "run/a~1"})
