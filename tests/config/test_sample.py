"""etc/forkd.toml is the schema's defaults, written down: neither can drift from the other."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import msgspec
import pytest

from forkd.config.auth_checks import wants_auth
from forkd.config.limits import written
from forkd.config.load import load
from forkd.config.schema import (
    Certificate,
    Config,
    Discard,
    Domain,
    Entry,
    Grants,
    Listener,
    Lmtp,
    Maildir,
    Pipe,
    PluginLimits,
    Plugins,
    Scope,
    Smtp,
    Table,
)
from forkd.config.stock import ENTRIES, SAMPLE, stock_plugins

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


def test_the_examples_hold_too(copy: Path):
    """What is commented out as a whole table fits what stands around it, once its files are there."""
    for name in ("mail.example.org.pem", "mail.example.org.key", "users"):
        (copy.parent / name).touch(0o600)
    text = uncommented(examples=True).replace("/usr/local/bin/deliver", "/bin/cat")
    assert text.count('backend = "none"') == 1
    copy.write_text(text.replace('backend = "none"', 'backend = "users"'))
    config = load(copy).config
    assert set(config.listener) == {"default", "submission", "submissions"}
    assert [name for name, one in config.listener.items() if wants_auth(one)] == ["submission", "submissions"]


def test_every_key_of_the_schema_is_in_the_sample():
    """A key that is not in the sample is one that nobody finds."""
    content = tomllib.loads(uncommented(examples=True))
    tables: list[tuple[type[Table], dict[str, object]]] = [
        (Listener, content["listener"]["default"]),
        (Domain, content["domain"]["localhost"]),
        (Domain, content["domain"]["test.local"]),
        (Maildir, content["transport"]["local"]),
        (Discard, content["transport"]["nowhere"]),
        (Smtp, content["transport"]["relay"]),
        (Lmtp, content["transport"]["store"]),
        (Pipe, content["transport"]["program"]),
        (Certificate, content["certificate"]["mail.example.org"]),
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


def test_every_key_of_an_entry_is_in_a_sample():
    """The entry of block_senders shows all that such a file can say; other kinds have one of theirs."""
    text = "".join(file.read_text() for file in sorted(ENTRIES.glob("*.toml")))
    missing = [
        f"{cls.__name__}.{field.name}"
        for cls in (Entry, Grants, Scope, PluginLimits)
        for field in msgspec.structs.fields(cls)
        if not re.search(rf"^(# )?(\[{field.name}\]|{field.name} = )", text, re.MULTILINE)
    ]
    assert not missing


def test_limits_in_the_sample_of_an_entry_are_the_defaults():
    """What is commented out shows what is in force."""
    text = (ENTRIES / "10-block_senders.toml").read_text()
    rows = re.findall(
        r"^# (\w+ = [^#\n]+)", text.partition("[limits]")[2].partition("\n# Two trades")[0], re.M
    )
    shown = tomllib.loads("\n".join(rows))
    default = {name: written(getattr(PluginLimits(), name)) for name in PluginLimits.__struct_fields__}
    assert {name: str(value) for name, value in shown.items()} == default


def test_both_trades_say_what_they_cost():
    """plugins.md: the sample shows both, commented out, with what they cost and what they give up."""
    text = (ENTRIES / "10-block_senders.toml").read_text()
    for trade in ("# reuse = 100", '# group = "checks"'):
        after = text.partition(trade)[2]
        assert "#   You get: " in after
        assert "#   You give up: " in after


def test_the_stock_plugins_are_off_and_can_be_switched_on(copy: Path):
    """One key, and what the file says holds; every plugin that comes with forkd has such a file."""
    copy.write_text(SAMPLE.read_text())
    assert [plugin.name for plugin in load(copy).plugins] == ["block_senders", "mark"]
    for file in (copy.parent / "plugins.d").glob("*.toml"):
        if "\nkind = " not in file.read_text():  # else it names a file that is the admin's own
            file.write_text(file.read_text().replace("\nenabled = false\n", "\n"))
    assert sorted(plugin.name for plugin in load(copy).plugins) == stock_plugins()
