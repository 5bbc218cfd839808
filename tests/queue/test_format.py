"""The bytes of a spool file (queue/FORMAT.md)."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkd.queue import format as spool_format
from forkd.queue.envelope import Edit, Envelope, Recipient, Replaced
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


@pytest.mark.parametrize(("fields", "flags"), [
    ({}, 0),
    ({"hold": "virus"}, 2),
    ({"replaced": Replaced(kept=1, kept_crc=0, offset=2, octets=3, crc=0)}, 1),
])  # fmt: skip
def test_what_must_not_be_delivered_as_it_came_is_flagged(fields: dict[str, Any], flags: int) -> None:
    """FORMAT.md: a forkd that does not know quarantine or replaced bodies refuses such a file."""
    tail = encode_tail(an_envelope(**fields), message_bytes=len(MAIL), message_crc=zlib.crc32(MAIL))
    assert int.from_bytes(tail[-FOOTER_BYTES + 10 : -FOOTER_BYTES + 12], "big") == flags
    assert parse(MAIL + tail) == (MAIL, an_envelope(**fields))


@pytest.mark.parametrize("field", ["kept", "offset", "octets"])
@pytest.mark.parametrize("value", [-1, len(MAIL) + 1])
def test_a_replaced_body_outside_of_the_file_is_damage(field: str, value: int) -> None:
    """Workers write envelopes, and qmgr does not trust them."""
    facts = {"kept": 1, "kept_crc": 0, "offset": 2, "octets": 3, "crc": 0, field: value}
    tail = encode_tail(
        an_envelope(replaced=Replaced(**facts)), message_bytes=len(MAIL), message_crc=zlib.crc32(MAIL)
    )
    with pytest.raises(Damaged, match="outside"):
        parse(MAIL + tail)


def test_an_envelope_of_the_first_version_is_read() -> None:
    """Fields that came later have defaults: mail that waits survives an upgrade."""
    body = b'{"session":"S","received_at":1.0,"sender":"","recipients":[{"address":"a@b"}],'
    body += b'"edits":[{"op":"add_header","name":"X","value":"y"}]}'
    head = b"forkd\x00\xffm" + struct.pack(">HHQII", 1, 0, 0, len(body), 0)
    _, envelope = parse(body + head + zlib.crc32(head, zlib.crc32(body)).to_bytes(4, "big"))
    assert envelope == Envelope(
        session="S", received_at=1.0, sender="", recipients=(Recipient(address="a@b"),),
        edits=(Edit(op="add_header", name="X", value="y"),),
    )  # fmt: skip


def test_another_version_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORMAT.md: a reader refuses versions and flags that it does not know."""
    monkeypatch.setattr(spool_format, "VERSION", 2)
    data = whole()
    monkeypatch.setattr(spool_format, "VERSION", 1)
    with pytest.raises(Damaged, match="another forkd"):
        parse(data)
