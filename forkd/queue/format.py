"""What are the bytes of a spool file? Message, envelope, footer (FORMAT.md); pure."""

from __future__ import annotations

import dataclasses
import struct
import zlib

import msgspec

from forkd.queue.envelope import Envelope

MAGIC = b"forkd\x00\xffm"
"""NUL and 0xFF: no mail, no text file ends in it."""
VERSION = 1

REPLACED = 1
"""Flag: the body is another one than the client's (Envelope.replaced)."""
HELD = 2
"""Flag: quarantined (Envelope.hold). Flags are for a forkd that does not know them: it refuses the file
instead of delivering what must not be delivered so."""

_FOOTER = struct.Struct(">8sHHQIII")
"""magic, version, flags, message octets, envelope octets, message CRC, CRC of the rest so far."""
_UNSUMMED = struct.Struct(">8sHHQII")
FOOTER_BYTES = _FOOTER.size

MAX_ENVELOPE_BYTES = 16 << 20
"""Bounds what a damaged footer can make us read: 1,000 recipients take below 400 KiB."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


class Damaged(Exception):  # noqa: N818 - a state of the world
    """These bytes are not a whole spool file: recovery moves it to bad/, a delivery is abandoned."""


@dataclasses.dataclass(frozen=True, slots=True)
class Footer:
    """Where the parts are, and their checksums."""

    message_bytes: int
    envelope_bytes: int
    message_crc: int
    envelope_crc: int

    @property
    def tail_bytes(self) -> int:
        """Envelope and footer together: what stands behind the message."""
        return self.envelope_bytes + FOOTER_BYTES


def encode_tail(envelope: Envelope, *, message_bytes: int, message_crc: int) -> bytes:
    """Envelope and footer, to be written behind octets of that length and CRC-32 (zlib)."""
    body = _encoder.encode(envelope)
    flags = (REPLACED if envelope.replaced is not None else 0) | (HELD if envelope.hold else 0)
    head = _UNSUMMED.pack(MAGIC, VERSION, flags, message_bytes, len(body), message_crc)
    return b"%b%b%b" % (body, head, zlib.crc32(head, zlib.crc32(body)).to_bytes(4, "big"))


def decode_footer(last: bytes, *, file_bytes: int) -> Footer:
    """Read a footer from the last octets of a file of that length. Raises Damaged.

    Only plausible until decode_envelope() has compared the sum over it.
    """
    if len(last) < FOOTER_BYTES:
        raise Damaged(f"{file_bytes} octets are too few")
    magic, version, flags, message_bytes, envelope_bytes, message_crc, envelope_crc = _FOOTER.unpack_from(
        last, len(last) - FOOTER_BYTES
    )
    if magic != MAGIC:
        raise Damaged("no footer")
    if version != VERSION or flags & ~(REPLACED | HELD):
        raise Damaged(f"version {version}, flags {flags:#x}: written by another forkd")
    if envelope_bytes > MAX_ENVELOPE_BYTES or message_bytes + envelope_bytes + FOOTER_BYTES != file_bytes:
        raise Damaged("lengths do not fit the file's")
    return Footer(message_bytes, envelope_bytes, message_crc, envelope_crc)


def decode_envelope(tail: bytes | memoryview, footer: Footer) -> Envelope:
    """The envelope from the last `footer.tail_bytes` of the file. Raises Damaged."""
    if zlib.crc32(tail[:-4]) != footer.envelope_crc:
        raise Damaged("envelope and footer do not match their checksum")
    try:
        envelope = _decoder.decode(tail[: footer.envelope_bytes])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"envelope: {error}") from error
    replaced = envelope.replaced
    if replaced is not None and not (
        0 <= replaced.kept <= footer.message_bytes
        and 0 <= replaced.offset <= replaced.offset + replaced.octets <= footer.message_bytes
    ):
        raise Damaged("the replaced body lies outside of the file")
    return envelope
