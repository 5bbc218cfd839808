"""Which addresses does an alias stand for (config/aliases.py)?"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkd.config.aliases import MOST_ADDRESSES, MOST_DEPTH, Aliases, Member, TooMany, read
from forkd.config.problems import ConfigError, Problems
from forkd.smtp.address import split_address

PLUS = {"a.org": "+", "b.org": "-"}
SAMPLE = """
# people
info@a.org:    alice@a.org, bob@a.org
               # a comment between
\tcarol@b.org
all@a.org:     info@a.org, Bob@A.org, dora@a.org
dora@a.org:    dora@a.org, archive@a.org
list@a.org:    x@c.org, sub@a.org
sub@a.org:     y@c.org
owner-list@a.org: boss@a.org
@old.org:      @a.org
@gone.org:     postmaster@a.org
kept@gone.org: kept@gone.org
"odd, one"@a.org: "o:d"@b.org
@bücher.example: @a.org
"""


def detail_of(domain: str) -> str:
    return PLUS.get(domain.lower(), "")


def parse(text: str, folder: Path, *more: str) -> Aliases:
    """The table of a file `aliases` of this text, and of `aliases1` and so on."""
    paths = [folder / f"aliases{number or ''}" for number in range(len(more) + 1)]
    for path, each in zip(paths, (text, *more), strict=True):
        path.write_text(each)
    found = Problems()
    table = read(paths, found, detail_of=detail_of)
    found.raise_if_any()
    return table


def expanded(table: Aliases, address: str) -> list[str]:
    return [member.address for member in table.expand(*split_address(address), detail_of).values()]


def said(error: ConfigError, folder: Path) -> str:
    return str(error).replace(f"{folder}/", "")


TABLE = [
    ("nobody@a.org", ["nobody@a.org"]),
    ("info@a.org", ["alice@a.org", "bob@a.org", "carol@b.org"]),
    ("INFO+x@A.org", ["alice@a.org", "bob@a.org", "carol@b.org"]),
    ("all@a.org", ["alice@a.org", "bob@a.org", "carol@b.org", "dora@a.org", "archive@a.org"]),
    ("dora@a.org", ["dora@a.org", "archive@a.org"]),
    ("info@old.org", ["alice@a.org", "bob@a.org", "carol@b.org"]),
    ("Who@old.org", ["Who@a.org"]),
    ("any@gone.org", ["postmaster@a.org"]),
    ("kept@gone.org", ["kept@gone.org"]),
    ('"odd, one"@a.org', ['"o:d"@b.org']),
    ("x@xn--bcher-kva.example", ["x@a.org"]),
]


@pytest.mark.parametrize(("address", "becomes"), TABLE, ids=[row[0] for row in TABLE])
def test_what_an_alias_stands_for(tmp_path: Path, address: str, becomes: list[str]) -> None:
    """Nested, each address once, whole domains, details, itself."""
    assert expanded(parse(SAMPLE, tmp_path), address) == becomes


def test_a_list_with_an_owner_has_its_reports_sent_there(tmp_path: Path) -> None:
    """RFC 5321 3.9.2; a list within goes with it, other aliases keep the sender (3.9.1)."""
    table = parse(SAMPLE, tmp_path)
    owner = "owner-list@a.org"
    members = table.expand("list", "a.org", detail_of)
    assert [*members.values()] == [Member("x@c.org", owner), Member("y@c.org", owner)]
    assert {member.owner for member in table.expand("info", "a.org", detail_of).values()} == {""}


def test_each_domain_has_its_own_details(tmp_path: Path) -> None:
    """As [domain] says; what stands in the file with its detail goes before."""
    table = parse("i@a.org: j-x@b.org\nj@b.org: end@c.org\ni+y@a.org: why@c.org", tmp_path)
    assert expanded(table, "i+x@a.org") == ["end@c.org"]
    assert expanded(table, "i+y@a.org") == ["why@c.org"]
    assert expanded(table, "j+x@b.org") == ["j+x@b.org"]


def test_addresses_are_written_as_commands_have_them(tmp_path: Path) -> None:
    """RFC 5321 4.1.2: quoted where they must be, and only there; so two ways to write one are one."""
    table = parse('a@a.org: b.@c.org, "bob"@c.org, bob@c.org, x..y@c.org, "b."@c.org', tmp_path)
    assert expanded(table, "a@a.org") == ['"b."@c.org', "bob@c.org", '"x..y"@c.org']


def test_a_mark_of_the_editor_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    """Some begin UTF-8 with a byte order mark."""
    assert expanded(parse("\ufeffa@a.org: b@a.org", tmp_path), "a@a.org") == ["b@a.org"]


def test_several_files_are_one_table(tmp_path: Path) -> None:
    """An alias of one may stand in another; a name stands in one of them."""
    table = parse("a@a.org: b@a.org", tmp_path, "b@a.org: c@a.org")
    assert expanded(table, "a@a.org") == ["c@a.org"]
    with pytest.raises(ConfigError) as caught:
        parse("a@a.org: b@a.org", tmp_path, "\na@a.org: c@a.org")
    assert said(caught.value, tmp_path) == "aliases1:2: a@a.org stands in line 1 of aliases already"


def test_a_recipient_becomes_no_more_than_so_many(tmp_path: Path) -> None:
    """A client must not make a worker busy for long."""
    members = ", ".join(f"u{number}@c.org" for number in range(MOST_ADDRESSES))
    table = parse(f"all@a.org: {members}\nmore@a.org: all@a.org, one@c.org", tmp_path)
    assert len(expanded(table, "all@a.org")) == MOST_ADDRESSES
    with pytest.raises(TooMany):
        expanded(table, "more@a.org")


WRONG = [
    ("a@b.org c@d.org", "aliases:1: this is ADDRESS: ADDRESS, ..."),
    ("\n\na@b.org:", "aliases:3: nothing stands behind a@b.org:"),
    ("a: b@c.org", "aliases:1: a is no address: it has no domain"),
    ("a@b.org: c d@e.org",
     'aliases:1: c d@e.org is no address: this is "user@example.org" or "@example.org"'),
    ("a@b.org: c@d.org\nA@B.org: e@f.org", "aliases:2: A@B.org stands in line 1 already"),
    ("a@b.org: |/bin/sh", "aliases:1: |/bin/sh is no address: it has no domain"),
    ("a@b.org: @c.org",
     "aliases:1: @domain stands for a whole domain, and only where a whole domain stands before"),
    ("a@b.org: b@b.org\nb@b.org: x@y.org,\n c@b.org\nc@b.org: a@b.org",
     "aliases:1: aliases stand for each other in a circle: a@b.org -> b@b.org -> c@b.org -> a@b.org"),
    ("@a.org: @b.org\n@b.org: @a.org",
     "aliases:1: aliases stand for each other in a circle: @a.org -> @b.org -> @a.org"),
    ('a@b.org: "c@d.org', 'aliases:1: a " stands alone'),
    ('a@b.org: "c\x01"@d.org',
     'aliases:1: "c\x01"@d.org is no address: this is "user@example.org" or "@example.org"'),
    ("a@a.org: b+1@a.org\nb@a.org: a+2@a.org",
     "aliases:1: aliases stand for each other in a circle: a@a.org -> b@a.org -> a@a.org"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, says: str) -> None:
    """An admin finds it without the manual."""
    with pytest.raises(ConfigError) as caught:
        parse(text, tmp_path)
    assert said(caught.value, tmp_path) == says


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """In file order; a file that is none too."""
    with pytest.raises(ConfigError) as caught:
        parse("x\na@b.org: c@d.org\ny", tmp_path)
    assert [problem.line for problem in caught.value.problems] == [1, 3]
    assert caught.value.problems[1].source_line == "y"
    (tmp_path / "latin").write_bytes(b"a@b.org: c@d.org\n\xff")
    found = Problems()
    read([tmp_path / "latin", tmp_path / "none"], found, detail_of=detail_of)
    with pytest.raises(ConfigError) as caught:
        found.raise_if_any()
    assert said(caught.value, tmp_path).splitlines() == [
        "latin:2: this is not UTF-8 text (save the file as UTF-8)",
        "none: the aliases cannot be read: no such file or directory",
    ]


@pytest.mark.parametrize("deep", [MOST_DEPTH, MOST_DEPTH + 1])
def test_aliases_of_aliases_have_a_bound(tmp_path: Path, deep: int) -> None:
    """Ten; what is deeper is said when the file is read."""
    text = "".join(f"a{number}@b.org: a{number + 1}@b.org\n" for number in range(deep))
    if deep <= MOST_DEPTH:
        assert expanded(parse(text, tmp_path), "a0@b.org") == [f"a{deep}@b.org"]
    else:
        with pytest.raises(ConfigError, match="aliases:1: aliases of aliases go 10 deep"):
            parse(text, tmp_path)


def test_a_file_of_many_aliases_that_share_is_read_at_once(tmp_path: Path) -> None:
    """Twenty thousand lines, and a lattice whose ways cannot all be walked."""
    text = "".join(f"u{number}@b.org: u{number}@c.org\n" for number in range(20_000))
    text += "".join(
        f"l{level}-{one}@b.org: " + ", ".join(f"l{level + 1}-{two}@b.org" for two in range(20)) + "\n"
        for level in range(8)
        for one in range(20)
    )
    table = parse(text, tmp_path)
    assert len(table) == 20_160
    assert expanded(table, "l0-0@b.org") == [f"l8-{number}@b.org" for number in range(20)]


NAMES = st.sampled_from(["a@x.org", "b@x.org", "c@y.org", "d@y.org"])
KEYS = st.one_of(NAMES, st.sampled_from(["@x.org", "@y.org"]))


@settings(deadline=None)
@given(st.dictionaries(KEYS, st.lists(NAMES, min_size=1, max_size=3), max_size=6), NAMES)
def test_any_file_loses_nobody_and_ends(
    tmp_path_factory: pytest.TempPathFactory, lines: dict[str, list[str]], address: str
) -> None:
    """Each recipient becomes one address at least, none twice; or the file is refused."""
    text = "\n".join(f"{name}: {', '.join(targets)}" for name, targets in lines.items())
    try:
        table = parse(text, tmp_path_factory.getbasetemp())
    except ConfigError as error:
        assert all(problem.line for problem in error.problems)
        return
    found = expanded(table, address)
    assert found
    assert len(set(found)) == len(found)
