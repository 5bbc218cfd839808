"""Replies on the wire."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.smtp import replies
from forkd.smtp.reply import MAX_LINE_OCTETS, Reply, reply


def test_one_line() -> None:
    """Code, enhanced code, text, CRLF (RFC 5321 4.2, RFC 2034 4)."""
    assert reply(250, "2.1.0", "ok").encode() == b"250 2.1.0 ok\r\n"
    assert reply(354, None, "go").encode() == b"354 go\r\n"


def test_many_lines() -> None:
    """A hyphen on all but the last, the enhanced code on each (RFC 5321 4.2.1, RFC 2034 4)."""
    assert reply(550, "5.7.1", "a", "b").encode() == b"550-5.7.1 a\r\n550 5.7.1 b\r\n"


@pytest.mark.parametrize("text", ["a\r\n250 ok", "a\nb", "a\0b", "é", "\x7f", "a\tb", "\udc80"])
def test_a_text_cannot_leave_its_line(text: str) -> None:
    """Whatever is not printable ASCII becomes a question mark: no reply can be split."""
    wire = reply(550, None, text).encode()
    assert wire.count(b"\r\n") == 1
    assert re.fullmatch(rb"550 [\x20-\x7e]*\r\n", wire)


@given(st.lists(st.text(), min_size=1, max_size=3), st.sampled_from([None, "5.7.1", "5.123.456"]))
def test_any_text_makes_valid_lines(texts: list[str], enhanced: str | None) -> None:
    """Printable ASCII, 512 octets a line at most (RFC 5321 4.5.3.1.5), one last line."""
    lines = Reply(550, enhanced, tuple(text * 40 for text in texts)).encode().split(b"\r\n")
    assert lines.pop() == b""
    assert all(len(line) + 2 <= MAX_LINE_OCTETS for line in lines)
    assert all(re.match(rb"550-[\x20-\x7e]*$", line) for line in lines[:-1])
    assert re.match(rb"550 [\x20-\x7e]*$", lines[-1])


@pytest.mark.parametrize(
    ("code", "enhanced"),
    [(199, None), (600, None), (250, "5.0.0"), (550, "5.0"), (250, "2.0.0\r\n"), (250, "")],
)
def test_a_reply_that_cannot_be_is_an_error(code: int, enhanced: str | None) -> None:
    """The class of the enhanced code is that of the code (RFC 2034 4)."""
    with pytest.raises(ValueError, match="code"):
        Reply(code, enhanced, ("text",))


def test_a_reply_needs_text() -> None:
    """There is always a last line."""
    with pytest.raises(ValueError, match="line"):
        Reply(250, None, ())


def test_encoding_leaves_the_value_equal() -> None:
    """The kept octets are no part of the value."""
    one, other = reply(250, None, "ok"), reply(250, None, "ok")
    one.encode()
    assert one == other
    assert hash(one) == hash(other)


def test_stock_replies_have_the_codes_their_standards_ask_for() -> None:
    """Enhanced codes but for 354 and EHLO (RFC 2034 4); 421 always closes (RFC 5321 3.8)."""
    table = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}
    assert {name for name, value in table.items() if value.enhanced is None} == {"START_DATA", "BAD_HELO"}
    assert all(value.close for value in table.values() if value.code == 421)
    closing = {value.code for value in table.values() if value.close}
    assert closing == {221, 421, 552, 554}


def test_a_challenge_is_one_line_however_long() -> None:
    """RFC 4954 4: base64 behind 334, up to 12,288 octets, which no fold may cut."""
    assert replies.challenge(b"").encode() == b"334 \r\n"
    assert replies.challenge(b"Username:").encode() == b"334 VXNlcm5hbWU6\r\n"
    assert replies.challenge(b"x" * 6000).encode().count(b"\r\n") == 1


def test_queued_names_the_id() -> None:
    """The client can quote the id that our log has."""
    assert replies.queued("ABC123").encode() == b"250 2.0.0 Ok: queued as ABC123\r\n"


@pytest.mark.parametrize("text", ["a\r\n250 ok", "a\nb", "\0", "\x7f", "\x85", "\u2028", "\u202e", "\udc80"])
def test_utf8_cannot_leave_its_line_either(text: str) -> None:
    """To a client that reads UTF-8 (RFC 6531 3.7.4) what is not printable is a question mark all the same."""
    wire = reply(550, "5.1.1", f"größer{text}").encode(smtputf8=True)
    assert wire.startswith("550 5.1.1 größer".encode())
    assert wire.endswith(b"\r\n")
    assert "?" in wire.decode()
    assert wire.decode()[:-2].isprintable()


def test_utf8_is_for_who_reads_it() -> None:
    """One value serves both, in whichever order."""
    said = reply(550, "5.1.1", "Empfänger unbekannt")
    for _ in range(2):
        assert said.encode() == b"550 5.1.1 Empf?nger unbekannt\r\n"
        assert said.encode(smtputf8=True) == "550 5.1.1 Empfänger unbekannt\r\n".encode()


@given(st.text(min_size=1), st.sampled_from([None, "5.7.1"]))
def test_lines_of_utf8_are_cut_between_characters(text: str, enhanced: str | None) -> None:
    """512 octets a line at most, each line UTF-8 of its own."""
    lines = Reply(550, enhanced, (f"ü{text}" * 60,)).encode(smtputf8=True).split(b"\r\n")
    assert lines.pop() == b""
    assert all(len(line) + 2 <= MAX_LINE_OCTETS for line in lines)
    assert all(line.decode().isprintable() for line in lines)
    assert all(line.startswith(b"550-") for line in lines[:-1])
    assert lines[-1].startswith(b"550 ")
