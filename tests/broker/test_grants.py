"""forkd/broker/grants.py: which names, which addresses."""

from __future__ import annotations

import pytest

from forkd.broker.grants import BadNameError, Grants, labels, reverse_labels
from forkd.config.schema import Capabilities


def may(suffixes: tuple[str, ...], name: str) -> bool:
    return Grants.of(Capabilities(dns=suffixes)).may_look_up(labels(name))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("zen.example", True),
        ("2.0.0.127.zen.example", True),
        ("2.0.0.127.ZEN.Example.", True),
        ("evilzen.example", False),
        ("zen.example.evil.test", False),
        ("example", False),
        ("zen", False),
    ],
)
def test_a_name_is_compared_label_by_label(name: str, allowed: bool):
    """plugins.md: the granted suffixes, and nothing that only ends in the same letters."""
    assert may(("zen.example", "other.example"), name) is allowed


def test_any_covers_every_name_and_nothing_covers_none():
    """plugins.md: "any" only if the admin writes so."""
    assert may(("zen.example", "any"), "whatever.test")
    assert not may((), "whatever.test")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..zen.example",
        ".zen.example",
        "a" * 64 + ".zen.example",
        "a." * 127 + "zen.example",
        "evil\\.zen.example",
        "a b.zen.example",
        "a\x00.zen.example",
        "a\n.zen.example",
        "\u00ad.zen.example",
        "x" * 300_000,
        "\u00e9" * 300_000,
    ],
    ids=lambda name: repr(name[:20]),
)
def test_what_cannot_be_a_name_is_none(name: str):
    """An escape must not hide a dot, and nothing of any size may cost time."""
    with pytest.raises(BadNameError):
        labels(name)


def test_names_beyond_ascii_are_a_labels():
    """As DNS has them; the grants too."""
    assert labels("B\u00fccher.example") == ("xn--bcher-kva", "example")
    assert may(("b\u00fccher.example",), "www.xn--bcher-kva.example")


def test_an_address_becomes_its_reverse_name():
    """For ptr."""
    assert reverse_labels("192.0.2.1") == ("1", "2", "0", "192", "in-addr", "arpa")
    assert (reverse_labels("2001:db8::1") or ())[-3:] == ("2", "ip6", "arpa")
    assert reverse_labels("mx.example") is None
