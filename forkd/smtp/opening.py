"""Does the client begin with SMTP, or with TLS? The first two octets tell, where only SMTP may come."""

from __future__ import annotations

from typing import Final

from forkd.smtp import replies
from forkd.smtp.events import Refused
from forkd.smtp.lines import Input

TLS_RECORD: Final = b"\x16\x03"
"""How a handshake begins: the record's type, and the major version, which is 3 for ever (RFC 8446 5.1)."""


class Commands:
    """What comes is commands. The caller does not hear of it."""

    __slots__ = ()


_COMMANDS = Commands()


class OpeningReader:
    """Looks at the first octets that a client says in the clear, and takes none of them.

    A handshake has no line end but by chance, so a client that is set to implicit TLS on the wrong port
    would wait for us as we for it. Only the very first octets are looked at: later ones are a bad command.
    """

    __slots__ = ()

    def next_event(self, source: Input) -> Refused | Commands | None:
        """421 to a handshake; Commands: read on as ever; None: octets are missing."""
        begins = source.begins_with(TLS_RECORD)
        if begins is None:
            return None
        return Refused(replies.NOT_TLS) if begins else _COMMANDS


OPENING: Final = OpeningReader()
"""It remembers nothing, so one is enough."""
