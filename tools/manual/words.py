"""How are our docstrings laid out, and what becomes of that on a page?

A docstring here has paragraphs, lists of points (`- `), lists of terms (a word, two blanks or more, what it
is, with the lines that go on below the latter) and examples, which stand four columns or more further in.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Final, Literal

from tools.manual.roff import Page, bold, marked

Kind = Literal["paragraph", "point", "term", "example"]

EXAMPLE_COLUMNS: Final = 4
_TERM: Final = re.compile(r"(\S(?:[^ ]| (?! ))*) {2,}(\S.*)")
_LONGEST_TERM: Final = 44


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A piece of a docstring; `term` is empty but for a term."""

    kind: Kind
    text: str
    term: str = ""


def blocks(docstring: str) -> Iterator[Block]:
    """The pieces, in order; text of paragraphs, points and terms on one line."""
    rows = inspect.cleandoc(docstring).split("\n")
    at = 0
    while at < len(rows):
        row = rows[at]
        if not row.strip():
            at += 1
        elif _indent(row) >= EXAMPLE_COLUMNS:
            end = _while(rows, at, lambda row: not row.strip() or _indent(row) >= EXAMPLE_COLUMNS)
            yield Block("example", textwrap.dedent("\n".join(rows[at:end])))
            at = end
        elif row.startswith("- "):
            end = _while(rows, at + 1, lambda row: row.startswith("  "))
            yield Block("point", _joined([row[2:], *rows[at + 1 : end]]))
            at = end
        elif (term := _term(row)) is not None:
            end = _while(rows, at + 1, lambda row: _indent(row) > 0)
            yield Block("term", _joined([term[2], *rows[at + 1 : end]]), term[1])
            at = end
        else:
            end = _while(rows, at + 1, lambda row: bool(row.strip()) and _goes_on(row))
            yield Block("paragraph", _joined(rows[at:end]))
            at = end


def write(page: Page, docstring: str, *, below_term: bool = False) -> None:
    """A docstring on a page; below_term: what a term of the page is about."""
    inside = False
    for block in blocks(docstring):
        if below_term and not inside and block.kind != "paragraph":
            page.inner()
            inside = True
        if block.kind == "paragraph" and below_term and not inside:
            page.further(marked(block.text))
        elif block.kind == "paragraph":
            page.paragraph(marked(block.text))
        elif block.kind == "point":
            page.bullet(marked(block.text))
        elif block.kind == "term":
            page.term(bold(block.term.strip("`")))
            page.further(marked(block.text))
        else:
            page.verbatim(block.text)
    if inside:
        page.outer()


def below_question(docstring: str | None) -> str:
    """A module's docstring without its first line, which asks what the module answers."""
    return "\n" + (docstring or "").partition("\n\n")[2]


def _while(rows: list[str], at: int, goes_on: object) -> int:
    assert callable(goes_on)
    while at < len(rows) and goes_on(rows[at]):
        at += 1
    while rows[at - 1].strip() == "":
        at -= 1
    return at


def _goes_on(row: str) -> bool:
    return not row.startswith("- ") and _indent(row) < EXAMPLE_COLUMNS and _term(row) is None


def _term(row: str) -> re.Match[str] | None:
    found = _TERM.fullmatch(row)
    return found if found and len(found[1]) <= _LONGEST_TERM and found[1][-1] not in ".:;" else None


def _indent(row: str) -> int:
    return len(row) - len(row.lstrip(" ")) if row.strip() else 0


def _joined(rows: list[str]) -> str:
    return " ".join(row.strip() for row in rows)
