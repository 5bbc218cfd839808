"""Who is a recipient where aliases stand in front of the table (config/expansion.py)?"""

from __future__ import annotations

import pytest

from forkd.config.aliases import MOST_ADDRESSES
from forkd.config.expansion import CACHE, CACHED_ADDRESSES, AliasedRecipients, Expanded, Unexpandable
from forkd.config.load import load
from forkd.config.recipients import Accepted, NotLocal, Recipients, Unknown
from forkd.smtp.address import split_address

CONFIG = """
[aliases]
files = ["aliases"]
[domain."first.org"]
mailboxes = ["alice", "bob", "c++"]
[domain."old.org"]
mailboxes = ["kept"]
transport = "other"
[domain."both.org"]
[domain."dash.org"]
detail = "-"
[transport.other]
kind = "discard"
[transport.out]
kind = "discard"
[route."*.c.org"]
transport = "out"
"""
ALIASES = """
info@first.org:       alice@first.org, y@b.c.org, kept@old.org
postmaster@first.org: alice@first.org
@old.org:             @first.org
kept@old.org:         kept@old.org
@both.org:            @first.org, @old.org
list@dash.org:        info-x@dash.org
info@dash.org:        Alice@First.org
owner-list@dash.org:  alice@first.org
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> AliasedRecipients:
    folder = tmp_path_factory.mktemp("table")
    (folder / "forkd.toml").write_text(CONFIG)
    (folder / "aliases").write_text(ALIASES)
    found = load(folder / "forkd.toml")
    return AliasedRecipients(Recipients.from_config(found.config), found.aliases)


BECOMES = [
    ("info@first.org", "alice@first.org y@b.c.org kept@old.org", "local other out"),
    ("INFO+news@FIRST.org", "alice@first.org y@b.c.org kept@old.org", "local other out"),
    ("bob@old.org", "bob@first.org", "local"),
    ("Bob+x@old.org", "Bob+x@first.org", "local"),
    ("info@old.org", "alice@first.org y@b.c.org kept@old.org", "local other out"),
    ("kept@old.org", "kept@old.org", "other"),
    ("bob@both.org", "bob@first.org", "local"),
    ("kept@both.org", "kept@old.org", "other"),
    ("list@dash.org", "Alice@First.org", "local"),
    ("postmaster@", "alice@first.org", "local"),
    ("PostMaster@", "alice@first.org", "local"),
    ("postmaster@old.org", "alice@first.org", "local"),
]


@pytest.mark.parametrize(("address", "members", "transports"), BECOMES, ids=[row[0] for row in BECOMES])
@pytest.mark.parametrize("may_relay", [False, True], ids=["anybody", "relay"])
def test_an_alias_is_a_recipient(
    table: AliasedRecipients, address: str, members: str, transports: str, may_relay: bool
) -> None:
    """Whoever the client is, whatever mailboxes there are; its members that exist stand in its place."""
    for _ in range(2):  # the second time it is remembered
        found = table.resolve(*split_address(address), may_relay=may_relay)
        assert isinstance(found, Expanded)
        assert [member.address for member in found.members.values()] == members.split()
        assert found.transports == set(transports.split())


OTHERS = [
    ("alice@first.org", Accepted("local", "alice")),
    ("nobody@first.org", Unknown()),
    ("nobody@old.org", Unknown()),
    ("nobody@both.org", Unknown()),
    ("y@b.c.org", NotLocal()),
    ("info@else.org", NotLocal()),
    ("alice@", Unknown()),
]


@pytest.mark.parametrize(("address", "expected"), OTHERS, ids=[row[0] for row in OTHERS])
def test_what_is_no_alias_is_as_it_was(table: AliasedRecipients, address: str, expected: object) -> None:
    """An address in a domain that stands for another exists where it exists there: no mail comes back."""
    local, _, domain = address.partition("@")
    assert table.resolve(local, domain, may_relay=False) == expected


def test_where_whole_domains_make_it_too_long_nothing_is_dropped(tmp_path) -> None:
    """Neither is too long by itself, so it is only seen here: refused for now, and the log has it."""
    halves = [
        ", ".join(f"u{each}-{number}@c.org" for number in range(MOST_ADDRESSES // 2 + 1)) for each in range(2)
    ]
    (tmp_path / "forkd.toml").write_text(
        '[aliases]\nfiles = ["aliases"]\n[domain."a.org"]\n[domain."b.org"]\n[domain."x.org"]\n[route."*"]\n'
    )
    (tmp_path / "aliases").write_text(
        f"all@a.org: {halves[0]}\nall@b.org: {halves[1]}\n@x.org: @a.org, @b.org"
    )
    found = load(tmp_path / "forkd.toml")
    table = AliasedRecipients(Recipients.from_config(found.config), found.aliases)
    assert table.resolve("all", "x.org", may_relay=False) == Unexpandable()
    assert isinstance(table.resolve("all", "a.org", may_relay=False), Expanded)


def many(tmp_path, aliases: str) -> AliasedRecipients:
    """A list of nearly MOST_ADDRESSES, and those aliases."""
    members = ", ".join(f"u{number}@c.org" for number in range(MOST_ADDRESSES - 1))
    (tmp_path / "forkd.toml").write_text(
        '[aliases]\nfiles = ["aliases"]\n[domain."a.org"]\n[domain."b.org"]\n[domain."x.org"]\n[route."*"]\n'
    )
    (tmp_path / "aliases").write_text(f"all@a.org: {members}\n{aliases}")
    found = load(tmp_path / "forkd.toml")
    return AliasedRecipients(Recipients.from_config(found.config), found.aliases)


def test_made_up_details_do_not_expand_a_list_again(tmp_path) -> None:
    """A client may ask for as many as it likes, of a domain too that stands for another."""
    table = many(tmp_path, "@x.org: @b.org\n@b.org: @a.org\n")
    first = table.resolve("all", "a.org", may_relay=False)
    assert isinstance(first, Expanded)
    for address in ("all@x.org", "All+1@x.org", "all+2@b.org", "ALL+3@a.org"):
        assert table.resolve(*split_address(address), may_relay=False) is first


def test_what_is_remembered_of_long_lists_is_bounded(tmp_path) -> None:
    """By their addresses: where each name is another list, as with a domain that stands for two."""
    table = many(tmp_path, "@x.org: @a.org, @b.org\n")
    found = [table.resolve(f"all+{number}", "x.org", may_relay=False) for number in range(5)]
    assert all(isinstance(one, Expanded) and len(one.members) == MOST_ADDRESSES for one in found)
    kept = [
        one
        for number, one in enumerate(found)
        if table.resolve(f"all+{number}", "x.org", may_relay=False) is one
    ]
    assert len(kept) <= CACHED_ADDRESSES // MOST_ADDRESSES < CACHE
