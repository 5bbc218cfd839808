"""The message reader: its end, dots, line ends, limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.smtp import replies
from forkd.smtp.data import DataReader
from forkd.smtp.events import DataChunk, DataEnd, Event, Mail, Quit
from tests.support.feed import cut, feed, in_data, kinds, message

WIRE = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b".", b"..", b"a", b"\r\n.", b"\n.\n", b"\0", b"text", b"\r\n.\r"]
    )
).map(b"".join)


def end_of(heard: list[Event]) -> DataEnd:
    """The only end among the events."""
    (end,) = (event for event in heard if isinstance(event, DataEnd))
    return end


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"hello\r\n.\r\n", b"hello\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
        (b".hidden\r\n.\r\n", b"hidden\r\n"),
        (b"a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n"),
        (b"a.\r\n. \r\n.\r\n", b"a.\r\n \r\n"),
        (b"a\r\n\r\n\r\n.\r\n", b"a\r\n\r\n\r\n"),
        (b"\xff\xfe\x80\r\n.\r\n", b"\xff\xfe\x80\r\n"),
    ],
)
def test_a_clean_message_is_unstuffed_and_nothing_else(wire: bytes, text: bytes) -> None:
    """One leading dot is removed from a line that has more; a lone dot ends the data (RFC 5321 4.5.2)."""
    heard = feed(in_data(), wire)
    assert message(heard) == text
    assert end_of(heard) == DataEnd(len(text), None)


@pytest.mark.parametrize(
    "almost",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\n.\r",
        b"\r\n.\r\r\n",
        b"\n\r.\n\r",
        b"\r\n.\0\r\n",
        b"\r\n .\r\n",
        b"\r\n. \r\n",
        b"\r\0\n.\r\n",
        b"\n\n.\r\n",
        b"\r\r.\r\n",
    ],
)
def test_only_crlf_dot_crlf_ends_the_message(almost: bytes) -> None:
    """No other sequence ends data: what follows must not be commands (RFC 5321 4.1.1.4, smuggling)."""
    smuggled = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
    heard = feed(in_data(), b"hello" + almost + smuggled)
    assert set(kinds(heard)) == {DataChunk} or heard == []
    heard = feed(in_data(), b"hello" + almost + smuggled + b"\r\n.\r\nQUIT\r\n")
    assert kinds(heard)[-2:] == [DataEnd, Quit]
    assert Mail not in kinds(heard)


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b"a\nb\r\n.\r\n", b"a\r\nb\r\n"),
        (b"a\rb\r\n.\r\n", b"a b\r\n"),
        (b"a\r\r\nb\r\n.\r\n", b"a \r\nb\r\n"),
        (b"a\n\rb\r\n.\r\n", b"a\r\n b\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\n..b\r\n.\r\n", b"a\r\n..b\r\n"),
        (b"\n\r\n.\r\n", b"\r\n\r\n"),
        (b"\r\r\n.\r\n", b" \r\n"),
    ],
)
def test_normalize_makes_bare_line_ends_harmless(wire: bytes, text: bytes) -> None:
    """A bare LF becomes CRLF, a bare CR a space; what only looked like the end stays text."""
    heard = feed(in_data(), wire)
    assert message(heard) == text
    assert end_of(heard) == DataEnd(len(text), None)


@pytest.mark.parametrize("bad", [b"a\nb", b"a\rb", b"\n", b"\r", b"a\r\r\n", b"a\n\r"])
def test_reject_refuses_bare_line_ends_at_the_end(bad: bytes) -> None:
    """wire = "reject": 550 5.6.0, after the whole message was read."""
    heard = feed(in_data(wire="reject"), bad + b"\r\n.\r\nQUIT\r\n")
    assert end_of(heard).fault is replies.BARE_LINE_END
    assert kinds(heard)[-1] is Quit


def test_reject_leaves_a_clean_message_alone() -> None:
    """CRLF alone is no fault."""
    heard = feed(in_data(wire="reject"), b"a\r\n..b\r\n\r\n.\r\n")
    assert message(heard) == b"a\r\n.b\r\n\r\n"
    assert end_of(heard).fault is None


@pytest.mark.parametrize("wire", ["normalize", "reject"])
def test_nul_is_refused_in_both_modes(wire: str) -> None:
    """A NUL is no character of a message (RFC 5321 4.5.2, RFC 5322 2.2): 550 5.6.0."""
    assert end_of(feed(in_data(wire=wire), b"a\0b\r\n.\r\n")).fault is replies.NUL_IN_MESSAGE


@pytest.mark.parametrize(("octets", "fault"), [(100, None), (101, replies.MESSAGE_TOO_BIG)])
def test_the_size_limit_is_exact_and_the_rest_is_read_as_message(octets: int, fault: object) -> None:
    """More octets than announced are 552 5.3.4, and never read as commands (RFC 1870 6.3)."""
    text = b"x" * (octets - 2) + b"\r\n"
    heard = feed(in_data(message_size=100), text + b".\r\nQUIT\r\n")
    assert end_of(heard) == DataEnd(octets, fault)  # type: ignore[arg-type]
    assert kinds(heard)[-1] is Quit


def test_stuffing_does_not_count_for_the_size() -> None:
    """The size is that of the message, not of its transfer form (RFC 1870 3)."""
    assert end_of(feed(in_data(message_size=100), b"..\r\n" * 33 + b".\r\n")) == DataEnd(99, None)


def test_nothing_is_given_beyond_the_limit() -> None:
    """Whoever stores the chunks never stores more than the limit."""
    reader = DataReader(100)
    given_out = sum(len(reader.feed(b"x" * 60)) for _ in range(1000))
    assert given_out <= 100
    assert reader.size == 60_000


def test_the_reader_holds_two_octets_at_most() -> None:
    """Memory does not grow with the message, whatever it looks like."""
    for piece in (b"\r", b"\n", b".", b"\r\n.", b"\r\n.\r", b"x" * 100):
        reader = DataReader(10)
        for _ in range(1000):
            reader.feed(piece)
            if reader.finished:
                break
            assert len(reader._held) <= 2


@given(wire=WIRE, cuts=st.lists(st.integers(0, 60)))
def test_any_cuts_give_the_same_message(wire: bytes, cuts: list[int]) -> None:
    """Octets, end, size and fault do not depend on the cuts."""
    for normalize in (True, False):
        whole = DataReader(1000, normalize=normalize)
        text = whole.feed(wire)
        reader = DataReader(1000, normalize=normalize)
        pieces, got = cut(wire, cuts), b""
        while pieces and not reader.finished:
            got += reader.feed(pieces.pop(0))
        assert reader.finished == whole.finished
        assert (reader.size, reader.fault) == (whole.size, whole.fault)
        assert reader.rest + b"".join(pieces) == whole.rest
        assert whole.fault is not None or got == text


@given(wire=WIRE, cuts=st.lists(st.integers(0, 60)))
def test_the_reader_agrees_with_the_rule_read_line_by_line(wire: bytes, cuts: list[int]) -> None:
    """The same result as a slow reader that splits at CRLF, written from RFC 5321 4.5.2 alone."""
    expected, rest = slow_reading(wire)
    reader, got, pieces = DataReader(10_000), b"", cut(wire, cuts)
    while pieces and not reader.finished:
        got += reader.feed(pieces.pop(0))
    if rest is None:
        assert not reader.finished
    else:
        assert reader.finished
        assert reader.rest + b"".join(pieces) == rest
        assert reader.size == len(expected)
        assert reader.fault is replies.NUL_IN_MESSAGE or got == expected


def slow_reading(wire: bytes) -> tuple[bytes, bytes | None]:
    """The message, normalised, and what follows its end; None: it has no end."""
    text = b""
    while b"\r\n" in wire:
        line, _, wire = wire.partition(b"\r\n")
        if line == b".":
            return text, wire
        line = line[1:] if line.startswith(b".") else line
        text += re.sub(rb"\r|\n", lambda end: b" " if end[0] == b"\r" else b"\r\n", line) + b"\r\n"
    return text, None
