"""Which octets came, and where does a command line end? (RFC 5321 2.3.8, 4.5.3.1.4)"""

from __future__ import annotations

from typing import Final

from forkd.smtp import replies
from forkd.smtp.reply import Reply

MAX_SKIPPED_OCTETS: Final = 65_536
"""How much of a refused line we read over while waiting for its CRLF, before 421."""
AUTH_LINE_OCTETS: Final = 12_288
"""The longest line of an authentication exchange, the AUTH command included (RFC 4954 4)."""
_CR: Final = 0x0D


class Input:
    """The octets that came and that no event has told of yet; cuts lines and blocks from them.

    `long_auth`: a line that begins with AUTH may have AUTH_LINE_OCTETS; else it is as any other.
    """

    __slots__ = ("_buffer", "_late", "_long_auth", "_skipped", "_start", "eof")

    def __init__(self, *, long_auth: bool = False) -> None:
        self._long_auth = long_auth
        # Unread octets are _buffer[_start:] and then _late. Pipelined commands are cut from one bytes
        # object without moving it; what arrives meanwhile is joined only when it is looked at, so that
        # many small pieces cost no more than one large one.
        self._buffer = b""
        self._start = 0
        self._late: list[bytes] = []
        self._skipped = -1
        """Octets read over of a refused line whose CRLF has not come; -1: not in such a line."""
        self.eof = False
        """The peer sends no more."""

    def receive(self, data: bytes) -> None:
        """Take what the peer sent; b"" says that it sends no more."""
        if not data:
            self.eof = True
        elif self._start == len(self._buffer) and not self._late:
            self._buffer = data
            self._start = 0
        else:
            self._late.append(data)

    def __bool__(self) -> bool:
        """Octets are there."""
        return self._start < len(self._buffer) or bool(self._late)

    def begins_with(self, octets: bytes) -> bool | None:
        """These are the first; None: they may be, but some have not come yet. Nothing is taken."""
        if self._late:
            self._join()
        first = self._buffer[self._start : self._start + len(octets)]
        if len(first) < len(octets) and octets.startswith(first):
            return None
        return first == octets

    def clear(self) -> None:
        """Forget all of it."""
        self._buffer = b""
        self._start = 0
        self._late.clear()
        self._skipped = -1

    # --- blocks ---------------------------------------------------------------------------------------

    def take(self, most: int | None = None) -> bytes:
        """All octets that are there, or the first `most` of them; may be empty."""
        if self._late:
            self._join()
        start = self._start
        if most is not None and most < len(self._buffer) - start:
            self._start = start + most
            return self._buffer[start : self._start]
        block = self._buffer[start:]
        self._buffer = b""
        self._start = 0
        return block

    def give_back(self, rest: bytes) -> None:
        """Of what take() just gave without `most`: the end that was not wanted."""
        self._buffer = rest

    def _join(self) -> None:
        self._buffer = self._buffer[self._start :] + b"".join(self._late)
        self._start = 0
        self._late.clear()

    # --- lines ----------------------------------------------------------------------------------------

    def line(self, limit: int, *, command: bool = True) -> bytes | Reply | None:
        """The next line without its CRLF, or the refusal of what is none; None: octets are missing.

        limit    of octets, with CRLF.
        command  false: it answers a challenge of an authentication exchange.

        A line that is refused still goes on to its CRLF: what stands in it is never a command. It is
        refused at once all the same, so that somebody who types into nc sees why.
        """
        if self._late:
            self._join()
        if self._skipped >= 0 and (reply := self._skip()) is not None:
            return reply
        buffer, start = self._buffer, self._start
        if start == len(buffer):
            return None
        # The first LF ends the line one way or the other, so a line looks the same however it is cut.
        end = buffer.find(b"\n", start, start + limit)
        if end <= start or buffer[end - 1] != _CR:
            return self._odd_line(end, limit, command=command)
        self._start = end + 1
        return buffer[start : end - 1]

    def _odd_line(self, end: int, limit: int, *, command: bool) -> bytes | Reply | None:
        """No good line: part of one, one that is too long, or one with a bare LF at `end`."""
        buffer, start = self._buffer, self._start
        if end < 0:
            if len(buffer) - start < limit:
                return None
            reply = replies.LINE_TOO_LONG if command else replies.AUTH_LINE_TOO_LONG
            if command and self._long_auth and buffer[start : start + 5].upper() == b"AUTH ":
                if limit < AUTH_LINE_OCTETS:
                    return self.line(AUTH_LINE_OCTETS)
                reply = replies.AUTH_LINE_TOO_LONG
        else:
            reply = replies.LINE_END
        # Behind a BDAT that cannot be read stand octets of a message, nobody knows how many.
        if command and buffer[start : start + 4].upper() == b"BDAT":
            return replies.CHUNK_LOST
        if end >= 0:
            self._start = end + 1
        self._skipped = 0
        return reply

    def _skip(self) -> Reply | None:
        """Read over the rest of a refused line; a reply only if that has no end."""
        buffer, start = self._buffer, self._start
        end = buffer.find(b"\r\n", start)
        if end >= 0:
            skipped = self._skipped + end - start
            self._start = end + 2
            self._skipped = -1
        else:
            # A CR at the end may be half of what we look for.
            self._start = len(buffer) - buffer.endswith(b"\r", start)
            skipped = self._skipped = self._skipped + self._start - start
        return replies.ENDLESS_LINE if skipped > MAX_SKIPPED_OCTETS else None
