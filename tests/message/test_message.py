"""Header text on its way through (forkd/message)."""

from __future__ import annotations

import re
import time
from email import message_from_string, utils
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.message import header, trace
from forkd.message.edits import LineEnd, field, stream
from forkd.queue.envelope import Edit


def a_trace(**given: str) -> str:
    facts = {
        "helo": "client.example.org", "client_ip": "192.0.2.1", "host": "mx.example.com", "protocol": "ESMTP",
        "queue_id": "ID1", **given,
    }  # fmt: skip
    return trace.received(at=1_700_000_000.9, **facts)  # type: ignore[arg-type]


def test_received_has_the_clauses_of_the_standard() -> None:
    """RFC 5321 4.4: from, by, with, id, for, date."""
    text = a_trace(client_name="rdns.example.org", recipient="a@test.local")
    assert text.startswith(
        "Received: from client.example.org (rdns.example.org [192.0.2.1])\r\n\tby mx.example.com"
    )
    value = message_from_string(text + "\r\n", policy=SMTP)["received"]
    assert "with ESMTP id ID1 for <a@test.local>;" in " ".join(value.split())
    assert utils.parsedate_to_datetime(value.rpartition(";")[2].strip()).timestamp() == 1_700_000_000


def test_received_names_no_recipient_when_none_is_given() -> None:
    """With several recipients the field must not tell one of another (RFC 5321 7.2)."""
    assert "for <" not in a_trace()


def test_an_ipv6_client_is_an_address_literal() -> None:
    """RFC 5321 4.1.3."""
    assert "([IPv6:2001:db8::1])" in a_trace(client_ip="2001:db8::1")


@given(st.text(min_size=1, max_size=400))
def test_a_client_cannot_write_our_trace_field(helo: str) -> None:
    """Whatever HELO says, it is one field, its lines are folds, comments and controls stay out."""
    text = a_trace(helo=helo, client_name=helo, recipient="a@test.local")
    assert text.endswith("\r\n")
    lines = text[:-2].split("\r\n")
    assert len(lines) == 4
    assert all(line.startswith("\t") and "\n" not in line and "\r" not in line for line in lines[1:])
    assert text.count("(") == 2
    assert max(len(line) for line in lines) < 998


def test_the_date_is_local_time_with_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5322 3.3, also west of Greenwich and with half hours."""
    for zone in ("UTC", "America/St_Johns", "Asia/Kolkata"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        monkeypatch.setattr(trace, "_cached", (-1, ""))
        assert utils.parsedate_to_datetime(trace.date(1_700_000_000)).timestamp() == 1_700_000_000
    monkeypatch.delenv("TZ")
    time.tzset()


def test_hops_are_received_fields_not_words() -> None:
    """RFC 5321 6.3: names in any case; folds and other fields do not count."""
    text = b"Received: a\r\n\tReceived: fold\r\nRECEIVED : b\r\nX-Received: c\r\n"
    text += b"received:d\r\nSubject: Received: e\r\n"
    assert trace.count_received(text) == 3


def test_fields_are_found_unfolded_and_in_order() -> None:
    """RFC 5322 2.2; the body is not looked at."""
    text = b"To: a\r\nX: one\r\n two\r\nTo :b\r\n\r\nTo: body\r\n"
    assert list(header.fields(text)) == [(b"to", b"a"), (b"x", b"one two"), (b"to", b"b")]
    assert header.values(text, b"to") == [b"a", b"b"]


@given(
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\r\n.\r\n", b"\xff\x00"]), max_size=30),
    st.data(),
)
def test_lf_does_not_depend_on_where_the_pieces_end(parts: list[bytes], data: st.DataObject) -> None:
    """Converted in any pieces, the message comes out as converted whole; in CRLF it is untouched."""
    message = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=6)))
    pieces = [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
    assert b"".join(stream(pieces, "", line_end=LineEnd.LF)) == message.replace(b"\r\n", b"\n")
    assert b"".join(stream(pieces, "", line_end=LineEnd.CRLF)) == message


def test_fields_go_on_top_in_their_order() -> None:
    """RFC 5321 4.4: Return-Path above all; plugins' fields below our trace; the message last."""
    edits = (Edit(op="add_header", name="X-A", value="1"), Edit(op="add_header", name="X-B", value="é"))
    out = b"".join(
        stream([b"To: a\r\n\r\n"], "Received: x\r\n", edits, line_end=LineEnd.LF, top="Return-Path: <>\r\n")
    )
    assert out == "Return-Path: <>\nReceived: x\nX-A: 1\nX-B: é\nTo: a\n\n".encode()


@given(st.text(), st.text())
def test_an_edit_is_one_field_whatever_it_holds(name: str, value: str) -> None:
    """A plugin's line end must not make a second field or end the header."""
    text = field(name, value)
    lines = re.split(r"\r\n|\r|\n", text)
    assert lines.pop() == ""
    assert ": " in lines[0]
    assert all(line[0] in " \t" and line.strip(" \t") for line in lines[1:])
    assert "\0" not in text
