"""What must the rest of the configuration say for an alias to lead somewhere (config/alias_checks.py)?"""

from __future__ import annotations

from pathlib import Path

import pytest

from forkd.config.aliases import MOST_ADDRESSES
from tests.support.config_files import loaded, problems

OURS = """
[aliases]
files = ["aliases"]
[domain."a.org"]
mailboxes = ["alice", "bob"]
[domain."old.org"]
mailboxes = []
"""
RELAY = """
[queue]
relay_transport = "out"
[transport.out]
kind = "discard"
"""
PROXY = """
[listener.x]
accept = "proxy"
[transport.one]
kind = "discard"
[transport.two]
kind = "discard"
"""
UNLISTED = '(no alias has this name, and domain."a.org".mailboxes does not list it)'
NO_WAY = '(set relay_transport in [queue], or transport in [route."c.org"])'
TWO_WAYS = OURS.replace('["alice", "bob"]', '"*"\ntransport = "one"').replace("[]", '"*"\ntransport = "two"')
MANY = ", ".join(f"u{number}@c.org" for number in range(MOST_ADDRESSES + 1))

UNFIT = [
    ("no domain of ours", OURS, "x@ab.org: alice@a.org",
     ("aliases:1: x@ab.org is an alias, but ab.org is no [domain] of ours: no mail for it is taken "
      '(did you mean "a.org"?)')),
    ("no mailbox", OURS, "\nx@a.org: carol@a.org",
     'aliases:2: carol@a.org does not exist ' + UNLISTED),
    ("itself without a mailbox", OURS, "x@a.org: x@a.org",
     'aliases:1: x@a.org does not exist ' + UNLISTED),
    ("no way out", OURS, "x@a.org: alice@a.org, y@c.org",
     "aliases:1: there is no way for mail to y@c.org: its domain is not ours " + NO_WAY),
    ("no way out for a domain", OURS, "@old.org: @c.org",
     "aliases:1: there is no way for mail to @c.org: its domain is not ours " + NO_WAY),
    ("too many", OURS + RELAY, f"x@a.org: {MANY}",
     "aliases:1: x@a.org stands for more than 10,000 addresses (a list manager is made for so many)"),
    ("several ways while a client waits",
     TWO_WAYS + PROXY,
     "x@a.org: alice@a.org, bob@old.org",
     ("aliases:1: x@a.org stands for addresses of several transports (one, two), and listener.x has "
      'accept = "proxy": its clients wait for one answer')),
    ("several senders while a client waits", TWO_WAYS + PROXY,
     "x@a.org: list@a.org, bob@a.org\nlist@a.org: alice@a.org\nowner-list@a.org: bob@a.org",
     ("aliases:1: x@a.org stands for lists of several owners, or a list and others, and listener.x has "
      'accept = "proxy": its clients wait for one answer')),
    ("round over a whole domain", OURS, "@old.org: @a.org\nx@a.org: x@old.org",
     ("aliases:2: x@a.org stands for nobody: what a line for a whole domain makes of its addresses is "
      "x@a.org again, or does not exist")),
    ("nobody behind a whole domain", OURS, "@old.org: @a.org\nx@a.org: carol@old.org",
     ("aliases:2: x@a.org stands for nobody: what a line for a whole domain makes of its addresses is "
      "x@a.org again, or does not exist")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "aliases", "says"), [row[1:] for row in UNFIT], ids=[row[0] for row in UNFIT]
)
def test_an_alias_that_leads_nowhere_is_refused(tmp_path: Path, config: str, aliases: str, says: str) -> None:
    """At load, with its line: never mail that is accepted and comes back."""
    found = problems(tmp_path, config, aliases=aliases)
    assert [str(one).replace(f"{tmp_path}/", "") for one in found] == [says]


FIT = [
    ("another alias", OURS, "x@a.org: y@a.org\ny@a.org: alice@a.org"),
    ("itself", OURS, "alice@a.org: alice@a.org, bob@a.org"),
    ("a detail", OURS, "x@a.org: alice+y@a.org"),
    ("postmaster", OURS, "x@a.org: postmaster@old.org"),
    ("a whole domain", OURS, "@old.org: @a.org"),
    ("a relay", OURS + RELAY, "x@a.org: y@c.org\n@old.org: @c.org"),
    ("a route", OURS + '[route."*.c.org"]\n', "x@a.org: y@b.c.org"),
    ("most", OURS + RELAY, f"x@a.org: {MANY.partition(', ')[2]}"),
    ("the same twice", OURS + RELAY, f"x@a.org: {MANY.partition(', ')[2]}\ny@a.org: x@a.org, u1@c.org"),
]


@pytest.mark.parametrize(("config", "aliases"), [row[1:] for row in FIT], ids=[row[0] for row in FIT])
def test_an_alias_that_leads_somewhere_is_taken(tmp_path: Path, config: str, aliases: str) -> None:
    """Each of its members has a way."""
    assert not problems(tmp_path, config, aliases=aliases)


def test_a_mailbox_behind_an_alias_of_its_name_is_said(tmp_path: Path) -> None:
    """It gets no mail any more: legal, and often not meant."""
    found = loaded(
        tmp_path, OURS, aliases="bob@a.org: alice@a.org\nalice@a.org: alice@a.org, postmaster@a.org"
    )
    (note,) = [note for note in found.notes if "mailboxes" in note]
    assert note == (
        "mailboxes whose mail goes to their alias alone: bob@a.org "
        "(an alias that names itself keeps its mailbox)"
    )


@pytest.mark.parametrize(("name", "noted"), [("postmaster", False), ("x", False), ("nobody", True)])
def test_copies_of_reports_may_go_to_an_alias(tmp_path: Path, name: str, noted: bool) -> None:
    """One that there is."""
    text = f'{OURS}[reports]\npostmaster = "{name}@a.org"\n'
    notes = loaded(tmp_path, text, aliases="x@a.org: alice@a.org").notes
    assert any("there is no such mailbox or alias" in note for note in notes) is noted


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    """Else all its mail would be refused."""
    (found,) = problems(tmp_path, OURS)
    assert (
        str(found).replace(f"{tmp_path}/", "")
        == "aliases: the aliases cannot be read: no such file or directory"
    )
