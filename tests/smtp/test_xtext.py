"""xtext of RFC 3461 4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.smtp import xtext


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", ""),
        ("plain@example.org", "plain@example.org"),
        ("a+2Bb+3Dc", "a+b=c"),
        ("+20", " "),
        ("+C3+A9", "é"),
    ],
)
def test_what_is_encoded_comes_out(text: str, meant: str) -> None:
    """+ and two upper-case digits are an octet; octets are UTF-8."""
    assert xtext.decode(text) == meant


@pytest.mark.parametrize(
    "text",
    ["+", "+2", "+2b", "+G0", "a b", "a=b", "é", "\x7f", "+0D+0A", "+00", "+FF", "+C3", "+7F", "+E2+80+A8"],
)
def test_what_is_none_or_not_printable_is_none(text: str) -> None:
    """No line end, no control, no half a character can come in this way."""
    assert xtext.decode(text) is None


@given(st.text(max_size=20))
def test_printable_text_survives_being_encoded(text: str) -> None:
    """Encoded octet by octet it is what it was, or None where it is not printable."""
    encoded = "".join(f"+{octet:02X}" for octet in text.encode("utf-8", "surrogatepass"))
    assert xtext.decode(encoded) == (text if text.isprintable() else None)
