"""How does an event get to systemd's journal with its fields? One datagram of `FIELD=value` lines.

The protocol is systemd's "Native Journal Protocol" (systemd.io/JOURNAL_NATIVE_PROTOCOL): names are A-Z, 0-9
and _, at most 64 octets, and one that begins with _ is the journal's own. Ours begin with FORKD_, so that
`journalctl FORKD_SESSION=...` is the story of that session and nothing else.
"""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Mapping
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "forkd"
PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3}
"""syslog(3), as sd-daemon(3) has them."""

_no_name = re.compile(r"[^A-Z0-9_]")
_MAX_NAME = 64


class NoJournalError(Exception):
    """Its text says which key asks for one, what is missing, and what would be right."""


def connect(path: str = SOCKET) -> socket.socket:
    """The way to the journal; each send is one event. Raises NoJournalError."""
    way = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        way.connect(path)
    except OSError as error:
        way.close()
        raise NoJournalError(
            f'log.format = "journal": {path}: {error.strerror}; '
            'where systemd\'s journal does not run, write "logfmt" or "json"'
        ) from error
    return way


def record(level: str, message: str, fields: Mapping[str, str]) -> bytes:
    """One datagram. Neither `message` nor a value has an end of line (logline.visible())."""
    lines = [
        f"MESSAGE={message}",
        f"PRIORITY={PRIORITIES[level]}",
        f"SYSLOG_IDENTIFIER={IDENTIFIER}",
        *(f"{_name(key)}={value}" for key, value in fields.items()),
    ]
    return "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")


@functools.cache
def _name(key: str) -> str:
    return f"FORKD_{_no_name.sub('_', key.upper())}"[:_MAX_NAME]
