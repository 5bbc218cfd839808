"""forkd/master/reload_report.py: what changed, and what of it can be applied while forkd runs?"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import msgspec
import pytest

from forkd.config.load import LoadedConfig, load
from forkd.config.schema import (
    Certificate,
    Discard,
    Domain,
    Listener,
    Lmtp,
    Log,
    Maildir,
    Pipe,
    QmailQueue,
    Route,
    Smtp,
)
from forkd.master.reload_report import AT_START, MAX_VALUE, MOST, changes, pinned
from tests.support.settings import at, changed, every, key


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    return load(None, cwd=tmp_path)


TABLES = {
    "listener": {"mx": Listener()},
    "certificate": {"*.example.org": Certificate(chain=Path("mx.pem"))},
    "domain": {"test.local": Domain()},
    "route": {"*": Route()},
    "transport": {
        "local": Maildir(),
        "none": Discard(),
        "qmail": QmailQueue(),
        "smtp": Smtp(),
        "lmtp": Lmtp(),
        "program": Pipe(argv=("/bin/true",)),
    },
}
"""One of each."""


@pytest.fixture
def whole(loaded: LoadedConfig) -> LoadedConfig:
    """With a table of each kind, so that every key of the schema is there."""
    return dataclasses.replace(with_(loaded, **TABLES), plugins=())


def with_(loaded: LoadedConfig, **tables) -> LoadedConfig:
    return dataclasses.replace(loaded, config=msgspec.structs.replace(loaded.config, **tables))


def test_every_key_of_the_schema_is_told_in_one_class_and_it_is_true(whole: LoadedConfig):
    """Applied is what comes into force, needs a restart what does not; all others are unchanged."""
    paths = list(every(whole.config))
    kinds = {type(table) for table in TABLES["transport"].values()}
    assert kinds == {type(at(whole.config, path[:2])) for path in paths if path[0] == "transport"}
    total, left = changes(whole, whole).unchanged, []
    for table in whole.config.__struct_fields__:
        ours = [path for path in paths if path[0] == table]
        new = functools.reduce(changed, ours, whole)
        # Of an environment each variable is a key.
        names = {path: key(path) + (".x" if at(new.config, path) == {"x": "x"} else "") for path in ours}
        found = changes(whole, new)
        applied, needs_restart = (
            [each.key for each in keys] for keys in (found.applied, found.needs_restart)
        )
        assert sorted(applied + needs_restart) == sorted(names.values()), (
            "each in one of them, nothing beside"
        )
        assert found.unchanged == total - sum(name == key(path) for path, name in names.items())
        left += needs_restart
        loaded = pinned(whole, new).config
        for path, name in names.items():
            in_force = new if name in applied else whole
            assert at(loaded, path) == at(in_force.config, path), name
    assert sorted(left) == sorted(AT_START)


def test_every_table_that_comes_or_goes_is_one_line(whole: LoadedConfig):
    """With what differs from the defaults, and not each of them: that would bury what else changed."""
    for name, tables in TABLES.items():
        for one in tables:
            less = with_(whole, **{name: {each: table for each, table in tables.items() if each != one}})
            (gone,), (came,) = changes(whole, less).applied, changes(less, whole).applied
            assert gone.key == came.key == key((name, one))
            assert (gone.old, gone.new) == (came.new, came.old) and gone.old.startswith("{") and not gone.new
    with_one = with_(whole, listener=TABLES["listener"] | {"out": Listener(address="[::1]:25", tls="off")})
    (told,) = changes(whole, with_one).applied
    assert told.new == '{ address = "[::1]:25", tls = "off" }'


def test_a_plugin_that_comes_is_one_line(loaded: LoadedConfig):
    """Its version, and the file that switched it on."""
    assert loaded.plugins
    (told,) = changes(dataclasses.replace(loaded, plugins=loaded.plugins[1:]), loaded).applied
    assert told.key == f"plugin.{loaded.plugins[0].name}"
    assert loaded.plugins[0].version in told.new and "source" in told.new


def test_of_a_long_value_is_told_where_it_differs(loaded: LoadedConfig):
    """The 41st mailbox is a change too."""
    names = [f"user{number:03}" for number in range(41)]
    old, new = (
        with_(loaded, domain={"test.local": Domain(mailboxes=tuple(each))}) for each in (names[:40], names)
    )
    (told,) = changes(old, new).applied
    assert "user040" in told.new and "user040" not in told.old and "user039" in told.old
    (told,) = changes(new, with_(new, domain={"test.local": Domain(mailboxes=("y" * 500,))})).applied
    assert told.old and max(len(told.old), len(told.new)) <= MAX_VALUE + 2


@pytest.mark.parametrize(
    ("table", "one"), [("route", Route()), ("certificate", Certificate(chain=Path("mx.pem")))]
)
def test_another_order_is_told_where_the_first_counts(loaded: LoadedConfig, table: str, one):
    """The same tables, and other mail goes another way."""
    there = {"a.example": one, "b.example": one}
    old, new = with_(loaded, **{table: there}), with_(loaded, **{table: dict(reversed(there.items()))})
    (told,) = changes(old, new).applied
    assert (told.key, told.new) == (f"{table} (the order)", '["b.example", "a.example"]')
    more = with_(loaded, **{table: {"new.example": one} | there})
    assert not [each for each in changes(old, more).applied if "order" in each.key]


def test_a_secret_is_told_without_its_value_beside_other_settings(loaded: LoadedConfig):
    """Neither it nor that it changed is lost."""
    first = loaded.plugins[0]

    def with_settings(**settings) -> LoadedConfig:
        member = msgspec.structs.replace(first.members[0], settings=settings, secrets=("password",))
        plugin = msgspec.structs.replace(first, members=(member,))
        return dataclasses.replace(loaded, plugins=(plugin, *loaded.plugins[1:]))

    old, new = with_settings(password="a", limit=1), with_settings(password="b", limit=2)
    start = f"plugin.{first.name}.settings"
    told = changes(old, new).applied
    assert [each.key for each in told] == [f"{start}.limit", f"{start}.password"]
    assert (told[1].old, told[1].new) == ("(hidden)", "(hidden)")


def server(loaded: LoadedConfig, **keys) -> LoadedConfig:
    changed = msgspec.structs.replace(loaded.config.server, **keys)
    return dataclasses.replace(loaded, config=msgspec.structs.replace(loaded.config, server=changed))


def test_each_key_is_told_with_what_it_was_and_is(loaded: LoadedConfig):
    """As `forkd config show` names it."""
    found = changes(loaded, server(loaded, greeting="new"))
    assert [(each.key, each.old, each.new) for each in found.applied] == [
        ("server.greeting", '"ESMTP"', '"new"')
    ]
    assert not found.needs_restart and found.unchanged > 50


def test_nothing_changed_is_nothing_told(loaded: LoadedConfig):
    """HUP after `touch`: a report without keys."""
    found = changes(loaded, loaded)
    assert not found.applied and not found.needs_restart


def test_what_needs_a_restart_says_why_and_stays(loaded: LoadedConfig):
    """The rest is applied, these keys are as they were."""
    new = server(loaded, user="other", greeting="new")
    found = changes(loaded, new)
    assert [each.key for each in found.needs_restart] == ["server.user"]
    assert found.needs_restart[0].why
    kept = pinned(loaded, new).config.server
    assert (kept.user, kept.greeting) == (loaded.config.server.user, "new")


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [("logfmt", "json", False), ("logfmt", "journal", True), ("journal", "json", True)],
)
def test_the_logs_way_to_the_journal_needs_a_restart(loaded: LoadedConfig, old: str, new: str, stays: bool):
    """Between the forms of text it changes while we run; the level always does."""
    before = with_(loaded, log=Log(format=old))
    after = with_(loaded, log=Log(format=new, level="debug"))
    found = changes(before, after)
    assert [each.key for each in found.needs_restart] == (["log.format"] if stays else [])
    assert pinned(before, after).config.log == Log(format=old if stays else new, level="debug")


def test_a_plugin_that_goes_is_told(loaded: LoadedConfig):
    """Plugins are part of the configuration."""
    found = changes(loaded, dataclasses.replace(loaded, plugins=()))
    assert found.applied and all(each.key.startswith("plugin.") for each in found.applied)
    assert len(found.applied) == len(loaded.plugins)


def test_a_report_fits_one_record(loaded: LoadedConfig):
    """Of thousands of changes the first are told, and how many there are."""
    domain = next(iter(loaded.config.domain.values()))
    many = {f"d{number}.example": domain for number in range(1000)}
    new = dataclasses.replace(loaded, config=msgspec.structs.replace(loaded.config, domain=many))
    found = changes(loaded, new)
    assert len(found.applied) == MOST + 1 and "more" in found.applied[-1].key
