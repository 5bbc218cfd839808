"""Malformed ends of data, a table of them: each in both wire modes, cut at every octet (RFC 5321 4.1.1.4)."""

from __future__ import annotations

import pytest

from forkd.smtp import replies
from forkd.smtp.events import DataEnd, Mail, Quit
from tests.support.feed import assert_same, in_data, kinds, message, pile, play

SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@test.local>\r\nDATA\r\nevil"
REAL_END = b"\r\n.\r\n"
BARE, NUL, CLEAN = replies.BARE_LINE_END, replies.NUL_IN_MESSAGE, None

ENDS = [
    # what stands between two lines, what a normalising reader makes of it, what a rejecting one says
    (b"\n.\n", b"\r\n.\r\n", BARE),
    (b"\r.\r", b" . ", BARE),
    (b"\r\n.\n", b"\r\n\r\n", BARE),
    (b"\n.\r\n", b"\r\n.\r\n", BARE),
    (b"\r\n.\r", b"\r\n ", BARE),
    (b"\r.\r\n", b" .\r\n", BARE),
    (b"\n.\r", b"\r\n. ", BARE),
    (b"\r.\n", b" .\r\n", BARE),
    (b"\r\n.\r\r\n", b"\r\n \r\n", BARE),
    (b"\r\r\n.\n", b" \r\n\r\n", BARE),
    (b"\n\r.\n\r", b"\r\n .\r\n ", BARE),
    (b"\n\n.\r\n", b"\r\n\r\n.\r\n", BARE),
    (b"\r\r.\r\n", b"  .\r\n", BARE),
    (b"\n\r\n.\n", b"\r\n\r\n\r\n", BARE),
    (b"\r\n.\n\r\n", b"\r\n\r\n\r\n", BARE),
    (b"\r\n.\r\0\n", None, NUL),
    (b"\r\n.\0\r\n", None, NUL),
    (b"\r\n\0.\r\n", None, NUL),
    (b"\r\0\n.\r\n", None, NUL),
    (b"\r\n. \r\n", b"\r\n \r\n", CLEAN),
    (b"\r\n.\t\r\n", b"\r\n\t\r\n", CLEAN),
    (b"\r\n .\r\n", b"\r\n .\r\n", CLEAN),
    (b"\r\n..\r\n", b"\r\n.\r\n", CLEAN),
    (b"\r\n...\r\n", b"\r\n..\r\n", CLEAN),
    (b"\r\n..\n", b"\r\n.\r\n", BARE),
    (b"\n..\r\n", b"\r\n..\r\n", BARE),
    (b"\r\n.x\r\n", b"\r\nx\r\n", CLEAN),
    (b"\r\n.\x0b\r\n", b"\r\n\x0b\r\n", CLEAN),
    (b"\r\n.\xc2\x85\r\n", b"\r\n\xc2\x85\r\n", CLEAN),
    (b"\xe2\x80\xa8.\xe2\x80\xa8", b"\xe2\x80\xa8.\xe2\x80\xa8", CLEAN),
]


def test_the_table_has_twenty_rows_at_least() -> None:
    """And none of them twice."""
    assert len({end for end, _, _ in ENDS}) == len(ENDS) >= 20


@pytest.mark.parametrize("wire", ["normalize", "reject"])
@pytest.mark.parametrize(("almost", "text", "rejected"), ENDS, ids=lambda value: repr(value)[:30])
def test_a_malformed_end_is_none(almost: bytes, text: bytes | None, rejected: object, wire: str) -> None:
    """Whatever looks like CRLF.CRLF and is not stays in the message; nothing behind it becomes a command."""
    speech = b"hello" + almost + SMUGGLED + REAL_END + b"QUIT\r\n"
    start = in_data(wire=wire)
    whole = play(start, [speech])
    assert Mail not in kinds(whole.events)
    *_, end, last = whole.events
    assert isinstance(end, DataEnd)
    assert isinstance(last, Quit)
    if wire == "reject":
        assert end.fault is rejected
    else:
        assert end.fault is (NUL if text is None else None)
    if end.fault is None:
        assert text is not None
        assert message(whole.events) == b"hello" + text + SMUGGLED + b"\r\n"
    for at in range(len(speech) + 1):
        pieces = [piece for piece in (speech[:at], speech[at:]) if piece]
        assert_same(play(start, pieces), whole)
        assert_same(pile(start, pieces), whole)
    by_octet = [speech[i : i + 1] for i in range(len(speech))]
    assert_same(play(start, by_octet), whole)


@pytest.mark.parametrize("wire", ["normalize", "reject"])
@pytest.mark.parametrize("almost", [end for end, _, _ in ENDS], ids=lambda value: repr(value)[:30])
def test_a_malformed_end_right_behind_354_is_none(almost: bytes, wire: str) -> None:
    """Where the CRLF of DATA is the first one of the end: only `.CRLF` is the end there."""
    start = in_data(wire=wire)
    speech = almost.removeprefix(b"\r\n") + SMUGGLED + REAL_END + b"QUIT\r\n"
    whole = play(start, [speech])
    assert kinds(whole.events)[-2:] == [DataEnd, Quit]
    assert Mail not in kinds(whole.events)
    for at in range(1, len(speech)):
        assert_same(play(start, [speech[:at], speech[at:]]), whole)
