"""forkd/sandbox/THREATS.md: no process is missing there, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from forkd.master.roles import ROLES, ZYGOTE

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "forkd" / "sandbox" / "THREATS.md"


def test_every_role_has_its_row():
    """What whoever takes it over can do, and what he cannot."""
    table = PAGE.read_text().partition("| taken over | can do | cannot |\n")[2].partition("\n\n")[0]
    rows = {re.match(r"\| (\w+)", line)[1] for line in table.splitlines()[1:]}
    assert rows == {"master", ZYGOTE.name, *(role.name for role in ROLES)}


def test_what_it_names_is_there():
    """Modules and pages in backticks."""
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|md|toml))`", PAGE.read_text())
    assert len(named) >= 4
    folders = (ROOT, ROOT / "forkd", PAGE.parent)
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []
