"""How does a plugin's new body, or whole message, come in? In pieces, made text as the client's was."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from forkd.rpc.calls import CallFailed
from forkd.smtp.content import Content


class Body(Content):
    """What replaces the message's own body, or all of it, on its way into the spool file.

    A plugin's octets are no better than a client's, so they are judged as a client's are under wire =
    "normalize": LF becomes CRLF, a CR that is none of CRLF a space, NUL is refused; a last line without
    an end gets one. It counts only once finish() has returned.

    keep    takes the octets as they will lie in the file
    offset  where the first of them will lie
    kept    octets at the message's beginning, as the client sent them, that stay before it: the header
    lead    octets in front that are no part of what a plugin gave: the empty line, where the header has none;
            or a header, where it is not the client's any more
    limit   octets that the plugin may give
    head    how much is remembered of its beginning, for who looks at the header; 0 where that is kept
    done    told by finish()
    """

    __slots__ = (
        "_done",
        "_ends_line",
        "_held",
        "_keep",
        "_most",
        "ascii",
        "crc",
        "head",
        "kept",
        "lead",
        "octets",
        "offset",
    )

    def __init__(
        self,
        keep: Callable[[bytes], None],
        *,
        offset: int,
        lead: bytes,
        limit: int,
        done: Callable[[Body], None],
        kept: int = 0,
        head: int = 0,
    ) -> None:
        super().__init__(limit, normalize=True)
        self._keep = keep
        self._done = done
        self._held = b""
        """A CR that only the next piece explains."""
        self._ends_line = True
        self._most = head
        self.head = bytearray()
        """Its first octets, with `lead`; empty where the client's header is kept."""
        self.offset = offset
        self.kept = kept
        self.octets = 0
        """So far, with `lead`: what lies in the file from `offset` on."""
        self.crc = 0
        self.ascii = True
        self.lead = len(lead)
        if lead:
            self._put(lead)

    def write(self, piece: bytes) -> None:
        """Take the next piece; borders mean nothing.

        Raises CallFailed (`protocol`: the plugin's on_failure decides) for a NUL and past the limit. A
        disk that refuses is remembered and refuses the message at its commit.
        """
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece[-1:] == b"\r":
            self._held = b"\r"
            piece = piece[:-1]
        if piece:
            self._ends_line = piece[-1:] == b"\n"
            self._take(piece)

    def finish(self) -> None:
        """The body is whole, and from now on it is the message's. Raises CallFailed, as write()."""
        if self._held or not self._ends_line:
            if self._held:
                self._take(self._held)
            self._take(b"\r\n")
        self._done(self)

    def _take(self, octets: bytes) -> None:
        octets = self.judge(octets)
        fault = self.fault
        if fault is not None:
            raise CallFailed("protocol", f"what it would put in its place: {fault.lines[0]}")
        self._put(octets)

    def _put(self, octets: bytes) -> None:
        self.ascii = self.ascii and octets.isascii()
        if len(self.head) < self._most:
            self.head += octets[: self._most - len(self.head)]
        self.crc = zlib.crc32(octets, self.crc)
        self.octets += len(octets)
        self._keep(octets)
