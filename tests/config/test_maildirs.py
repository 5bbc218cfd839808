"""Transports of kind "maildir": paths that lead where they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.schema import Maildir
from tests.support.config_files import loaded, problem

DOMAIN = '[domain."example.org"]\n'
LOCAL = '[transport.local]\nkind = "maildir"\n'


def test_what_may_be_said_is_taken(tmp_path: Path):
    """And the defaults are what they were: one Maildir for each user, made with the first mail."""
    text = LOCAL + 'path = "m/{domain}/{user}"\ncatch_all = "m/{domain}/x"\nsubfolder = "existing"\n' + DOMAIN
    table = loaded(tmp_path, text + "").config.transport["local"]
    assert table == Maildir(path="m/{domain}/{user}", catch_all="m/{domain}/x", subfolder="existing")
    assert Maildir() == Maildir(
        path="mail/{domain}/{user}", catch_all="", subfolder="never", unusual="encode", group=False
    )


@pytest.mark.parametrize(
    ("line", "key", "rule", "hint"),
    [
        ('path = "m/{domian}"', "path", "only {domain}, {user} and {detail}", "domain"),
        ('path = "m/{}"', "path", "only {domain}, {user} and {detail}", ""),
        ('path = "m/{user"', "path", "braces", ""),
        ('path = ""', "path", "empty", ""),
        ('path = "../m/{user}"', "path", "no .. in a path", ""),
        ('catch_all = "m/{usr}"', "catch_all", "only {domain}, {user} and {detail}", "user"),
        ('path = "m/{user}/.{detail}"\nsubfolder = "create"', "subfolder", "two folders", "leave one"),
        ('subfolder = "always"', "subfolder", "", ""),
    ],
    ids=["typo", "no name", "open brace", "empty", "dots", "catch-all", "two folders", "no such value"],
)
def test_what_cannot_work_is_refused(tmp_path: Path, line: str, key: str, rule: str, hint: str):
    """At start, not with the first mail."""
    found = problem(tmp_path, f"{LOCAL}{line}\n{DOMAIN}")
    assert found.key == key
    assert rule in found.rule
    assert hint in found.hint


def test_what_surprises_is_said(tmp_path: Path):
    """A catch-all behind a Maildir that is for all anyway; folders that senders may make."""
    found = loaded(
        tmp_path, f'{LOCAL}path = "m/{{domain}}"\ncatch_all = "m/x"\nsubfolder = "create"\n{DOMAIN}'
    )
    assert any("local.catch_all is used only until" in note for note in found.notes)
    assert any("whoever sends mail can make folders" in note for note in found.notes)
