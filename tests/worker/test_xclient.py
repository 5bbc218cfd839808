"""XCLIENT's attributes, as Postfix' XCLIENT_README has them."""

from __future__ import annotations

import pytest

from forkd.smtp import replies
from forkd.worker.xclient import UNKNOWN_ADDRESS, Claims, read


def test_every_attribute_is_understood():
    claims = read(
        {
            "NAME": "Mail.Example.ORG",
            "ADDR": "192.0.2.7",
            "PORT": "40000",
            "PROTO": "esmtp",
            "HELO": "helo.example",
            "LOGIN": "anna",
            "DESTADDR": "IPV6:2001:db8::25",
            "DESTPORT": "25",
        }
    )
    assert claims == Claims(
        name="mail.example.org",
        address="192.0.2.7",
        port=40000,
        protocol="ESMTP",
        helo="helo.example",
        login="anna",
        destination_address="2001:db8::25",
        destination_port=25,
    )


def test_what_a_command_does_not_name_stays_as_told_before():
    """XCLIENT_README: the information may come in more than one command."""
    first = read({"NAME": "a.example", "ADDR": "192.0.2.7"})
    assert isinstance(first, Claims)
    second = read({"LOGIN": "anna", "NAME": "b.example"}, first)
    assert second == Claims(name="b.example", address="192.0.2.7", login="anna")


def test_a_login_is_of_its_own_command_alone():
    """As in Postfix: who is told of next has not logged in because the one before had."""
    first = read({"ADDR": "192.0.2.7", "LOGIN": "anna"})
    assert isinstance(first, Claims)
    second = read({"ADDR": "192.0.2.8"}, first)
    assert second == Claims(address="192.0.2.8", login=None)


def test_what_the_proxy_does_not_know_is_unknown():
    """[UNAVAILABLE], [TEMPUNAVAIL]: no name, no login; an address that is in no network by accident."""
    claims = read({"NAME": None, "ADDR": None, "PORT": None, "HELO": None, "LOGIN": None})
    assert claims == Claims(name="", address=UNKNOWN_ADDRESS, port=0, helo="", login="")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("ADDR", "2001:db8::300000"),
        ("ADDR", "192.0.2.256"),
        ("ADDR", "mail.example.org"),
        ("ADDR", "IPV6:fe80::1%eth0"),
        ("ADDR", ""),
        ("NAME", "two words"),
        ("NAME", "x" * 256),
        ("NAME", ""),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "x"),
        ("PROTO", "LMTP"),
        ("PROTO", None),
        ("HELO", "a\nb"),
        ("HELO", "x" * 256),
        ("LOGIN", "a\x00b"),
        ("FORGED", "x"),
    ],
)
def test_what_makes_no_sense_is_refused_whole(attribute: str, value: str | None):
    """501: nothing of that command is believed."""
    assert read({"NAME": "a.example", attribute: value}) is replies.BAD_XCLIENT
