"""A table of the configuration as its page shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest

from forkd.config.table import Between, Table, Text
from forkd.config.units import Bytes, Seconds
from tools.manual.roff import Page
from tools.manual.schema import sections, takes, write_sections


class Inner(Table, frozen=True):
    """[inner]: what is inside."""

    wait: Annotated[Seconds, Between(1, 3600)] = Seconds(300)
    """How long."""
    size: Annotated[Bytes, Between(0)] = Bytes(1 << 20)


class One(Table, frozen=True, tag_field="kind", tag="one"):
    """[thing.NAME] kind = "one"."""

    must: Text = msgspec.field()


class Root(Table, frozen=True):
    """The whole."""

    inner: Inner = Inner()
    thing: dict[str, One] = msgspec.field(default_factory=dict)
    """Things, by name."""
    mode: Literal["a", "b"] = "a"
    """Why `a`."""


def rendered() -> str:
    page = Page("x", 5, date="2026-11-23", version="v", volume="w")
    page.heading("Tables")
    write_sections(page, sections(Root))
    return page.text()


def test_tables_are_found_wherever_the_schema_has_them():
    """A new table of forkd.toml needs nothing but its struct."""
    assert [(one.heading, one.keys) for one in sections(Root)] == [
        ("", ("mode",)),
        ("[inner]", ("wait", "size")),
        ("[thing.NAME]", ("must",)),
    ]


@pytest.mark.parametrize(
    "said",
    [
        "\\fBmode\\fR = \\fB\\(dqa\\(dq\\fR | \\fB\\(dqb\\(dq\\fR\nDefault: \\fB\\(dqa\\(dq\\fR.\n",
        ".IP\nWhy \\fBa\\fR.",
        ".TP\n\\fBwait\\fR = a duration\n1s to 1h; default: \\fB\\(dq5m\\(dq\\fR.\n.IP\nHow long.",
        ".TP\n\\fBsize\\fR = a size\n0B or more; default: \\fB\\(dq1MiB\\(dq\\fR.\n",
        ".TP\n\\fBmust\\fR = a text\nNot empty; must be given.\n",
        ".SS [inner]\nWhat is inside.",
        ".SS [thing.NAME]\nThings, by name.",
    ],
)
def test_a_key_has_what_it_takes_its_range_its_default_and_its_reason(said: str):
    """All from the struct."""
    assert said in rendered()


def test_a_type_that_is_not_known_is_an_error():
    """Better no page than one that guesses."""
    with pytest.raises(TypeError, match="no words for the type"):
        takes(complex)
    assert takes(Path | None).what == "a path"
