"""What did the client answer to a challenge? One line of base64, or `*` (RFC 4954 4)."""

from __future__ import annotations

import binascii

from forkd.smtp import replies
from forkd.smtp.events import AuthData, Refused
from forkd.smtp.lines import AUTH_LINE_OCTETS, Input
from forkd.smtp.reply import Reply


class ResponseReader:
    """Reads the line behind a 334; nothing else is a line of the protocol then."""

    __slots__ = ()

    def next_event(self, source: Input) -> AuthData | Refused | None:
        """The response, or the refusal of what is none; None: octets are missing."""
        line = source.line(AUTH_LINE_OCTETS, command=False)
        if line is None:
            return None
        if isinstance(line, Reply):
            return Refused(line, "AUTH")
        if line == b"*":
            return AuthData(None)
        data = decode(line)
        return Refused(replies.AUTH_NOT_BASE64, "AUTH") if data is None else AuthData(data)


def decode(text: bytes) -> bytes | None:
    """The octets of a line of base64 (RFC 4648 4, padded, nothing else in it), or None where it is none."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
