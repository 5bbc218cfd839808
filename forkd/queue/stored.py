"""How is a committed message read? In one read while it is small, as a checked stream when it is not."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import msgspec

from forkd.fs import REAL, Fs
from forkd.queue.envelope import Envelope
from forkd.queue.format import Damaged, Footer, decode_envelope, decode_footer
from forkd.queue.ids import QueueId

WHOLE_BYTES = 64 * 1024
"""Files up to this are read whole by load(); of larger ones only so much, from the end."""

PIECE_BYTES = 256 * 1024


class Emptied(FileNotFoundError):  # noqa: N818
    """The file is there and empty: delivered and on its way to free/ (recycle.py) when we were cut off.

    With durability "fsync" it can be nothing else, since a name in new/ never precedes its bytes.
    """


class StoredMessage:
    """One committed message: its envelope at once, its octets as a stream. Immutable, as the file is.

    May be streamed any number of times, also after its file was removed only if it was small.
    """

    __slots__ = ("_data", "_footer", "_fs", "envelope", "id", "path")

    def __init__(
        self, queue_id: QueueId, path: str, *, envelope: Envelope, footer: Footer, data: bytes | None, fs: Fs
    ) -> None:
        self.id = queue_id
        self.path = path
        self.envelope = envelope
        self._footer = footer
        self._data = data
        self._fs = fs

    @property
    def size(self) -> int:
        """Octets of the message, header and body, with CRLF; of a replaced body the new one's."""
        replaced = self.envelope.replaced
        return self._footer.message_bytes if replaced is None else replaced.kept + replaced.octets

    @property
    def in_memory(self) -> bool:
        """The whole message is here already: chunks() is checked and touches no file."""
        return self._data is not None

    def sent_by(self, sender: str) -> StoredMessage:
        """The same message as members of a list get it: from its owner, and without what the sender of the
        message wants to hear of it (Recipient.sender)."""
        envelope = msgspec.structs.replace(self.envelope, sender=sender, envid="", ret="")
        return StoredMessage(
            self.id, self.path, envelope=envelope, footer=self._footer, data=self._data, fs=self._fs
        )

    def chunks(self) -> Iterator[bytes]:
        """The message's octets in pieces of at most PIECE_BYTES (small ones in one or two).

        The header is the client's, without edits; the body is the one it has now. Whoever delivers must
        not commit before the iterator has ended: only then is the checksum compared. Raises Damaged (the
        file is to go to bad/), OSError.
        """
        data, replaced, footer = self._data, self.envelope.replaced, self._footer
        if data is not None:
            if replaced is None:
                yield data
            else:
                yield data[: replaced.kept]
                yield data[replaced.offset : replaced.offset + replaced.octets]
            return
        fd = self._fs.open(self.path)
        try:
            if replaced is None:
                yield from self._checked(fd, 0, footer.message_bytes, footer.message_crc)
            else:
                yield from self._checked(fd, 0, replaced.kept, replaced.kept_crc)
                yield from self._checked(fd, replaced.offset, replaced.octets, replaced.crc)
        finally:
            self._fs.close(fd)

    def _checked(self, fd: int, start: int, octets: int, wanted: int) -> Iterator[bytes]:
        offset, end, crc = start, start + octets, 0
        while offset < end:
            piece = self._fs.read(fd, min(PIECE_BYTES, end - offset), offset)
            if not piece:
                raise Damaged("file became shorter")
            offset += len(piece)
            crc = zlib.crc32(piece, crc)
            yield piece
        if crc != wanted:
            raise Damaged("message does not match its checksum")


def load(path: str, queue_id: QueueId, *, whole: int = WHOLE_BYTES, fs: Fs = REAL) -> StoredMessage:
    """Open, check and understand a spool file.

    A small one, up to `whole` octets, is read and checked whole, four system calls; of a large one the
    envelope, and the message's sum is compared by whoever streams it.
    Raises Damaged; FileNotFoundError when it is delivered or removed (Emptied: the file is still there);
    OSError.
    """
    fd = fs.open(path)
    try:
        size = fs.size(fd)
        if size == 0:
            raise Emptied(path)
        tail = fs.read(fd, min(size, whole), max(0, size - whole))
        footer = decode_footer(tail, file_bytes=size)
        if footer.tail_bytes > len(tail):
            tail = fs.read(fd, footer.tail_bytes, footer.message_bytes)
    finally:
        fs.close(fd)
    envelope = decode_envelope(tail[-footer.tail_bytes :], footer)
    data = None
    if len(tail) == size:
        data = tail[: footer.message_bytes]
        if zlib.crc32(data) != footer.message_crc:
            raise Damaged("message does not match its checksum")
    return StoredMessage(queue_id, path, envelope=envelope, footer=footer, data=data, fs=fs)
