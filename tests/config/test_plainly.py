"""What plugins may do, in words: forkd/config/plainly.py."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from forkd.config import plainly
from forkd.config.capabilities import CAPABILITIES
from forkd.config.plainly import May
from forkd.config.schema import Capabilities, Entry, Powers, WantedReads


def texts(found: list[May]) -> list[str]:
    return [one.text for one in found]


def test_every_want_has_its_sentence():
    """A power without words would be one that nobody sees."""
    for kind, names in (
        ("power", Powers.__struct_fields__),
        ("capability", (*CAPABILITIES, "processes", "exec")),
        ("reads", WantedReads.__struct_fields__),
    ):
        assert {name for of, name in plainly.SENTENCES if of == kind} == set(names)


def test_every_failure_policy_has_its_words():
    """And shadow, which has none of them."""
    (field,) = [one for one in msgspec.structs.fields(Entry) if one.name == "on_failure"]
    assert set(plainly.FAILURES) == set(get_args(field.type))
    assert plainly.failure("deny", "enforce").endswith("mail is refused for good")
    assert "never obeyed" in plainly.failure("deny", "shadow")


def test_powers_in_plain_words_the_gravest_first():
    """With the author's reason beside each."""
    granted = Powers(quarantine=True, edit_headers=("X-A", "X-B", "X-C"), auth=True, export=("SCORE",))
    found = plainly.powers(granted, {"quarantine": "suspicious mail"})
    assert found == [
        May("power", "auth", "is shown users' passwords, and may say that they are right"),
        May("power", "quarantine", "may hold mail in quarantine", "suspicious mail"),
        May("power", "edit_headers", "may add, change and delete the header fields X-A, X-B and X-C"),
        May("power", "export", "may tell later plugins the facts SCORE"),
    ]
    assert plainly.powers(Powers(), {}) == []


@pytest.mark.parametrize(
    ("domains", "text"),
    [
        (("example.org",), "may send copies of mail to recipients in example.org"),
        (("*",), "may send copies of mail to any recipient of ours"),
    ],
)
def test_recipients_in_plain_words(domains: tuple[str, ...], text: str):
    """What adding one means."""
    assert texts(plainly.powers(Powers(add_recipient=domains), {})) == [text]


def test_capabilities_say_what_they_give_away():
    """plugins.md: names can carry data out; a connection acts as forkd."""
    granted = Capabilities(
        dns=("zen.spamhaus.org",), state=True, connect={"clamd": "unix:/run/clamd.ctl"}, threads=4
    )
    assert texts(plainly.capabilities(granted, {})) == [
        "may look up names below zen.spamhaus.org: the name it asks can carry data out",
        "may connect to clamd at unix:/run/clamd.ctl: acts as forkd towards it",
        "may keep keys and values that outlive a session",
        "may run 4 more threads for each sandbox, counted together: one session can take those of all",
    ]
    assert texts(plainly.capabilities(Capabilities(dns=("any",)), {"dns": "r"})) == [
        "may look up any name: the names it asks can carry data out, to whoever runs their servers"
    ]


def test_reads_and_files():
    """What it sees of mail, and of this machine."""
    assert texts(plainly.reads(("envelope", "body"), {})) == [
        "reads sender and recipients",
        "reads the body of messages",
    ]
    assert texts(plainly.files((Path("/etc/list"),))) == ["may read /etc/list"]


def test_reading_and_a_way_out_are_said_together():
    """Either alone is harmless; both are how data leaves."""
    both = plainly.together(Capabilities(dns=("any",), connect={"clamd": "unix:/c"}), ("headers", "body"))
    ways = "the names it looks up and its connection to clamd"
    assert both == f"together: headers and body can leave this machine by {ways}"
    assert plainly.together(Capabilities(state=True), ("body",)) == ""
    assert plainly.together(Capabilities(dns=("a.example",)), ()).startswith(
        "together: what its hooks are told"
    )
