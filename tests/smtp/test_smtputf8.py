"""RFC 6531: UTF-8 in addresses, only where the client asks for it and the transaction has it."""

from __future__ import annotations

import pytest

from forkd.smtp import replies
from forkd.smtp.address import Mailbox
from forkd.smtp.events import Data, DataEnd, Event, Expn, Mail, Rcpt, Refused, Vrfy
from forkd.smtp.reply import reply
from tests.support.feed import (
    Start,
    accept,
    codes,
    converse,
    drain,
    feed,
    fresh,
    in_mail,
    kinds,
    ready,
    refuse,
)

UTF8_RCPT = "RCPT TO:<jörg@test.local>\r\n".encode()


def test_an_address_in_utf8_needs_the_parameter() -> None:
    """550 5.6.7 without it, for sender and recipients (RFC 6531 3.5)."""
    heard = feed(ready(), "MAIL FROM:<jörg@example.org>\r\n".encode())
    assert heard == [Refused(replies.NEEDS_SMTPUTF8, "MAIL")]
    assert feed(in_mail(), UTF8_RCPT) == [Refused(replies.NEEDS_SMTPUTF8, "RCPT")]


def test_with_the_parameter_all_addresses_of_the_transaction_may_be_utf8() -> None:
    """Whether the sender's is or not (RFC 6531 3.4)."""
    heard = feed(ready(), b"MAIL FROM:<a@b> SMTPUTF8\r\n" + UTF8_RCPT + b"RCPT TO:<ascii@test.local>\r\n")
    assert kinds(heard) == [Mail, Rcpt, Rcpt]
    assert heard[1] == Rcpt(Mailbox("jörg", "test.local"), {})


@pytest.mark.parametrize("between", [b"RSET\r\n", b"EHLO a\r\n", b"RCPT TO:<x@y>\r\nDATA\r\n.\r\n"])
def test_it_holds_for_one_transaction(between: bytes) -> None:
    """The next MAIL says it anew."""
    start = Start((b"EHLO a\r\n", b"MAIL FROM:<a@b> SMTPUTF8\r\n"))
    assert codes(converse(start, between + b"MAIL FROM:<a@b>\r\n" + UTF8_RCPT).sent)[-1] == 550


@pytest.mark.parametrize("end", [b"RSET\r\n", b"EHLO a\r\n", b"MAIL FROM:<a@b>\r\nRSET\r\n"])
def test_what_stands_says_so(end: bytes) -> None:
    """While the transaction lasts, and no longer."""
    made = Start((b"EHLO a\r\n", b"MAIL FROM:<a@b> SMTPUTF8\r\n")).connection()
    assert made.smtputf8
    made.receive_data(end)
    drain(made, accept)
    assert not made.smtputf8


def test_a_domain_comes_as_u_labels() -> None:
    """Lower case, composed; A-labels stay A-labels (RFC 6531 3.7, RFC 5890 2.3.2.1)."""
    heard = feed(ready(), "MAIL FROM:<a@BÜCHER.example> SMTPUTF8\r\n".encode())
    assert isinstance(heard[0], Mail)
    assert heard[0].sender == Mailbox("a", "bücher.example")
    heard = feed(ready(), b"MAIL FROM:<a@XN--bcher-KVA.example>\r\n")
    assert isinstance(heard[0], Mail)
    assert heard[0].sender == Mailbox("a", "xn--bcher-kva.example")


def test_octets_that_are_no_utf8_are_bad_syntax() -> None:
    """With the parameter and without."""
    heard = feed(ready(), b"MAIL FROM:<\xe9@b> SMTPUTF8\r\nMAIL FROM:<\xe9@b>\r\n")
    assert heard == [Refused(replies.BAD_SENDER, "MAIL")] * 2


def test_an_original_recipient_in_utf8_needs_it_too() -> None:
    """ORCPT=utf-8; (RFC 6533 3), with an ASCII path."""
    line = "RCPT TO:<a@test.local> ORCPT=utf-8;jörg@test.local\r\n".encode()
    assert feed(in_mail(), line) == [Refused(replies.NEEDS_SMTPUTF8, "RCPT")]
    heard = feed(Start((b"EHLO a\r\n", b"MAIL FROM:<a@b> SMTPUTF8\r\n")), line)
    assert isinstance(heard[0], Rcpt)
    assert heard[0].orcpt == "utf-8;jörg@test.local"


def test_names_of_hosts_stay_ascii() -> None:
    """EHLO has A-labels (RFC 6531 3.7.1)."""
    assert codes(
        converse(fresh(), "EHLO bücher.example\r\nEHLO xn--bcher-kva.example\r\n".encode()).sent
    ) == [
        501,
        250,
    ]


@pytest.mark.parametrize(("verb", "kind"), [("VRFY", Vrfy), ("EXPN", Expn)])
def test_vrfy_and_expn_have_the_parameter_too(verb: str, kind: type[Vrfy] | type[Expn]) -> None:
    """RFC 6531 3.7.4.2: behind the argument, and needed for one that is not ASCII."""
    said = [
        (f"{verb} jörg SMTPUTF8", kind("jörg", True)),
        (f"{verb} Joe User smtputf8", kind("Joe User", True)),
        (f"{verb} SMTPUTF8", kind("SMTPUTF8", False)),
        (f"{verb} jörg", Refused(replies.NEEDS_SMTPUTF8, verb)),
        (f"{verb} j\x85rg SMTPUTF8", Refused(replies.BAD_CHARACTERS, verb)),
    ]
    for line, event in said:
        assert feed(ready(), line.encode() + b"\r\n") == [event]
    # After HELO there are no extensions: it is part of the argument.
    assert feed(Start((b"HELO a\r\n",)), f"{verb} joe SMTPUTF8\r\n".encode()) == [kind("joe SMTPUTF8", False)]


GERMAN = reply(550, "5.1.1", "Empfänger unbekannt")


@pytest.mark.parametrize(
    ("kind", "behind"),
    [
        (Mail, ""),
        (Rcpt, "RCPT TO:<a@b>\r\n"),
        (Data, "RCPT TO:<a@b>\r\nDATA\r\n"),
        (Data, "RCPT TO:<a@b>\r\nBDAT 3\r\nabc"),
        (DataEnd, "RCPT TO:<a@b>\r\nDATA\r\n.\r\n"),
    ],
)
def test_refusals_may_be_utf8_where_the_client_reads_it(kind: type[Event], behind: str) -> None:
    """RFC 6531 3.7.4.1: in a transaction with SMTPUTF8, and in no other."""
    start = Start((b"EHLO a\r\n",), policy=refuse(kind, GERMAN))
    with_it = converse(start, f"MAIL FROM:<a@b> SMTPUTF8\r\n{behind}RSET\r\n".encode()).sent
    assert "550 5.1.1 Empfänger unbekannt\r\n".encode() in with_it
    without = converse(start, f"MAIL FROM:<a@b>\r\n{behind}RSET\r\n".encode()).sent
    assert b"550 5.1.1 Empf?nger unbekannt\r\n" in without


def test_after_the_transaction_replies_are_ascii_again() -> None:
    """The permission is that of one transaction."""
    start = Start((b"EHLO a\r\n", b"MAIL FROM:<a@b> SMTPUTF8\r\n", b"RSET\r\n"), policy=refuse(Mail, GERMAN))
    assert converse(start, b"MAIL FROM:<a@b>\r\n").sent.isascii()
