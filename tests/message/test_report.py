"""Reports, parsed back as their readers parse them (forkd/message/report.py and its parts)."""

from __future__ import annotations

import dataclasses
import email
import re
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.message import trace
from forkd.message.report import MAX_REFERENCES, Report, compose
from forkd.message.report_facts import Facts, Piece, without_paths
from forkd.message.report_original import MAX_HEADER, choose
from forkd.message.report_rules import Action
from forkd.message.report_status import status_of, typed
from forkd.message.report_text import ADVICE, MOST_NAMED

AT = 1_763_900_000
ORIGINAL = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Lunch on Friday\r\n"
    b"Message-ID: <lunch.1@example.org>\r\nReferences: <first@example.net> <second@example.org>\r\n"
    b"\r\nAt noon?\r\n"
)
ACTIONS: tuple[Action, ...] = ("failed", "delayed", "relayed", "expanded", "delivered")
GOLDEN = Path(__file__).with_name("report.eml")

BOB = Piece(
    address="bob@example.net",
    action="failed",
    status="5.1.1",
    orcpt="rfc822;Bob+2Bwork@example.net",
    mta="mx.example.net",
    reply="550-5.1.1 <bob@example.net>: there is\n550 5.1.1 nobody of that name",
    last_try_at=AT - 5,
)


def facts(*pieces: Piece, **given: Any) -> Facts:
    known: dict[str, Any] = {
        "recipient": "alice@example.org", "sender": "alice@example.org", "host": "mx.example.com",
        "report_id": "0T5W1XK2PQ7RAB1.R2", "queue_id": "0T5W1XK2PQ7RAB1", "at": AT, "received_at": AT - 600,
        "client_name": "client.example.org", "envid": "QQ+2B314", **given,
    }  # fmt: skip
    return Facts(pieces=pieces or (BOB,), **known)


def parsed(report: Report) -> EmailMessage:
    message = email.message_from_bytes(report.octets, policy=default.clone(utf8=True))
    assert isinstance(message, EmailMessage)
    assert [part.defects for part in message.walk()] == [[] for _ in message.walk()]
    return message


def written(*pieces: Piece, original: bytes = ORIGINAL, **given: Any) -> EmailMessage:
    return parsed(compose(facts(*pieces, **given), [original]))


def parts(message: EmailMessage) -> list[EmailMessage]:
    found = list(message.iter_parts())
    assert len(found) == 3
    return found  # type: ignore[return-value]


def text(message: EmailMessage) -> str:
    return " ".join(parts(message)[0].get_content().split())


def groups(message: EmailMessage) -> list[Any]:
    """The groups of fields: on the message, then one per recipient."""
    found = parts(message)[1].get_payload()
    assert isinstance(found, list)
    return found


def value(group: Any, name: str) -> str:
    return " ".join(str(group[name]).split())


def raw_parts(report: Report) -> list[tuple[bytes, bytes]]:
    """Header and body of each part, as octets."""
    found = re.search(rb'boundary="([^"]+)"', report.octets)
    assert found
    pieces = report.octets.split(b"\r\n--" + found[1])[1:-1]
    cut = [piece.removeprefix(b"\r\n").partition(b"\r\n\r\n") for piece in pieces]
    return [(header, body) for header, _, body in cut]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(trace, "_cached", (-1, ""))
    yield
    monkeypatch.undo()
    time.tzset()


# What a mail program sees first


def test_a_report_is_a_multipart_report_of_three_parts() -> None:
    """RFC 6522 3: text for people, fields for programs, the message."""
    message = written()
    assert message.get_content_type() == "multipart/report"
    assert message["content-type"].params["report-type"] == "delivery-status"
    assert [part.get_content_type() for part in parts(message)] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]


def test_the_header_says_who_when_and_that_a_machine_wrote_it() -> None:
    """RFC 3834 5 (Auto-Submitted), RFC 5322 3.6; RFC 3464 2: to the return path."""
    message = written()
    assert message["from"].addresses[0].addr_spec == "MAILER-DAEMON@mx.example.com"
    assert message["to"].addresses[0].addr_spec == "alice@example.org"
    assert message["auto-submitted"] == "auto-replied"
    assert message["message-id"] == "<0T5W1XK2PQ7RAB1.R2@mx.example.com>"
    assert message["date"].datetime.timestamp() == AT
    assert message["mime-version"] == "1.0"


@pytest.mark.parametrize(
    ("actions", "subject"),
    [
        (("failed",), "Your message could not be delivered"),
        (("delivered", "delayed", "failed"), "Your message could not be delivered"),
        (("delivered", "delayed"), "Your message is delayed"),
        (("relayed",), "Your message was passed on"),
        (("expanded",), "Your message was passed on"),
        (("delivered",), "Your message was delivered"),
    ],
)
def test_the_subject_tells_the_worst(actions: tuple[Action, ...], subject: str) -> None:
    """Nobody should have to open it to learn that; and the message's own subject may be an advertisement."""
    pieces = [dataclasses.replace(BOB, action=action) for action in actions]
    assert written(*pieces)["subject"] == subject


def test_a_report_stands_beside_its_message() -> None:
    """RFC 5322 3.6.4: In-Reply-To its id, References those before it too."""
    message = written()
    assert message["in-reply-to"] == "<lunch.1@example.org>"
    assert message["references"].split() == [
        "<first@example.net>",
        "<second@example.org>",
        "<lunch.1@example.org>",
    ]


def test_a_long_thread_is_cut_to_its_newest() -> None:
    """References may grow by what senders like; lines of ours do not."""
    ids = " ".join(f"<{n}@example.org>" for n in range(500)).encode()
    original = b"Message-ID: <own@example.org>\r\nReferences: " + ids + b"\r\n\r\n"
    references = written(original=original)["references"].split()
    assert len(references) == MAX_REFERENCES
    assert references[-2:] == ["<499@example.org>", "<own@example.org>"]


@pytest.mark.parametrize(
    "name", [b"", b"nothing", b"<no at>", b"<a@b c>", b"<a\xc3\xa9@b>", b"<a@" + b"b" * 600 + b">"]
)
def test_what_is_no_id_is_not_referred_to(name: bytes) -> None:
    """A field of ours holds ids or is not there."""
    message = written(original=b"Message-ID: " + name + b"\r\nReferences: <a@b>\r\n\r\n")
    assert "in-reply-to" not in message
    assert "references" not in message


# For programs


def test_the_fields_on_the_message() -> None:
    """RFC 3464 2.2; RFC 3461 6.3: ENVID with its xtext undone."""
    group = groups(written())[0]
    assert value(group, "original-envelope-id") == "QQ+314"
    assert value(group, "reporting-mta") == "dns; mx.example.com"
    assert value(group, "received-from-mta") == "dns; client.example.org"
    assert value(group, "arrival-date") == trace.date(AT - 600)


def test_without_envid_there_is_no_field() -> None:
    """RFC 3461 6.3: only what the sender gave comes back."""
    assert "original-envelope-id" not in groups(written(envid=""))[0]


def test_the_fields_on_a_recipient() -> None:
    """RFC 3464 2.3; RFC 3461 6.3: ORCPT with its xtext undone."""
    group = groups(written())[1]
    assert {name.lower(): value(group, name) for name in group} == {
        "original-recipient": "rfc822; Bob+work@example.net",
        "final-recipient": "rfc822; bob@example.net",
        "action": "failed",
        "status": "5.1.1",
        "remote-mta": "dns; mx.example.net",
        "diagnostic-code": "smtp; 550-5.1.1 <bob@example.net>: there is 550 5.1.1 nobody of that name",
        "last-attempt-date": trace.date(AT - 5),
        "final-log-id": "0T5W1XK2PQ7RAB1",
    }


def test_without_orcpt_there_is_no_original_recipient() -> None:
    """RFC 3461 6.3: it must not be made up from something else."""
    assert "original-recipient" not in groups(written(dataclasses.replace(BOB, orcpt="")))[1]


def test_each_recipient_has_a_group() -> None:
    """RFC 3464 2.3: several recipients in one report."""
    pieces = [dataclasses.replace(BOB, address=f"r{n}@example.net", action=ACTIONS[n % 5]) for n in range(50)]
    found = groups(written(*pieces))[1:]
    assert [value(group, "final-recipient") for group in found] == [
        f"rfc822; r{n}@example.net" for n in range(50)
    ]
    assert [value(group, "action") for group in found] == [ACTIONS[n % 5] for n in range(50)]


def test_where_it_went_in_the_end_is_told_only_when_given() -> None:
    """RFC 3461 5.2.7.4: an address that mail is forwarded to may be confidential."""
    shown = written(dataclasses.replace(BOB, final="private@example.com"))
    assert value(groups(shown)[1], "final-recipient") == "rfc822; private@example.com"
    assert "bob@example.net (passed on to private@example.com)" in text(shown)


@pytest.mark.parametrize(
    ("action", "status", "told"),
    [
        ("failed", "5.1.1", "5.1.1"),
        ("failed", "4.4.1", "5.4.1"),
        ("delayed", "4.2.2", "4.2.2"),
        ("delayed", "5.1.1", "4.1.1"),
        ("delivered", "2.1.5", "2.1.5"),
        ("relayed", "", "2.0.0"),
        ("expanded", "nonsense", "2.0.0"),
        ("failed", "5.1.1\r\nX: y", "5.0.0"),
        ("failed", "5.1000.1", "5.0.0"),
    ],
)
def test_a_status_is_of_the_class_that_its_action_has(action: Action, status: str, told: str) -> None:
    """RFC 3464 2.3.4, RFC 3463 2."""
    assert status_of(dataclasses.replace(BOB, action=action, status=status)) == told


def test_what_we_found_ourselves_is_not_called_a_reply() -> None:
    """RFC 3464 2.3.6: `smtp` is for the words of an SMTP server."""
    piece = dataclasses.replace(BOB, reply="", reason="connection timed out")
    assert value(groups(written(piece))[1], "diagnostic-code") == "x-forkd; connection timed out"


@pytest.mark.parametrize("action", ["relayed", "expanded", "delivered"])
def test_how_it_was_delivered_is_nobodys_business(action: Action) -> None:
    """A catch-all, a program's words: success says that it was, and what another server answered."""
    piece = dataclasses.replace(BOB, action=action, status="2.0.0", reply="", mta="", reason="in catch-all")
    report = compose(facts(piece), [ORIGINAL])
    assert b"catch-all" not in report.octets
    answered = dataclasses.replace(piece, reply="250 2.0.0 taken", mta="mx.example.net")
    assert value(groups(written(answered))[1], "diagnostic-code") == "smtp; 250 2.0.0 taken"


def test_files_of_ours_are_not_told() -> None:
    """Log and queue have the names; a sender has no use for them, or the wrong one."""
    assert without_paths("no connection to /run/dovecot/lmtp: no such file") == (
        "no connection to (path): no such file"
    )
    assert without_paths("it said: cannot open '/home/x/.a b'") == "it said: cannot open '(path) b'"
    for kept in ("see https://example.org/why/not", "read/write error", "text/plain; a / b", "550 5.7.1 no"):
        assert without_paths(kept) == kept


def test_a_delay_says_until_when_it_is_tried() -> None:
    """RFC 3464 2.3.9; and so for people."""
    piece = dataclasses.replace(BOB, action="delayed", status="4.4.1", retry_until=AT + 400_000)
    message = written(piece)
    assert value(groups(message)[1], "will-retry-until") == trace.date(AT + 400_000)
    assert f"It is tried until {trace.date(AT + 400_000)}." in text(message)
    assert "You need not send it again" in text(message)
    failed = dataclasses.replace(piece, action="failed")
    assert "will-retry-until" not in groups(written(failed))[1]


# For people


def test_people_read_what_happened_to_whom_why_and_what_helps() -> None:
    """In words that need no knowledge of mail, with the next hop's own beside them."""
    said = text(written())
    assert "could not be delivered to everybody" in said
    assert "Subject: Lunch on Friday" in said
    assert "bob@example.net There is no such address." in said
    assert (
        "mx.example.net refused it and said: 550-5.1.1 <bob@example.net>: there is 550 5.1.1 nobody" in said
    )
    assert "postmaster@mx.example.com" in said


def test_who_helps_is_named() -> None:
    """Our host's name need be no mail domain."""
    assert "write to help@example.org and send" in text(written(contact="help@example.org"))


def test_of_very_many_recipients_people_read_of_some_and_programs_of_all() -> None:
    """A list of thousands whose server is verbose makes no report of many megabytes."""
    count = 3 * MOST_NAMED
    pieces = [
        dataclasses.replace(
            BOB, address=f"r{number}@example.net", action="delayed" if number % 3 == 1 else "failed",
            reply="550-" + "words " * 330 + "\n550 end",
        )
        for number in range(count)
    ]  # fmt: skip
    report = compose(facts(*pieces, most_returned_bytes=0), [ORIGINAL])
    message = parsed(report)
    said = text(message)
    assert "r0@example.net" in said
    assert "100 more; all of them stand in the delivery report, attached. Not delivered yet" in said
    assert said.count("@example.net ") < 2 * MOST_NAMED
    assert len(groups(message)) == 1 + count
    status = raw_parts(report)[1][1]
    assert len(status) < count * 1_300
    assert "words words" in value(groups(message)[count], "diagnostic-code")


@pytest.mark.parametrize("subject", list(ADVICE))
def test_each_advice_is_given_for_its_status(subject: str) -> None:
    """RFC 3463 3: the subject, or subject and detail, chooses it."""
    status = f"5.{subject}" if "." in subject else f"5.{subject}.77"
    assert ADVICE[subject] in text(written(dataclasses.replace(BOB, status=status)))


def test_any_letters_may_be_said_to_people() -> None:
    """Also in a report that is ASCII on the wire (RFC 2045 6.7)."""
    original = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n"
    report = compose(facts(dataclasses.replace(BOB, reply="550 unbekannter Empfänger")), [original])
    assert report.body == "7BIT"
    assert report.octets.isascii()
    assert "Grüße" in text(parsed(report))
    assert "Empfänger" in text(parsed(report))


@pytest.mark.parametrize("sign", ["\u202e", "\u200b", "\x1b", "\x00", "\u2028"])
def test_letters_that_deceive_are_not_said(sign: str) -> None:
    """What turns the direction of text, or takes no room, makes one address look like another."""
    said = parts(written(dataclasses.replace(BOB, reply=f"550 a{sign}b")))[0].get_content()
    assert sign not in said


# What comes back


@pytest.mark.parametrize(
    ("action", "ret", "whole"),
    [
        ("failed", "", True),
        ("failed", "FULL", True),
        ("failed", "HDRS", False),
        *((action, ret, False) for action in ACTIONS[1:] for ret in ("", "FULL", "HDRS")),
    ],
)
def test_ret_says_what_comes_back_with_a_failure(action: Action, ret: str, whole: bool) -> None:
    """RFC 3461 4.3: RET speaks of failures; with other reports comes the header."""
    third = parts(written(dataclasses.replace(BOB, action=action), ret=ret))[2]
    if whole:
        assert raw_parts(compose(facts(ret=ret), [ORIGINAL]))[2][1] == ORIGINAL
        assert third.get_content_type() == "message/rfc822"
    else:
        assert third.get_content_type() == "text/rfc822-headers"
        assert third.get_content().splitlines() == ORIGINAL.decode().splitlines()[:5]


def test_one_failure_among_others_brings_the_message_back() -> None:
    """RFC 3461 4.3: when a failure is told of for any recipient."""
    delayed = dataclasses.replace(BOB, action="delayed")
    assert parts(written(delayed, BOB))[2].get_content_type() == "message/rfc822"


@pytest.mark.parametrize("lines", [1, 1_000])
@pytest.mark.parametrize("more", [0, 1])
def test_a_message_above_the_bound_comes_back_as_its_header(more: int, lines: int) -> None:
    """Nobody gets ten megabytes back that he has; people are told why."""
    original = ORIGINAL + (b"x" * 70 + b"\r\n") * lines
    message = written(original=original, most_returned_bytes=len(original) - more)
    assert (parts(message)[2].get_content_type() == "message/rfc822") is (more == 0)
    assert ("too long to be sent back" in text(message)) is (more == 1)


def test_no_more_of_a_message_is_read_than_may_come_back() -> None:
    """A gigabyte in the spool costs a report no memory."""
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield ORIGINAL
        while True:
            read += 1
            yield b"another line\r\n" * 1_000

    assert not choose(endless(), ret="FULL", failed=True, most=100_000).whole
    assert read < 20


@pytest.mark.parametrize("body", [b"x" * 999 + b"\r\n", b"nul\0\r\n", b"bare\rcr\r\n", b"bare\nlf\r\n"])
def test_octets_that_cannot_travel_do_not_come_back(body: bytes) -> None:
    """RFC 2045 2.7, 2.8: message/rfc822 has no encoding that could carry them; the header comes."""
    third = parts(written(original=ORIGINAL + body))[2]
    assert third.get_content_type() == "text/rfc822-headers"
    assert b"x" * 998 not in third.as_bytes()


def test_eight_bits_come_back_as_eight_bits() -> None:
    """RFC 6152: the report says that it needs them, in its envelope and in both headers."""
    original = ORIGINAL + b"caf\xc3\xa9 \xff\r\n"
    report = compose(facts(), [original])
    assert report.body == "8BITMIME"
    assert not report.smtputf8
    assert parsed(report)["content-transfer-encoding"] == "8bit"
    assert parts(parsed(report))[2]["content-transfer-encoding"] == "8bit"
    assert raw_parts(report)[2][1] == original


def test_a_header_of_eight_bits_alone_needs_none() -> None:
    """Quoted-printable carries it, so that a report on a delay gets through everywhere."""
    original = b"Subject: caf\xc3\xa9\r\nX: \xc3\xa9\r\n\r\n"
    report = compose(facts(ret="HDRS"), [original])
    assert report.body == "7BIT"
    assert report.octets.isascii()
    assert "café" in parts(parsed(report))[2].get_content()


def test_a_header_with_a_line_too_long_is_encoded() -> None:
    """RFC 5322 2.1.1 holds for what we send, whatever was sent to us."""
    original = b"X-Long: " + b"y" * 5_000 + b"\r\n\r\n"
    third = parts(written(original=original, ret="HDRS"))[2]
    assert third["content-transfer-encoding"] == "quoted-printable"
    assert "y" * 5_000 in third.get_content()


def test_of_a_header_too_long_whole_fields_come_back() -> None:
    """A field cut in two would be another field."""
    original = b"".join(b"X-%d: %b\r\n" % (n, b"z" * 90) for n in range(3_000)) + b"\r\nbody\r\n"
    header = choose([original], ret="HDRS", failed=True, most=1).header
    assert MAX_HEADER - 110 < len(header) <= MAX_HEADER
    assert original[len(header) :].startswith(b"X-")


@pytest.mark.parametrize("original", [b"", b"\r\n", b"\r\nbody\r\n", b"no header at all\r\n"])
def test_a_message_without_a_header_is_reported_too(original: bytes) -> None:
    """It was accepted, so its sender hears what became of it."""
    for ret in ("HDRS", "FULL"):
        assert len(groups(written(original=original, ret=ret))) == 2


def test_no_line_of_the_message_ends_a_part() -> None:
    """RFC 2046 5.1.1; a report that is sent to us again holds a boundary that was ours."""
    first = compose(facts(), [ORIGINAL])
    again = compose(facts(), [b"Subject: again\r\n\r\n" + first.octets])
    assert raw_parts(again)[2][1].endswith(first.octets)
    assert len(parts(parsed(again))) == 3


# UTF-8 (RFC 6533)


@pytest.mark.parametrize(
    ("recipient", "smtputf8", "address", "subject", "needed"),
    [
        ("alice@example.org", False, "bob@example.net", "Lunch", False),
        ("alice@example.org", True, "bob@example.net", "Lunch", False),
        ("alice@example.org", False, "bób@example.net", "Lunch", False),
        ("alice@example.org", False, "bob@example.net", "Grüße", False),
        ("alice@example.org", True, "bób@example.net", "Lunch", True),
        ("alice@example.org", True, "bob@example.net", "Grüße", True),
        ("älice@example.org", True, "bob@example.net", "Lunch", True),
        ("älice@example.org", False, "bob@example.net", "Lunch", True),
    ],
)
def test_the_utf8_form_is_chosen_only_where_nothing_else_will_do(
    recipient: str, smtputf8: bool, address: str, subject: str, needed: bool
) -> None:
    """RFC 6533 4: few can read it, so only a sender gets it who sent so, or has no ASCII address."""
    report = compose(
        facts(dataclasses.replace(BOB, address=address), recipient=recipient, smtputf8=smtputf8),
        [f"Subject: {subject}\r\n\r\n".encode()],
    )
    assert report.smtputf8 is needed
    (_, status, _) = raw_parts(report)
    assert (b"message/global-delivery-status" in status[0]) is needed
    assert (b"report-type=global-delivery-status" in report.octets) is needed
    assert needed or status[1].isascii()


def test_the_utf8_form_has_addresses_as_they_are_read() -> None:
    """RFC 6533 3, 4: utf-8-address; 5: message/global and message/global-headers."""
    piece = dataclasses.replace(
        BOB, address="bób@bücher.example", orcpt=r"utf-8;b\x{F3}b@example.net", reply="550 wer ist Bób?"
    )
    original = "Subject: Grüße\r\n\r\n".encode()
    given: dict[str, Any] = {"recipient": "älice@example.org", "smtputf8": True}
    whole = compose(facts(piece, **given), [original])
    status = raw_parts(whole)[1][1].decode("utf-8")
    assert "\r\nOriginal-Recipient: utf-8; bób@example.net\r\n" in status
    assert "\r\nFinal-Recipient: utf-8; bób@bücher.example\r\n" in status
    assert "\r\nDiagnostic-Code: smtp; 550 wer ist Bób?\r\n" in status
    assert "\r\nTo: <älice@example.org>\r\n".encode() in whole.octets
    assert b"Content-Type: message/global\r\n" in raw_parts(whole)[2][0]
    header = raw_parts(compose(facts(piece, ret="HDRS", **given), [original]))[2]
    assert b"Content-Type: message/global-headers\r\n" in header[0]
    assert header[1] == original[:-2]


@pytest.mark.parametrize(
    ("address", "written_as"),
    [
        ("bob@example.net", "rfc822; bob@example.net"),
        ('"bob smith"@example.net', 'rfc822; "bob smith"@example.net'),
        ("bób@example.net", r"utf-8; b\x{F3}b@example.net"),
        ("b+ó=@例え.example", r"utf-8; b\x{2B}\x{F3}\x{3D}@\x{4F8B}\x{3048}.example"),
    ],
)
def test_an_address_beyond_ascii_has_a_form_in_seven_bits(address: str, written_as: str) -> None:
    """RFC 6533 3: utf-8-addr-xtext."""
    assert typed(address) == written_as


@pytest.mark.parametrize(
    ("orcpt", "shown"),
    [
        (r"utf-8;b\x{F3}b@example.net", r"utf-8; b\x{F3}b@example.net"),
        (r"UTF-8;bób@example.net", r"UTF-8; b\x{F3}b@example.net"),
        ("rfc822;b+C3+B3b@example.net", "rfc822; b+C3+B3b@example.net"),
        ("rfc822;a+0D+0AX:+20y", "rfc822; a+0D+0AX:+20y"),
        ("x400;/c=de/", "x400; /c=de/"),
        (r"utf-8;a\x{0A}b", r"utf-8; a\x{5C}x{0A}b"),
    ],
)
def test_the_first_address_comes_back_in_its_own_type(orcpt: str, shown: str) -> None:
    """RFC 3461 6.3, RFC 6533 3; no control comes out of its dress."""
    assert value(groups(written(dataclasses.replace(BOB, orcpt=orcpt)))[1], "original-recipient") == shown


# For the postmaster


def test_a_copy_for_the_postmaster_has_facts_and_no_text_of_the_message() -> None:
    """He must find out what went wrong, not what people write to each other."""
    message = written(recipient="postmaster@mx.example.com", copy=True, sender="", ret="FULL")
    assert message["to"].addresses[0].addr_spec == "postmaster@mx.example.com"
    assert message["subject"].startswith("Copy for the postmaster")
    assert "nobody (the null sender)" in text(message)
    assert "Came from: client.example.org" in text(message)
    assert parts(message)[2].get_content_type() == "text/rfc822-headers"
    assert value(groups(message)[1], "action") == "failed"


# Hostile data

_anything = st.text(max_size=1_200) | st.text(alphabet="\r\n\0 <>@;:=+\\x{}é-_a", max_size=60)
_octets = st.binary(max_size=2_000) | st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b"--=_0T", b"A: b", b"\0", b"\xff", b"x" * 500, b"From "])
).map(b"".join)
_pieces = st.builds(
    Piece, address=_anything, action=st.sampled_from(ACTIONS), status=_anything, final=_anything,
    orcpt=_anything | _anything.map("utf-8;".__add__) | _anything.map("rfc822;".__add__), mta=_anything,
    reply=_anything, reason=_anything, retry_until=st.just(1.0), last_try_at=st.just(1.0),
)  # fmt: skip
_facts = st.builds(
    Facts, recipient=_anything, host=st.just("mx.example.com"), report_id=_anything, queue_id=_anything,
    at=st.just(AT), received_at=st.just(AT), sender=_anything, envid=_anything, ret=_anything,
    pieces=st.lists(_pieces, min_size=1, max_size=3).map(tuple), copy=st.booleans(), smtputf8=st.booleans(),
    client_name=_anything, most_returned_bytes=st.integers(0, 3_000),
)  # fmt: skip

OUR_FIELDS = [
    "date", "from", "to", "subject", "message-id", "in-reply-to", "references", "auto-submitted",
    "mime-version", "content-type", "content-transfer-encoding",
]  # fmt: skip
STATUS_FIELDS = {
    "original-envelope-id", "reporting-mta", "received-from-mta", "arrival-date", "original-recipient",
    "final-recipient", "action", "status", "remote-mta", "diagnostic-code", "last-attempt-date",
    "final-log-id", "will-retry-until",
}  # fmt: skip


@given(_facts, st.lists(_octets, max_size=3))
def test_nobody_writes_our_report_but_we(told: Facts, original: list[bytes]) -> None:
    """Whatever is told of a message: three parts, our fields and no others, lines that may be sent."""
    report = compose(told, original)
    lines = report.octets.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert not any(octet in line for line in lines for octet in (b"\r", b"\n", b"\0"))
    assert report.octets.isascii() or report.body == "8BITMIME"
    head, _, _ = report.octets.partition(b"\r\n\r\n")
    assert report.smtputf8 or head.isascii()
    names = [line.partition(b":")[0].decode().lower() for line in head.split(b"\r\n") if line[:1] != b"\t"]
    assert [name for name in OUR_FIELDS if name in names] == names
    _, (_, status), _ = raw_parts(report)
    assert report.smtputf8 or status.isascii()
    found = status.removesuffix(b"\r\n").split(b"\r\n\r\n")
    assert len(found) == 1 + len(told.pieces)
    for group in found:
        fields = [line.partition(b":")[0].decode() for line in group.split(b"\r\n") if line[:1] != b"\t"]
        assert STATUS_FIELDS.issuperset(name.lower() for name in fields)
        assert len(fields) == len(set(fields))
    boundary = re.search(rb'boundary="([^"]{1,70})"', head)
    assert boundary
    assert report.octets.count(b"--" + boundary[1]) == 4


@pytest.mark.parametrize("sign", ["x", "é", "\u4f8b", "\U0001f600", " y", "\r\n"])
@pytest.mark.parametrize("smtputf8", [False, True])
def test_no_length_breaks_a_line(sign: str, smtputf8: bool) -> None:
    """RFC 5322 2.1.1: 998 octets; also of letters that take ten each in seven bits."""
    long = sign * 5_000
    piece = Piece(
        address=long, action="failed", status=long, final=long, orcpt=f"utf-8;{long}", mta=long, reply=long
    )
    told = facts(piece, recipient=f"é{long}" if smtputf8 else long, envid=long, client_name=long,
                 report_id=long, queue_id=long, sender=long, smtputf8=smtputf8)  # fmt: skip
    report = compose(told, [f"Subject: {sign * 300}\r\n\r\n".encode()])
    assert max(map(len, report.octets.split(b"\r\n"))) <= 998
    assert len(report.octets) < 20_000


@given(_octets)
def test_what_comes_back_is_what_came(original: bytes) -> None:
    """Whole and unchanged, or its header."""
    returned = choose([original], ret="FULL", failed=True, most=5_000)
    assert returned.octets == (original if returned.whole else returned.header)
    assert original.startswith(returned.header)


# One of them, to look at


@pytest.mark.usefixtures("utc")
def test_the_example_is_written_to_the_letter() -> None:
    """report.eml beside this file: a failure and a delay, as a sender gets them."""
    late = Piece(
        address="carol@slow.example",
        action="delayed",
        status="4.4.1",
        mta="mx.slow.example",
        reason="connection timed out",
        last_try_at=AT - 9,
        retry_until=AT + 400_000,
    )
    assert compose(facts(BOB, late), [ORIGINAL]).octets == GOLDEN.read_bytes().replace(b"\n", b"\r\n")
