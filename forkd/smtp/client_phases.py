"""What does a client wait for, and how long must it be ready to? (RFC 5321 4.5.3.2)"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Mapping
from typing import Final

from forkd.smtp import grammar

_MINUTE: Final = 60
CHUNK_OCTETS: Final = 262_144
"""Of one BDAT: so large that its line and its reply cost nothing, so small that it can be held."""


class Phase(enum.Enum):
    """What the connection waits for now; also, at which step a recipient's fate was decided."""

    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "starttls"
    TLS = "tls"
    """The handshake: the caller's."""
    AUTH = "auth"
    IDLE = "idle"
    """Nothing: the next step is the caller's."""
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    """354."""
    BODY = "body"
    """The message goes out: the wait is for room to write. No reply is due."""
    CHUNK = "chunk"
    """A chunk's reply; no more may go out before it."""
    END = "end"
    """The reply that decides: to the final dot, or to the last chunk."""
    QUIT = "quit"
    CLOSED = "closed"


TIMEOUT_S: Final[Mapping[Phase, int]] = {
    Phase.GREETING: 5 * _MINUTE,  # RFC 5321 4.5.3.2.1
    Phase.HELLO: 5 * _MINUTE,  # none is named: as the command that follows it
    Phase.STARTTLS: 5 * _MINUTE,
    Phase.TLS: 5 * _MINUTE,
    Phase.AUTH: 5 * _MINUTE,
    Phase.RSET: 5 * _MINUTE,
    Phase.MAIL: 5 * _MINUTE,  # 4.5.3.2.2
    Phase.RCPT: 5 * _MINUTE,  # 4.5.3.2.3
    Phase.DATA: 2 * _MINUTE,  # 4.5.3.2.4
    Phase.BODY: 3 * _MINUTE,  # 4.5.3.2.5, for each block
    Phase.CHUNK: 3 * _MINUTE,
    Phase.END: 10 * _MINUTE,  # 4.5.3.2.6: shorter ones make duplicates
    Phase.QUIT: _MINUTE // 2,  # nothing hangs on it
}
"""The least a client should wait, for each reply or block. IDLE and CLOSED wait for nothing."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """The settings of ClientConnection; one value serves all connections of a transport.

    Raises ValueError for what cannot be meant.
    """

    hostname: str
    """Whom EHLO names: a host name, or an address literal."""
    lmtp: bool = False
    """LHLO, no HELO, and a reply per recipient after the message (RFC 2033)."""
    pipelining: bool = True
    """Used where it is offered. Not, for servers that only believe they can."""
    chunking: bool = True
    """BDAT is used where it is offered."""
    chunk_octets: int = CHUNK_OCTETS
    auth: tuple[str, ...] = ("SCRAM-SHA-256", "PLAIN", "LOGIN")
    """Mechanisms that may be used, best first."""
    auth_needs_tls: bool = True
    """PLAIN and LOGIN, which give the password away, are used under TLS only."""

    def __post_init__(self) -> None:
        if not self.hostname.isascii() or grammar.hello_name(self.hostname.encode()) is None:
            raise ValueError(f"hostname {self.hostname!r} is no name that EHLO may have")
        if self.chunk_octets < 1:
            raise ValueError("chunk_octets must be 1 at least")
        for mechanism in self.auth:
            if not re.fullmatch(r"SCRAM-SHA-256|PLAIN|LOGIN", mechanism):
                raise ValueError(f"auth: {mechanism!r} is none of SCRAM-SHA-256, PLAIN, LOGIN")
