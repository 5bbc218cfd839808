"""[admin]: how its entries are written (config/admin_checks.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.config_files import loaded, problem


def test_users_groups_and_numbers_are_taken(tmp_path: Path):
    """Each role has a list of its own."""
    text = '[admin]\nview = ["root", "%adm"]\noperate = ["1000"]\nadmin = ["%4"]\n'
    table = loaded(tmp_path, text).config.admin
    assert (table.view, table.operate, table.admin) == (("root", "%adm"), ("1000",), ("%4",))


@pytest.mark.parametrize("entry", ["", "%", "a b", "a:b", "%%adm", "a,b", "4294967295", "@adm/x"])
def test_what_can_be_nobody_is_a_problem(tmp_path: Path, entry: str):
    """With how it is written."""
    found = problem(tmp_path, f'[admin]\noperate = ["{entry}"]\n')
    assert found.line == 2
    assert "this is a user, %group, or the number of one" in found.rule


@pytest.mark.parametrize(("entry", "kind"), [("no-such-one", "user"), ("%no-such-one", "group")])
def test_whom_this_machine_does_not_know_is_said(tmp_path: Path, entry: str, kind: str):
    """A note: the file may be for another machine, but a typing error must not stay unseen."""
    notes = loaded(tmp_path, f'[admin]\nview = ["{entry}"]\n').notes
    assert f"admin.view: there is no {kind} 'no-such-one' on this machine" in notes
