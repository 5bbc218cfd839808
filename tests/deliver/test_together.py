"""Deliveries whose client waits: all recipients have the message, or none (transport.Delivery.together)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.support.next_hop import DROP, EHLO, PLAIN, NextHop, Step, keywords
from tests.support.relaying import a_delivery, a_way, delivered, on_loop

BDAT = keywords("PIPELINING", "CHUNKING", "8BITMIME")
WAYS = pytest.mark.parametrize("ehlo", [PLAIN, EHLO, BDAT], ids=["plain", "pipe", "bdat"])
PEOPLE = ("a@next.test", "b@next.test", "c@next.test")


def told(folder: Path, people: tuple[str, ...], *scripts: dict[str, list[Step]]) -> tuple[list[str], int]:
    """Outcomes by recipient, and how many messages the servers took."""
    found: list[tuple[list[str], int]] = []

    async def main() -> None:
        delivery = dataclasses.replace(a_delivery(folder, *people), together=True)
        servers = [NextHop(script) for script in scripts]
        for server in servers:
            await server.__aenter__()
        way = a_way(*servers)
        try:
            said = await delivered(way, delivery)
            found.append((said.codes, sum(len(server.mails) for server in servers)))
        finally:
            await way.close()
            for server in servers:
                await server.__aexit__(None, None, None)

    on_loop(main())
    return found[0]


@WAYS
def test_everybody_has_it_where_nobody_is_refused(tmp_path: Path, ehlo: Step):
    assert told(tmp_path, PEOPLE, {"EHLO": [ehlo]}) == (["2.0.0"] * 3, 1)


@WAYS
@pytest.mark.parametrize(
    ("rcpt", "codes"),
    [
        ([b"250 ok", b"550 5.1.1 no", b"250 ok"], ["5.1.1"] * 3),
        ([b"250 ok", b"250 ok", b"450 4.2.1 busy"], ["4.2.1"] * 3),
        ([b"550 5.1.1 no", b"250 ok", b"450 4.2.1 busy"], ["5.1.1", "4.2.1", "4.2.1"]),
        ([b"250 ok", b"250 ok", b"452 4.5.3 too many"], ["4.5.3"] * 3),
    ],
    ids=["for good", "for now", "both", "too many"],
)
def test_who_is_refused_keeps_it_from_all(tmp_path: Path, ehlo: Step, rcpt: list[Step], codes: list[str]):
    """SMTP has one reply for all: 250 would be a lie, and anything else a duplicate when the client comes
    again. So DATA is not asked before all replies to RCPT are there, pipelining or not."""
    assert told(tmp_path, PEOPLE, {"EHLO": [ehlo], "RCPT": rcpt}) == (codes, 0)


def test_another_host_is_asked_for_all_of_them_too(tmp_path: Path):
    """The one before has given it to nobody."""
    busy: dict[str, list[Step]] = {"RCPT": [b"250 ok", b"450 4.2.1 busy", b"250 ok"]}
    assert told(tmp_path, PEOPLE, busy, {}) == (["2.0.0"] * 3, 1)


def test_no_other_host_is_asked_where_one_will_not_have_it(tmp_path: Path):
    """b is refused for good: a and c, refused for now, do not get it elsewhere meanwhile."""
    mixed: dict[str, list[Step]] = {"RCPT": [b"250 ok", b"550 5.1.1 no", b"450 4.2.1 busy"]}
    assert told(tmp_path, PEOPLE, mixed, {}) == (["4.2.1", "5.1.1", "4.2.1"], 0)


def test_many_go_in_one_transaction(tmp_path: Path):
    """Two transactions could end differently."""
    people = tuple(f"user{number}@next.test" for number in range(250))
    codes, mails = told(tmp_path, people, {})
    assert (set(codes), mails) == ({"2.0.0"}, 1)


def test_an_address_that_a_server_cannot_have_keeps_it_from_all(tmp_path: Path):
    """No SMTPUTF8 there: one of the addresses cannot be said."""
    codes, mails = told(tmp_path, ("a@next.test", "bücher@next.test"), {"EHLO": [PLAIN]})
    assert (codes[0][0], codes[1][0], mails) == ("5", "5", 0)


def test_an_end_before_the_message_is_nobodys_delivery(tmp_path: Path):
    codes, mails = told(tmp_path, PEOPLE, {"RCPT": [b"250 ok", DROP]})
    assert ({code[0] for code in codes}, mails) == ({"4"}, 0)
