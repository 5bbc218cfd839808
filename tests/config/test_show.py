"""What is in force, readable again: forkd/config/show.py."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from forkd.config.load import load
from forkd.config.show import as_data, as_toml
from tests.support.config_files import loaded


def test_what_is_shown_loads_to_the_same(tmp_path: Path):
    """`config show --effective` is valid TOML and means what is in force."""
    first = loaded(
        tmp_path,
        """\
        [domain."example.org"]
        mailboxes = ["a\\"b", "c d"]
        [networks]
        relay = ["10.0.0.0/8"]
        [queue]
        relay_transport = "x"
        retry_first = "1.5s"
        [transport.x]
        kind = "discard"
        at = "accept"
        """,
    )
    other = tmp_path / "again.toml"
    other.write_text(as_toml(first))
    assert load(other).config == first.config


def test_plugins_are_shown(tmp_path: Path):
    """Everything in force includes what plugins may do."""
    shown = tomllib.loads(as_toml(load(None, cwd=tmp_path)))
    assert shown["plugin"]["mark"]["powers"]["edit_headers"] == ["X-Forkd-Plugin"]
    assert shown["plugin"]["block_senders"]["limits"]["timeout"] == "5s"


def test_toml_and_json_say_the_same(tmp_path: Path):
    """Two forms of one answer."""
    default = load(None, cwd=tmp_path)
    data = as_data(default)
    assert json.loads(json.dumps(data)) == tomllib.loads(as_toml(default)) == data


def test_only_what_differs_is_shown_when_asked(tmp_path: Path):
    """`config show` without --effective: what this file changes."""
    result = loaded(tmp_path, '[limits]\nerrors = 5\nrecipients = 1000\n[log]\nlevel = "info"\n')
    assert as_data(result, everything=False)["limits"] == {"errors": 5}
    assert "log" not in as_data(result, everything=False)


def test_notes_are_comments(tmp_path: Path):
    """The text stays valid TOML."""
    assert "# note: queue.durability" in as_toml(loaded(tmp_path, '[queue]\ndurability = "none"\n'))
