"""Pages of ours: what they link to is there, file and heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.manual.commands import every_command

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "plugins").glob("*.md"))]
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    """Relative ones, and those within the page."""
    lost = []
    for path, anchor in _LINK.findall(page.read_text()):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(f"{path}#{anchor}")
    assert not lost


def test_every_command_in_a_console_block_is_one():
    """`forkd NAME` as it is shown exists; so do its options."""
    known = {shown.path: shown.command for shown in every_command()}
    wrong = []
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in re.findall(r"^[#$] forkd (.*)$", block, re.MULTILINE):
                words = line.partition("  ")[0].split()
                path: tuple[str, ...] = ()
                while words and (*path, words[0]) in known:
                    path = (*path, words.pop(0))
                options = {name for option in known[path].params for name in option.opts} | {"--help", "-h"}
                if not path or any(word.startswith("--") and word not in options for word in words):
                    wrong.append(f"{page.name}: forkd {line}")
    assert not wrong
