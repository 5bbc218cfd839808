"""Invariant: any octets are either a spool file, which says the same when it is written anew, or Damaged.

An input is the end of a file: envelope and footer. Its checksums are made good first, or a fuzzer would
never get past them; the same for a line of a state file.
"""

from __future__ import annotations

import zlib

from forkd.queue import format, state
from forkd.queue.format import FOOTER_BYTES, Damaged

_MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


def one_input(data: bytes) -> None:
    """Read one file's end; raises where the invariant does not hold."""
    _read(data)
    _read(mended(data))
    body = data.replace(b"\n", b"")
    state.decode(data)
    state.decode(b"%08x %b\n" % (zlib.crc32(body), body))


def mended(envelope: bytes) -> bytes:
    """A whole file's end around these octets as its envelope."""
    head = format._UNSUMMED.pack(
        format.MAGIC, format.VERSION, 0, len(_MESSAGE), len(envelope), zlib.crc32(_MESSAGE)
    )
    return envelope + head + zlib.crc32(head, zlib.crc32(envelope)).to_bytes(4, "big")


def _read(tail: bytes) -> None:
    try:
        footer = format.decode_footer(tail[-FOOTER_BYTES:], file_bytes=len(_MESSAGE) + len(tail))
        envelope = format.decode_envelope(tail[-footer.tail_bytes :], footer)
    except Damaged:
        return
    again = format.encode_tail(envelope, message_bytes=footer.message_bytes, message_crc=footer.message_crc)
    known = format.decode_footer(again[-FOOTER_BYTES:], file_bytes=footer.message_bytes + len(again))
    assert format.decode_envelope(again, known) == envelope
