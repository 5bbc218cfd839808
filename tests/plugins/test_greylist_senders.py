"""greylist: senders whose address changes with each message."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk import Address
from forkd.sdk.testing import load_plugin

load_plugin(Path(__file__).parent.parent.parent / "plugins" / "greylist")

from greylist_senders import steady  # type: ignore[import-not-found]  # noqa: E402 - found once it is loaded


@pytest.mark.parametrize(
    "addresses",
    [
        ["Ann@Example.com", "ann@example.com"],
        ["prvs=1234567abc=ann@example.com", "prvs=0987654321=ann@example.com", "ann@example.com"],
        ["prvs=ann/0123456789@example.com", "prvs=ann/9876543210@example.com", "ann@example.com"],
        ["btv1==050d8c12ab==ann@example.com", "btv1==998877aabb==ann@example.com", "ann@example.com"],
        ["msprvs1=17000abcDEF=ann@example.com", "msprvs1=18000defABC=ann@example.com"],
        ["SRS0=HHH=TT=origin.example=ann@fwd.example", "SRS0+abc=X9=origin.example=ann@fwd.example"],
        [
            "SRS1=HH=first.example==H1=T1=origin.example=ann@fwd.example",
            "SRS1=XX=first.example=-H2=T2=origin.example=ann@fwd.example",
        ],
        ["list-bounces+bob=a.example@lists.example", "list-bounces+eve=b.example@lists.example"],
        ["list-return-17-bob=a.example@lists.example", "list-return-18-eve=b.example@lists.example"],
        ["bounce-123_HTML-456@news.example", "bounce-98_HTML-7@news.example"],
        [
            "0100018b1c2d3e4f-01234567-89ab-cdef-0123-456789abcdef-000000@eu.amazonses.com",
            "0102018f9c8d7e6f-76543210-abcd-4cde-8123-fedcba987654-000000@eu.amazonses.com",
        ],
        ["bounces+12345-abcd-bob=a.example@em.example", "bounces+12345-ef01-eve=b.example@em.example"],
        ["3xYz1-AAAA@bounce.example", "3abC2-AAAA@bounce.example"],
    ],
)
def test_what_changes_is_left_out(addresses: list[str]):
    """BATV, SRS, VERP, serial numbers: one sender, however often it changes."""
    assert len({steady(Address.parse(each)) for each in addresses}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ann@example.com", "bob@example.com"),
        ("ann@example.com", "ann@example.org"),
        ("SRS0=HH=TT=origin.example=ann@fwd.example", "SRS0=HH=TT=other.example=ann@fwd.example"),
        ("SRS0=HH=TT=origin.example=ann@fwd.example", "SRS0=HH=TT=origin.example=bob@fwd.example"),
        ("list-bounces@lists.example", "list-owner@lists.example"),
        ("first-return-1-bob=a.example@lists.example", "second-return-1-bob=a.example@lists.example"),
        ("face@example.com", "cafe@example.com"),
        ("@example.com", "a@example.com"),
    ],
)
def test_who_is_somebody_else_stays_so(one: str, other: str):
    assert steady(Address.parse(one)) != steady(Address.parse(other))


def test_the_null_sender():
    assert steady(Address("", "")) == "<>"


@given(st.text(max_size=64), st.text(alphabet="abcxyz0123456789.-", max_size=20))
def test_any_address_becomes_one_line_of_a_key(local: str, domain: str):
    """Whatever a client writes; and what is steady stays so."""
    found = steady(Address(local, domain))
    assert found == "<>" or found.endswith("@" + domain.lower())
    again = steady(Address(found.rpartition("@")[0], domain))
    assert again == steady(Address(again.rpartition("@")[0], domain))
