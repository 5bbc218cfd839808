"""docs/man: what is committed is what would be written now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.manual.__main__ import FOLDER
from tools.manual.pages import PAGES, text


@pytest.mark.parametrize("file", PAGES)
def test_a_page_tells_what_the_program_does(file: str):
    """A key, option, event or hook that changed, changes its page: `make manual`, and commit it."""
    assert (FOLDER / file).read_text() == text(file), "run `make manual`"


def test_nothing_else_lies_there():
    """A page that is written no more would go on being installed."""
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)
    assert Path("docs/man") == FOLDER.relative_to(FOLDER.parent.parent)
