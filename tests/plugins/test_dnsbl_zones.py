"""dnsbl: what lines of `zones` say, and what a list's answers mean."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk.testing import load_plugin

load_plugin(Path(__file__).parent.parent.parent / "plugins" / "dnsbl", settings={"zones": ["bl.example"]})

from dnsbl_zones import read_line, read_pattern, read_zones, reverse, usable  # type: ignore[import-not-found] # noqa: E402


@pytest.mark.parametrize(
    ("line", "name", "weight", "text"),
    [
        ("zen.spamhaus.org", "zen.spamhaus.org", 1, ""),
        ("Zen.Spamhaus.org.  3", "zen.spamhaus.org", 3, ""),
        ("zen.spamhaus.org 127.0.0.[2..11] 3", "zen.spamhaus.org", 3, ""),
        ("list.dnswl.org 127.0.[0..255].[1;2] -4", "list.dnswl.org", -4, ""),
        ("bl.example +2 => see https://x.example/{ip}", "bl.example", 2, "see https://x.example/{ip}"),
        ("bl.example 127.0.0.2 => x", "bl.example", 1, "x"),
        ("bücher.example", "xn--bcher-kva.example", 1, ""),
    ],
)
def test_a_line(line: str, name: str, weight: int, text: str):
    found, rule = read_line(line)
    assert (found, rule.weight, rule.text) == (name, weight, text)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "no zone"), ("localhost", "no zone"), ("a..b", "no domain name"), ("[192.0.2.1]", "no zone"),
        ("bl.example 3 127.0.0.2", "is too much"), ("bl.example 127.0.0.2 3 4", "is too much"),
        ("bl.example 0", "a weight of 0"), ("bl.example 127.0.0", "is no pattern"),
        ("bl.example =127.0.0.2*3", "is no pattern"), ("bl.example many", "is no pattern"),
        ("bl.example 127.0.0.2.3", "is no pattern"), ("bl.example 192.0.2.1", "begin with 127"),
        ("bl.example [126..127].0.0.2", "begin with 127"), ("bl.example 127.0.0.[3..2]", "no range within"),
        ("bl.example 127.0.0.256", "no range within"), ("bl.example 127.0.0.[2..]", "no number and no range"),
        ("bl.example 127.0.0.[;]", "no number and no range"), ("bl.example =>  ", "is no pattern"),
        ("bl.example =>    x", "is no pattern|=> is too much|x"),
    ],
)  # fmt: skip
def test_what_is_no_line_is_said_with_its_place(line: str, why: str):
    if line.endswith("x"):
        assert read_line(line)[1].text == "x"
        return
    with pytest.raises(ValueError, match="setting zones, entry 2: ") as error:
        read_zones("zones", ["good.example", line])
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("127.0.0.2", ["127.0.0.2"], ["127.0.0.3", "127.0.2.2"]),
        ("127.0.0.[2..11]", ["127.0.0.2", "127.0.0.11"], ["127.0.0.1", "127.0.0.12"]),
        ("127.0.[0..255].[1;3..5]", ["127.0.9.1", "127.0.0.4"], ["127.0.0.2", "127.1.0.1"]),
    ],
)
def test_a_pattern(pattern: str, yes: list[str], no: list[str]):
    rule = read_line(f"bl.example {pattern}")[1]
    assert all(rule.matches([each]) for each in yes)
    assert not any(rule.matches([each]) for each in no)
    assert rule.matches([*no, *yes])
    assert not rule.matches([])


@given(st.text(alphabet="127.0[];5a ", max_size=24))
def test_a_pattern_is_read_or_refused(text: str):
    """Nothing else happens; what was read matches itself written out."""
    try:
        pattern = read_pattern(text)
    except ValueError:
        return
    assert len(pattern) == 4
    assert pattern[0] == {127}
    rule = read_line(f"bl.example {text}")[1]
    assert rule.matches([".".join(str(min(values)) for values in pattern)])


def test_a_zone_in_several_lines_is_one():
    """Allow lists first: what they take off may make asking the others needless."""
    zones = read_zones(
        "zones", ["b.example 127.0.0.2 2", "w.example 127.0.0.[1..3] -5", "B.example 127.0.0.4 3"]
    )
    assert [(zone.name, zone.most, zone.least) for zone in zones] == [
        ("w.example", 0, -5),
        ("b.example", 5, 0),
    ]


def test_the_key_of_a_data_query_zone_is_shown_to_nobody():
    [zone] = read_zones("zones", ["abcdefkey.zen.dq.spamhaus.net 127.0.0.[2..11] 3"])
    assert zone.shown == "zen.dq.spamhaus.net"
    assert read_zones("zones", ["zen.spamhaus.org"])[0].shown == "zen.spamhaus.org"


@pytest.mark.parametrize(
    ("answers", "fine", "wrong"),
    [
        (["127.0.0.2"], ["127.0.0.2"], ""),
        (["127.255.255.254"], [], "127.255.255.254"),
        (["127.0.1.255"], [], "127.0.1.255"),
        (["127.0.0.1"], [], "no entry"),
        (["192.0.2.1"], [], "outside"),
        (["127.0.0.2", "203.0.113.9"], ["127.0.0.2"], "outside"),
        ([], [], ""),
    ],
)
def test_answers_that_can_be_believed(answers: list[str], fine: list[str], wrong: str):
    found, why = usable(answers)
    assert found == fine
    assert wrong in why
    assert bool(wrong) == bool(why)


def test_how_an_address_is_asked_for():
    """RFC 5782 2.1 and 2.4, its own examples."""
    assert reverse("192.0.2.99") == "99.2.0.192"
    six = reverse("2001:db8:1:2:3:4:567:89ab")
    assert six == "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"


@given(st.ip_addresses())
def test_addresses_are_asked_for_as_pointer_names_have_them(address):
    suffix = {4: ".in-addr.arpa", 6: ".ip6.arpa"}[address.version]
    assert reverse(str(address)) + suffix == ipaddress.ip_address(str(address)).reverse_pointer
