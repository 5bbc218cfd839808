"""Two versions of a plugin: forkd/config/differences.py, through manifests as they are written."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from forkd.config.differences import Difference, difference
from forkd.config.load import read_toml
from forkd.config.manifest import read_manifest
from forkd.config.problems import Problems

HEAD = 'name = "mine"\nversion = "1"\napi = 1\n'
HOOKS = 'hooks = ["rcpt", "message"]\n'


def compared(folder: Path, old: str, new: str) -> Difference:
    found = []
    for name, text in (("old.toml", old), ("new.toml", new)):
        file = folder / name
        file.write_text(HEAD + ("" if "hooks =" in text else HOOKS) + textwrap.dedent(text))
        problems = Problems()
        plugin = read_manifest(file, read_toml, problems, alone=True)
        problems.raise_if_any()
        assert plugin is not None
        found.append(plugin.manifest)
    return difference(found[0], found[1])


SETTING = '[settings.zones]\ntype = "strings"\ndefault = []\n'
POWERS, ASKED, READS = "[wants.powers]\n", "[wants.capabilities]\n", "[wants.reads]\n"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("", POWERS + 'discard = "r"', "may drop mail that was answered 250: nobody is told"),
        (
            POWERS + 'edit_headers = { names = ["X-A"], reason = "r" }',
            POWERS + 'edit_headers = { names = ["X-*"], reason = "r" }',
            "may add, change and delete the header fields X-*",
        ),
        (
            POWERS + 'add_recipient = { domains = ["a.example"], reason = "r" }',
            POWERS + 'add_recipient = { domains = ["*"], reason = "r" }',
            "may send copies of mail to any recipient of ours",
        ),
        (
            ASKED + 'dns = { suffixes = ["zen.example"], reason = "r" }',
            ASKED + 'dns = { suffixes = ["example"], reason = "r" }',
            "may look up names below example: the name it asks can carry data out",
        ),
        (
            SETTING,
            SETTING + ASKED + 'dns = { suffixes_in = ["zones"], reason = "r" }',
            "may look up names below what the setting zones names: the name it asks can carry data out",
        ),
        (
            ASKED + 'connect = { targets = ["clamd"], reason = "r" }',
            ASKED + 'connect = { targets = ["clamd", "home"], reason = "r" }',
            "may connect to home: acts as forkd towards it",
        ),
        (
            ASKED + "threads = { count = 2, reason = 'r' }",
            ASKED + "threads = { count = 3, reason = 'r' }",
            "may run 3 more threads for each sandbox, counted together: one session can take those of all",
        ),
        ("", READS + 'body = "r"', "reads the body of messages"),
        (
            SETTING + READS + 'body = { reason = "r", when = { zones = ["a"] } }',
            SETTING + READS + 'body = "r"',
            "reads the body of messages",
        ),
        (
            "",
            '[settings.list]\ntype = "path"\ndefault = ""\n[wants.files]\nlist = "r"\n',
            "may read what the setting list names",
        ),
    ],
)
def test_what_is_newly_wanted_is_named_and_needs_consent(tmp_path: Path, old: str, new: str, text: str):
    """plugins.md: newly wanted capabilities; the other way round nothing is."""
    found = compared(tmp_path, old, new)
    assert ([want.text for want in found.wants], found.more) == ([text], True)
    assert found.wants[0].reason == "r"
    back = compared(tmp_path, new, old)
    assert (back.wants, back.more) == ((), False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            POWERS + 'edit_headers = { names = ["X-*"], reason = "r" }',
            POWERS + 'edit_headers = { names = ["x-spam"], reason = "other words" }',
        ),
        (
            ASKED + 'dns = { suffixes = ["any"], reason = "r" }',
            ASKED + 'dns = { suffixes = ["a.example", "b.example"], reason = "r" }',
        ),
        (READS + 'headers = "r"', SETTING + READS + 'headers = { reason = "r", when = { zones = ["a"] } }'),
        (POWERS + 'discard = "r"', POWERS + 'discard = "another reason"'),
    ],
)
def test_less_is_not_more(tmp_path: Path, old: str, new: str):
    """What was granted covers it."""
    assert not compared(tmp_path, old, new).more


def test_another_condition_is_another_want(tmp_path: Path):
    """It was never asked for with these settings."""
    form = SETTING + READS + 'body = { reason = "r", when = { zones = ["%s"] } }'
    found = compared(tmp_path, form % "a", form % "b")
    assert [want.text for want in found.wants] == ["reads the body of messages (with zones = ['b'])"]


def test_hooks_and_libraries_are_wants_too(tmp_path: Path):
    """More moments at which it is asked, more code that runs."""
    found = compared(tmp_path, "", 'requires = ["thing>=2"]\nhooks = ["rcpt", "message", "connect"]\n')
    assert (found.hooks, found.requires, found.more) == (("connect",), ("thing>=2",), True)
    back = compared(tmp_path, 'requires = ["thing>=2"]\nhooks = ["rcpt", "message", "connect"]\n', "")
    assert back.dropped == ("the hook connect", "requires thing>=2")


def test_settings_and_limits_are_told_and_need_no_consent(tmp_path: Path):
    """The admin sees what he could, or must, write."""
    old = '[settings.a]\ntype = "integer"\ndefault = 1\n[settings.b]\ntype = "string"\ndefault = ""\n'
    new = '[settings.a]\ntype = "integer"\ndefault = 2\nmax = 9\n[settings.c]\ntype = "strings"\n'
    found = compared(tmp_path, old, 'python = ">=3.12"\n' + new + '[limits]\ntimeout = "2s"\n')
    assert found.settings == (
        "setting a: default is 2, was 1; max is 9.0, was None",
        "new setting c: strings (must be given)",
        "no setting b any more",
    )
    assert found.limits == ("suggests timeout = 2s, was 5s",)
    assert found.python == "Python >=3.12, was any"
    assert not found.more
