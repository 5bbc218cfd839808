"""Durations and sizes: forkd/config/units.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.config.units import UnitError, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("5s", 5), ("3m", 180), ("4h", 14_400), ("5d", 432_000), ("1.5h", 5400), ("0s", 0)],
)
def test_a_duration_is_number_and_unit(text: str, seconds: float):
    """operations.md: durations are written `5s`, `250ms`."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [("512B", 512), ("64KiB", 65_536), ("50MiB", 50 << 20), ("1GiB", 1 << 30), ("1.5KiB", 1536)],
)
def test_a_size_is_number_and_unit(text: str, octets: int):
    """operations.md: sizes are written `64MiB`."""
    assert parse_size(text) == octets


@pytest.mark.parametrize(
    ("text", "meant"),
    [("5min", '"5m"'), ("5 s", '"5s"'), ("10 sec", '"10s"'), ("2hours", '"2h"'), ("5S", '"5s"')],
)
def test_a_slip_in_a_duration_gets_what_was_meant(text: str, meant: str):
    """A refused value comes with the value to write."""
    with pytest.raises(UnitError) as caught:
        parse_duration(text)
    assert meant in caught.value.hint


@pytest.mark.parametrize(
    ("text", "meant"), [("64MB", '"64MiB"'), ("64M", '"64MiB"'), ("64k", '"64KiB"'), ("64 KiB", '"64KiB"')]
)
def test_a_slip_in_a_size_gets_what_was_meant(text: str, meant: str):
    """MB is refused, since half of all programs mean 1000 by it."""
    with pytest.raises(UnitError) as caught:
        parse_size(text)
    assert meant in caught.value.hint


@pytest.mark.parametrize("text", ["", "s", "-5s", "5", "5x", "1e3s", "0x5s", "5s5", "inf", "٥s"])
def test_what_is_no_duration_is_refused(text: str):
    """No sign, no exponent, no other digits, never a bare number."""
    with pytest.raises(UnitError):
        parse_duration(text)


def test_a_fraction_of_a_byte_is_refused():
    """A size is a whole number of bytes."""
    with pytest.raises(UnitError):
        parse_size("0.3B")


@given(st.integers(0, 1 << 50))
def test_a_size_is_written_as_it_is_read(size: int):
    """What `config show` prints means the same when it is read again."""
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**10).map(lambda milliseconds: milliseconds / 1000))
def test_a_duration_is_written_as_it_is_read(seconds: float):
    """What `config show` prints means the same when it is read again."""
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)
