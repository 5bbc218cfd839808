"""Which octets may a message have? Line ends, NUL and size, judged while it streams by (RFC 5321 2.3.8)."""

from __future__ import annotations

from forkd.smtp import replies
from forkd.smtp.reply import Reply


class Content:
    """What is common to all ways a message can come in. Bare line ends are

    normalize   made text: LF becomes CRLF and CR a space, as Postfix does.
    reject      kept and remembered as a fault.

    A NUL is a fault in both, and so are more octets than `limit`. After a fault judge() gives nothing
    more, but the message is still read to its end: never an octet of it becomes a command.
    """

    __slots__ = ("_bare", "_limit", "_normalize", "_nul", "size")

    def __init__(self, limit: int, *, normalize: bool) -> None:
        self._limit = limit
        self._normalize = normalize
        self._bare = False
        self._nul = False
        self.size = 0
        """Octets of the message so far: as read, normalised; also those beyond a fault."""

    @property
    def fault(self) -> Reply | None:
        """What the message earned by its octets; which one, of several, does not depend on the cuts."""
        if self.size > self._limit:
            return replies.MESSAGE_TOO_BIG
        if self._nul:
            return replies.NUL_IN_MESSAGE
        return replies.BARE_LINE_END if self._bare and not self._normalize else None

    def judge(self, block: bytes) -> bytes:
        """Look for NUL and bare line ends, count, and give what is still wanted of the block.

        `block` must not end in a CR that is half of a CRLF. Cost: a replacement and three memchr, with
        no Python loop, whatever stands in it (counting line ends one by one takes three times that).
        """
        if b"\0" in block:
            self._nul = True
        between = block.replace(b"\r\n", b"")
        if b"\n" in between or b"\r" in between:
            self._bare = True
            if self._normalize:
                block = block.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        self.size += len(block)
        if self.size > self._limit or self._nul or (self._bare and not self._normalize):
            return b""
        return block
