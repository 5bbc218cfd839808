"""forkd/master/given.py: who must be another process after a reload?"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import msgspec
import pytest

import forkd
from forkd.config.load import LoadedConfig, load
from forkd.config.schema import Config, Seconds
from forkd.master.given import NOT_QMGRS, given

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
        ("log", {"format": "json"}, {"admin", "qmgr", "broker", "launcher"}),
    ],
)
def test_only_who_goes_by_it_is_another_process(loaded: LoadedConfig, table: str, keys, others: set[str]):
    """Deliveries, counts and caches of the others outlast the reload."""
    changed = with_(loaded, table, **keys)
    roles = ("anvil", "admin", "qmgr", "broker", "launcher")
    assert {role for role in roles if given(role, loaded) != given(role, changed)} == others


def test_qmgr_goes_by_the_paths_where_it_asks(loaded: LoadedConfig):
    """A zygote that was started anew for a pipe has another socket."""
    assert given("qmgr", loaded, {"@pipe-a": "run/a"}) != given("qmgr", loaded, {"@pipe-a": "run/a~1"})
