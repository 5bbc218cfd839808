"""forkd/master/reload_report.py: what changed, and what of it can be applied while forkd runs?"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest

from forkd.config.load import LoadedConfig, load
from forkd.master.reload_report import MOST, changes, pinned


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedConfig:
    return load(None, cwd=tmp_path)


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


def test_a_plugin_that_goes_is_told(loaded: LoadedConfig):
    """Plugins are part of the configuration."""
    found = changes(loaded, dataclasses.replace(loaded, plugins=()))
    assert found.applied and all(each.key.startswith("plugin.") for each in found.applied)


def test_a_report_fits_one_record(loaded: LoadedConfig):
    """Of thousands of changes the first are told, and how many there are."""
    domain = next(iter(loaded.config.domain.values()))
    many = {f"d{number}.example": domain for number in range(1000)}
    new = dataclasses.replace(loaded, config=msgspec.structs.replace(loaded.config, domain=many))
    found = changes(loaded, new)
    assert len(found.applied) == MOST + 1 and "more" in found.applied[-1].key
