"""The bytes of a spool file (queue/FORMAT.md)."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.queue import format as spool_format
from forkd.queue.format import FOOTER_BYTES, Damaged, decode_envelope, decode_footer, encode_tail
from tests.support.spooling import MAIL, an_envelope


def parse(data: bytes) -> tuple[bytes, object]:
    footer = decode_footer(data[-FOOTER_BYTES:], file_bytes=len(data))
    envelope = decode_envelope(data[-footer.tail_bytes :], footer)
    message = data[: footer.message_bytes]
    if zlib.crc32(message) != footer.message_crc:
        raise Damaged("message")
    return message, envelope


def whole(message: bytes = MAIL) -> bytes:
    tail = encode_tail(an_envelope(), message_bytes=len(message), message_crc=zlib.crc32(message))
    return message + tail


@given(st.binary(max_size=300), st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_what_was_written_is_read(message: bytes, sender: str, recipients: list[str]) -> None:
    """Round trip, whatever the octets; text that has no UTF-8 form never comes from a Mailbox."""
    envelope = an_envelope(*[r.encode("utf-8", "replace").decode() for r in recipients],
                           sender=sender.encode("utf-8", "replace").decode())  # fmt: skip
    data = message + encode_tail(envelope, message_bytes=len(message), message_crc=zlib.crc32(message))
    assert parse(data) == (message, envelope)


def test_the_footer_is_what_format_md_says() -> None:
    """FORMAT.md, table "footer": 32 octets, magic first, version 1, flags 0, lengths, two sums."""
    data = whole()
    footer = data[-32:]
    assert FOOTER_BYTES == 32
    assert footer[:12] == b"forkd\x00\xffm" + b"\x00\x01\x00\x00"
    assert int.from_bytes(footer[12:20], "big") == len(MAIL)
    envelope_bytes = int.from_bytes(footer[20:24], "big")
    assert len(MAIL) + envelope_bytes + 32 == len(data)
    assert int.from_bytes(footer[24:28], "big") == zlib.crc32(MAIL)
    assert int.from_bytes(footer[28:], "big") == zlib.crc32(data[len(MAIL) : -4])


def test_every_flipped_bit_is_seen() -> None:
    """A damaged file is never taken for a whole one."""
    data = whole()
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            parse(bytes(damaged))


def test_every_shorter_file_is_seen() -> None:
    """A file cut short anywhere is damaged, however its end looks."""
    data = whole(b"Subject: nested\r\n\r\n" + whole())
    for length in range(len(data)):
        with pytest.raises(Damaged):
            parse(data[:length])


def test_another_version_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORMAT.md: a reader refuses versions and flags that it does not know."""
    monkeypatch.setattr(spool_format, "VERSION", 2)
    data = whole()
    monkeypatch.setattr(spool_format, "VERSION", 1)
    with pytest.raises(Damaged, match="another forkd"):
        parse(data)
