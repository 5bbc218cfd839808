"""Keys that fit, networks of clients, periods: forkd.sdk.remembering."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk.remembering import MAX_KEY_OCTETS, network_of, period, spoken, state_key

PARTS = st.lists(st.text(max_size=300), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_keys_fit_and_differ_where_their_parts_do(one: list[str], other: list[str]):
    """255 octets at most, whatever a client writes; two lists of parts never meet."""
    keys = [state_key(*parts) for parts in (one, other)]
    assert all(len(key.encode()) <= MAX_KEY_OCTETS for key in keys)
    surrogates = any(0xD800 <= ord(c) <= 0xDFFF for part in (*one, *other) for c in part)
    assert surrogates or (keys[0] == keys[1]) == (one == other)


def test_keys_are_readable_as_long_as_they_fit():
    assert state_key("triplet", "192.0.2.0/24", "a@b.example") == "triplet 192.0.2.0/24 a@b.example"
    assert state_key("a b", "c") != state_key("a", "b c")
    long = "x" * 300
    assert state_key(long, "a") != state_key(long, "b")
    assert state_key(long).startswith("x" * 200)
    for odd in (long, "ü" * 200, " " * 100, "%" * 254):
        assert len(state_key(odd, odd).encode()) <= MAX_KEY_OCTETS


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_the_network_of_a_client(address: str, network: str):
    assert network_of(address, 24, 64) == network


def test_a_whole_prefix_is_the_address_itself():
    assert network_of("192.0.2.7", 32, 64) == "192.0.2.7"
    assert network_of("2001:DB8::7", 32, 128) == "2001:db8::7"


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("36d", 36 * 86400)])
def test_periods(text: str, seconds: int):
    assert period(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "0s", "1.5h", "-1h", "5 m", "5min", "401d", "99999999999s", "5M"]
)
def test_what_is_no_period(text: str):
    with pytest.raises(ValueError, match="a period is"):
        period(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1 second"), (90, "90 seconds"), (300, "5 minutes"), (3600, "1 hour"), (172800, "2 days")],
)
def test_periods_for_people(seconds: int, text: str):
    assert spoken(seconds) == text
