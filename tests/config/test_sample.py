"""etc/forkd.toml is the schema's defaults, written down: neither can drift from the other."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import msgspec
import pytest

from forkd.config.load import load
from forkd.config.schema import Config, Discard, Domain, Listener, Maildir, Plugins, Table
from forkd.config.stock import ENTRIES, SAMPLE

_KEY = re.compile(r"# (\w+ = .*)")
_EXAMPLE = re.compile(r"# (\[.*)")


def uncommented(*, examples: bool) -> str:
    """The sample with its comments' keys switched on; commented tables are examples, not defaults."""
    rows, in_example = [], False
    for row in SAMPLE.read_text().splitlines():
        header = _EXAMPLE.match(row)
        in_example = bool(header) or (in_example and row.strip() != "")
        key = header or _KEY.match(row)
        rows.append(key.group(1) if key and (examples or not in_example) else row)
    return "\n".join(rows)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the sample files as an admin would copy them."""
    shutil.copytree(ENTRIES, tmp_path / "plugins.d")
    return tmp_path / "forkd.toml"


def comparable(loaded):
    """Without what depends on where the files lie."""
    config = msgspec.structs.replace(loaded.config, plugins=Plugins())
    return config, [(p.name, p.order, p.powers, p.reads, p.limits, p.on_failure) for p in loaded.plugins]


@pytest.mark.parametrize("switched_on", [False, True], ids=["as shipped", "uncommented"])
def test_the_sample_is_the_defaults(copy: Path, switched_on: bool):
    """operations.md: every key has a default, and it stands in the commented sample."""
    copy.write_text(uncommented(examples=False) if switched_on else SAMPLE.read_text())
    assert comparable(load(copy)) == comparable(load(None, cwd=copy.parent))


def test_every_key_of_the_schema_is_in_the_sample():
    """A key that is not in the sample is one that nobody finds."""
    content = tomllib.loads(uncommented(examples=True))
    tables: list[tuple[type[Table], dict[str, object]]] = [
        (Listener, content["listener"]["default"]),
        (Domain, content["domain"]["localhost"]),
        (Domain, content["domain"]["test.local"]),
        (Maildir, content["transport"]["local"]),
        (Discard, content["transport"]["nowhere"]),
        (Config, content),
    ]
    for field in msgspec.structs.fields(Config):
        if isinstance(field.type, type) and issubclass(field.type, Table):
            tables.append((field.type, content[field.name]))
    missing = [
        f"{cls.__name__}.{field.name}"
        for cls, given in tables
        for field in msgspec.structs.fields(cls)
        if field.name not in given
    ]
    assert not missing


def test_every_key_of_the_sample_has_its_reason_beside_it():
    """operations.md: its reason stands beside it."""
    rows = SAMPLE.read_text().splitlines()
    repeated = rows.index('[domain."test.local"]')  # the keys are explained in the table before
    bare = [
        row
        for at, row in enumerate(rows)
        if _KEY.match(row)
        and "#" not in row[2:]
        and not rows[at + 1].strip().startswith("# ")
        and not repeated < at < repeated + 5
        and not row.startswith("# kind")
    ]
    assert not bare
