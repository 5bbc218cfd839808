"""Header scanner: bounded, tolerant, lazily parsed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.sdk.headers import (
    MAX_FIELDS,
    MAX_HEADER_BYTES,
    Headers,
    decode_words,
    encoded,
    split_header,
)

MAIL = (
    b"Received: from a\r\n\tby b;\r\n Mon\r\n"
    b"Received: second\r\n"
    b"Subject : hello\r\n  world \r\n"
    b"X-Empty:\r\n"
    b"\r\n"
    b"Body: not a field\r\n"
)


def test_values_are_unfolded_and_stripped():
    """Unfolding takes the line ends away and leaves the white space (RFC 5322 2.2.3)."""
    headers = Headers(MAIL)
    assert headers.get("received") == "from a\tby b; Mon"
    assert headers.get("SUBJECT") == "hello  world"
    assert headers.get("X-Empty") == ""


def test_absent_field():
    """None or the default, and not contained."""
    headers = Headers(MAIL)
    assert headers.get("Body") is None
    assert headers.get("Body", "none") == "none"
    assert "body" not in headers
    assert "x-empty" in headers


def test_several_fields_of_one_name():
    """Top first, as trace fields are read."""
    headers = Headers(MAIL)
    assert headers.get_all("Received") == ["from a\tby b; Mon", "second"]
    assert headers.count("received") == 2
    assert list(headers) == ["Received", "Received", "Subject", "X-Empty"]
    assert len(headers) == 4


def test_raw_fields_are_the_bytes_as_they_came():
    """Joined, they are the header again."""
    headers = Headers(MAIL)
    assert (
        b"".join(octets for _, octets in headers.raw_fields())
        == headers.raw
        == MAIL[: MAIL.index(b"\r\n\r\n") + 2]
    )
    assert dict(headers.raw_fields())["Subject"] == b"Subject : hello\r\n  world \r\n"
    assert list(headers.items())[1] == ("Received", "second")


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (b"A: 1\r\n\r\nbody", b"body"),
        (b"A: 1\n\nbody", b"body"),
        (b"A: 1\n\r\nbody", b"body"),
        (b"\r\nbody", b"body"),
        (b"", b""),
        (b"A: 1", b""),
        (b"A: 1\r\n", b""),
        (b"A: 1\r\n folded", b""),
        (b"A: 1\r\n \r\n\r\nbody", b"body"),
        # No field, no continuation: the body begins there, as Postfix and Sendmail have it.
        (b"just text\r\nA: 1\r\n\r\nx", b"just text\r\nA: 1\r\n\r\nx"),
        (b"A: 1\r\ntext: no\r\nspace in: name\r\n", b"space in: name\r\n"),
        (b" folded: first\r\n", b" folded: first\r\n"),
        (b": empty\r\n", b": empty\r\n"),
        # mbox separators of old software are no fields.
        (b"From a@b Mon\r\nA: 1\r\n\r\nbody", b"body"),
        (b"A: 1\r\nFrom a@b Mon\r\n", b"From a@b Mon\r\n"),
    ],
)
def test_where_the_body_begins(message: bytes, body: bytes):
    """Behind the empty line, or before the first line that is no header line."""
    assert message[split_header(message) :] == body
    assert Headers(message).body_offset == len(message) - len(body)


def test_bytearray_is_a_message_too():
    """The worker keeps what it looks at in a bytearray."""
    assert split_header(bytearray(MAIL)) == MAIL.index(b"Body:")


def test_octets_beyond_ascii_do_no_harm():
    """UTF-8 is text; what is not becomes U+FFFD and stays exact in raw_fields."""
    headers = Headers("Subject: grüße\r\nX: ".encode() + b"\xff\r\n\r\n")
    assert headers.get("subject") == "grüße"
    assert headers.get("x") == "�"
    assert dict(headers.raw_fields())["X"] == b"X: \xff\r\n"


def test_many_fields_are_bounded():
    """Beyond MAX_FIELDS everything is body."""
    message = b"A: 1\r\n" * (MAX_FIELDS + 5) + b"\r\n"
    headers = Headers(message)
    assert len(headers) == MAX_FIELDS
    assert len(message) - headers.body_offset == 5 * 6 + 2


def test_long_header_is_bounded():
    """Beyond MAX_HEADER_BYTES everything is body."""
    message = b"A: 1\r\n" + b" x\r\n" * (MAX_HEADER_BYTES // 2)
    assert split_header(message) == MAX_HEADER_BYTES


@given(
    st.lists(
        st.sampled_from(
            [b"A", b":", b" ", b"\t", b"\r", b"\n", b"\r\n", b"\x00", b"\xff", b"From ", b"x" * 9]
        )
    )
)
def test_any_bytes_are_scanned_without_error(pieces: list[bytes]):
    """The bytes come from anybody; header and body together are the message."""
    message = b"".join(pieces)
    headers = Headers(message)
    assert 0 <= headers.body_offset <= len(message)
    assert b"".join(octets for _, octets in headers.raw_fields()) in message
    for name, value in headers.items():
        assert headers.get_all(name)
        assert "\n" not in value
        assert name.isascii()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("no words", "no words"),
        ("=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        ("=?UTF-8?B?Z3LDvMOfZQ==?=", "grüße"),
        ("=?iso-8859-1?Q?a_b=FC?= c", "a bü c"),
        ("=?us-ascii*en?Q?a?=", "a"),
        # White space between two words is not shown (RFC 2047 6.2), that beside text is.
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?q?a?=\t =?iso-8859-1?q?=FC?=", "aü"),
        ("x =?utf-8?q?a?= y", "x a y"),
        # A character cut in the middle, as some senders do.
        ("=?utf-8?b?ww==?= =?utf-8?b?vA==?=", "ü"),
        # Damaged, unknown, or no charset of mail at all: something to look at, never an exception.
        ("=?utf-8?q?=ZZ=C3?=", "=ZZ\ufffd"),
        ("=?utf-8?b?!!!?=", ""),
        ("=?x-unknown?q?a=E9?=", "aé"),
        ("=?idna?q?a?=", "a"),
        ("=?unicode_escape?q?=5Cx41?=", "\\x41"),
        ("=?zlib?q?a?=", "a"),
        ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
        ("=?utf-8?q?a", "=?utf-8?q?a"),
    ],
)
def test_encoded_words(text: str, plain: str):
    """RFC 2047, and what real mail makes of it."""
    assert decode_words(text) == plain
    assert Headers(f"Subject: {text}\r\n\r\n".encode()).decoded("subject") == plain.strip()


def test_decoded_of_an_absent_field():
    """As get()."""
    assert Headers(MAIL).decoded("x-none") is None
    assert Headers(MAIL).decoded("x-none", "none") == "none"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=200))
def test_encoded_text_comes_back(text: str):
    """encoded() is for values with more than ASCII: words of at most 75 octets, ASCII only."""
    words = encoded(text)
    if text.isascii():
        assert words == text
    else:
        assert decode_words(words) == text
        assert words.isascii()
        assert all(len(word) <= 75 for word in words.split(" "))


@given(st.text(st.sampled_from("=?utf8-BbQq_ Zz\t\n*é"), max_size=60))
def test_any_text_is_decoded_without_error(text: str):
    """It comes from anybody."""
    decode_words(text)
