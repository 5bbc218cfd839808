"""Which addresses a user may send from."""

from __future__ import annotations

import pytest

from forkd.auth import senders
from forkd.auth.senders import Senders
from forkd.config.schema import Domain

OURS = Senders({"example.org": Domain(), "bücher.example": Domain(detail="")})


@pytest.mark.parametrize(
    ("login", "addresses", "sender", "may"),
    [
        ("anna", (), "anna@example.org", True),
        ("anna", (), "Anna@EXAMPLE.org", True),
        ("anna", (), "anna@xn--bcher-kva.example", True),
        ("anna", (), "anna+news@example.org", True),
        ("anna", (), "anna+news@bücher.example", False),
        ("anna", (), "anna@elsewhere.example", False),
        ("anna", (), "otto@example.org", False),
        ("anna@shop.example", (), "anna@shop.example", True),
        ("anna@shop.example", (), "anna@example.org", False),
        ("anna", ("info@example.org",), "info@example.org", True),
        ("anna", ("info@example.org",), "anna@example.org", False),
        ("anna", ("@shop.example",), "anything@shop.example", True),
        ("anna", ("@shop.example",), "anna@sub.shop.example", False),
        ("anna", ("*",), "whoever@wherever.example", True),
        ("anna", ("JÜRGEN@bücher.example",), "jürgen@bücher.example", True),
        ("c++", (), "c++@example.org", True),
    ],
)
def test_who_may_send_as_whom(login: str, addresses: tuple[str, ...], sender: str, may: bool):
    """Own address, listed ones, whole domains, everything; details are the owner's; domains in A-labels."""
    local, _, domain = sender.rpartition("@")
    assert OURS.may_send(login, addresses, local, domain) is may


@pytest.mark.parametrize("good", ["*", "a@example.org", "@example.org", "jürgen@bücher.example"])
def test_addresses_for_the_file(good: str):
    """What stands in send=."""
    assert senders.address_problem(good) == ""


@pytest.mark.parametrize("bad", ["", "anna", "a@", "a b@example.org", "a,b@example.org", "*@example.org x"])
def test_what_cannot_stand_there(bad: str):
    """Told before it is written."""
    assert senders.address_problem(bad)
