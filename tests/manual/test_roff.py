"""Text reaches the reader as it stands in our sources, whatever groff or mandoc makes of signs."""

from __future__ import annotations

import subprocess
import unicodedata
from pathlib import Path

import pytest

from tools.manual.roff import WIDTH, Page, bold, marked

NASTY = (
    ".TH at the start of a line is text",
    "'so is an apostrophe'",
    r"C:\nothing \fBbold\fR \(bu \\ \"",
    "--no-wait -h - and \N{EN DASH} a dash",
    "^hat ~tilde `unpaired and $dollar % # @ {brace} |bar|",
    '"quoted" and ""',
    "\N{HORIZONTAL ELLIPSIS} \N{RIGHTWARDS ARROW} 1.5 \N{MULTIPLICATION SIGN} \xfcber",
    "words that are so many that the line must be broken, and then . begins one of them . . . . . . .",
    "and a word" + "_as_long_as_it_gets" * 2 + " ends",
)


def page() -> Page:
    return Page("nasty", 7, date="2026-11-23", version='forkd "0"', volume="It's")


def shown(program: list[str], source: str, folder: Path) -> tuple[str, str]:
    """What a reader sees, blanks and line ends as one; and what the program had to say."""
    file = folder / "nasty.7"
    file.write_text(source)
    run = subprocess.run([*program, str(file)], capture_output=True, text=True, check=True, encoding="utf-8")
    plain = subprocess.run(["col", "-bx"], input=run.stdout, capture_output=True, text=True, check=True)
    return " ".join(plain.stdout.split()), run.stderr


PROGRAMS = pytest.mark.parametrize(
    "program",
    [["mandoc", "-Tutf8"], ["groff", "-man", "-Tutf8", "-ww", "-rHY=0", "-P-c"]],
    ids=["mandoc", "groff"],
)


@PROGRAMS
def test_nothing_in_a_text_is_taken_for_a_request(program: list[str], tmp_path: Path):
    """In a paragraph, a term, a point, an example, and as code."""
    made = page()
    made.heading("Nasty")
    for text in NASTY:
        made.paragraph(marked(text))
        made.term(bold(text))
        made.further(marked(text))
        made.bullet(marked(text))
        made.verbatim(text)
    seen, said = shown(program, made.text(), tmp_path)
    assert not said
    for text in NASTY:
        assert seen.count(" ".join(text.split())) == 5, text


def test_code_is_bold_and_its_backticks_are_gone():
    """What is to be typed stands out."""
    assert marked("see `forkd run` there") == r"see \fBforkd run\fR there"


def test_no_line_of_a_paragraph_is_longer_than_a_terminal():
    """Diffs of committed pages are read."""
    made = page()
    made.paragraph(marked(NASTY[7]))
    assert max(len(row) for row in made.text().split("\n")) <= WIDTH


def test_a_page_is_ascii():
    """Older formatters take nothing else."""
    made = page()
    made.paragraph(marked(" ".join(NASTY)))
    assert made.text().isascii()
    assert unicodedata.is_normalized("NFC", " ".join(NASTY))
