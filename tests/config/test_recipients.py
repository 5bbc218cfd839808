"""Which recipients exist: forkd/config/recipients.py."""

from __future__ import annotations

import pytest

from forkd.config.recipients import Accepted, NotLocal, Recipients, Unknown
from forkd.config.schema import Config, Domain, Queue, Route

TABLE = Recipients.from_config(
    Config(
        domain={
            "list.example": Domain(mailboxes=("Alice", "c++"), transport="lists"),
            "any.example": Domain(),
            "plain.example": Domain(detail=""),
            "*.sub.example": Domain(transport="below"),
            "*.deep.sub.example": Domain(mailboxes=("alice",)),
            "own.sub.example": Domain(transport="own"),
            "xn--bcher-kva.example": Domain(mailboxes=("Jürgen", "alice")),
        },
        queue=Queue(relay_transport="out"),
    )
)


@pytest.mark.parametrize(
    ("local", "domain", "expected"),
    [
        ("alice", "list.example", Accepted("lists", "alice")),
        ("ALICE", "List.Example", Accepted("lists", "alice")),
        ("alice+Tag", "list.example", Accepted("lists", "alice", "Tag")),
        ("alice+a+b", "list.example", Accepted("lists", "alice", "a+b")),
        ("alice+", "list.example", Accepted("lists", "alice")),
        ("c++", "list.example", Accepted("lists", "c++")),
        ("bob", "list.example", Unknown()),
        ("+alice", "list.example", Unknown()),
        ("Anybody", "any.example", Accepted("local", "anybody")),
        ("a+b", "any.example", Accepted("local", "a", "b")),
        ("+b", "any.example", Accepted("local", "+b")),
        ("a+b", "plain.example", Accepted("local", "a+b")),
        ("alice", "xn--bcher-kva.example", Accepted("local", "alice")),
        ("alice", "bücher.example", Accepted("local", "alice")),
        ("alice", "BÜCHER。Example", Accepted("local", "alice")),
        ("JÜRGEN+Tag", "bücher.example", Accepted("local", "jürgen", "Tag")),
        ("ju\u0308rgen", "bücher.example", Accepted("local", "jürgen")),
        ("jurgen", "bücher.example", Unknown()),
        ("Any", "X.sub.example", Accepted("below", "any")),
        ("any", "a.b.sub.example", Accepted("below", "any")),
        ("any", "own.sub.example", Accepted("own", "any")),
        ("any", "x.own.sub.example", Accepted("below", "any")),
        ("any", "x.deep.sub.example", Unknown()),
        ("alice", "x.deep.sub.example", Accepted("local", "alice")),
        ("any", "deep.sub.example", Accepted("below", "any")),
        ("any", "bücher.sub.example", Accepted("below", "any")),
        ("any", "sub.example", NotLocal()),
        ("any", "xsub.example", NotLocal()),
        ("any", "*.sub.example", Accepted("below", "any")),
        ("alice", "b\u0000ücher.example", NotLocal()),
        ("alice", "ü" * 80, NotLocal()),
    ],
)
def test_mailboxes_of_our_domains(local: str, domain: str, expected: object):
    """Without case, first whole, then without detail; domains in A-labels (RFC 6531 3.3), UTF-8 folded."""
    assert TABLE.resolve(local, domain, may_relay=False) == expected


def test_postmaster_always_exists():
    """RFC 5321 4.5.1, in any case, listed or not."""
    assert TABLE.resolve("PostMaster", "list.example", may_relay=False) == Accepted("lists", "postmaster")


def test_postmaster_without_a_domain_is_that_of_the_first():
    """RFC 5321 4.1.1.3: RCPT TO:<postmaster>."""
    assert TABLE.resolve("Postmaster", "", may_relay=False) == Accepted("lists", "postmaster")
    assert TABLE.resolve("alice", "", may_relay=False) == Unknown()


def test_postmaster_without_a_domain_exists_where_only_subdomains_are_ours():
    """RFC 5321 4.5.1: whoever takes mail for anybody takes it for him."""
    table = Recipients.from_config(
        Config(domain={"*.a.example": Domain(mailboxes=("x",), transport="a"), "*.b.example": Domain()})
    )
    assert table.resolve("postmaster", "", may_relay=False) == Accepted("a", "postmaster")
    assert table.resolve("x", "", may_relay=False) == Unknown()


def test_other_domains_are_refused_but_for_who_may_relay():
    """smtp.md: relay refused 550 5.7.1; the local part of a relayed address is nobody's to change."""
    assert TABLE.resolve("Bob+x", "else.example", may_relay=False) == NotLocal()
    assert TABLE.resolve("Bob+x", "else.example", may_relay=True) == Accepted("out", "Bob+x")


def test_who_may_relay_is_still_told_of_unknown_mailboxes_of_ours():
    """A domain of ours is never relayed."""
    assert TABLE.resolve("bob", "list.example", may_relay=True) == Unknown()


def test_a_relayed_address_stays_as_it_was_written():
    """RFC 5321 2.4: only the final host may interpret it, and RFC 6531 addresses are as good as others."""
    assert TABLE.resolve("JÜRGEN", "straße.example", may_relay=True) == Accepted("out", "JÜRGEN")


def test_without_a_relay_transport_nothing_is_relayed():
    """Nothing is accepted that has no way out."""
    table = Recipients.from_config(Config(domain={"a.example": Domain()}))
    assert table.resolve("x", "b.example", may_relay=True) == NotLocal()


def test_a_route_is_way_enough_for_what_may_be_relayed():
    """It says how the mail goes on; who may not relay still may not."""
    table = Recipients.from_config(
        Config(domain={"a.example": Domain()}, route={"*.b.example": Route(transport="out")})
    )
    assert table.resolve("X", "y.b.example", may_relay=True) == Accepted("out", "X")
    assert table.resolve("X", "y.b.example", may_relay=False) == NotLocal()
    assert table.resolve("X", "c.example", may_relay=True) == NotLocal()


def test_without_a_domain_of_ours_there_is_no_postmaster():
    """A pure relay: no mailbox could take it."""
    assert Recipients.from_config(Config()).resolve("postmaster", "", may_relay=False) == Unknown()


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("XN--BCHER-kva.example", "xn--bcher-kva.example"),
        ("list.example", "list.example"),
        ("münchen.example", "münchen.example"),
        ("[IPv6:::1]", "[IPv6:::1]"),
        ("", ""),
    ],
)
def test_a_domain_of_ours_has_one_name(domain: str, name: str) -> None:
    """By it mailboxes lie on the disk; other domains go on as the client wrote them (RFC 6531 3.7)."""
    assert TABLE.name_of(domain) == name
