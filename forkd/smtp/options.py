"""What does a listener say about itself, and what are its limits?"""

from __future__ import annotations

import dataclasses
import re

_MECHANISM = re.compile(r"[A-Z0-9_-]{1,20}")
"""RFC 4422 3.1."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # compared and hashed by identity
class ServerOptions:
    """The settings of ServerConnection; one value serves all sessions of a listener.

    Raises ValueError for what cannot be meant.
    """

    hostname: str
    """First word of the greeting and of the reply to HELO and EHLO."""
    message_size: int
    """Octets of a message, line ends as CRLF; announced by SIZE (RFC 1870)."""
    command_line: int = 512
    """Octets with CRLF (RFC 5321 4.5.3.1.4); parameters of MAIL and RCPT add theirs."""
    recipients: int = 1000
    """Per transaction: 452 4.5.3 beyond (RFC 5321 4.5.3.1.8 asks for 100 at least)."""
    errors: int = 20
    """Commands answered 5xx without an accepted message between; the next one has 421 4.7.0
    (Postfix smtpd_hard_error_limit)."""
    wire: str = "normalize"
    """Bare CR and LF in a message: `normalize` to space and CRLF, or `reject` with 550 5.6.0."""
    greeting: str = "ESMTP"
    """Text of the greeting after the host name; what stands behind a line end is a further line."""
    early_talker: str = "refuse"
    """Input behind a command that must be last in its group, or before the greeting: `refuse` with
    554 5.5.1 and close, or `ignore` the violation and read on (RFC 2920 3.1)."""
    dsn: bool = True
    """DSN is announced: who takes the mail reports on it as the client asks (RFC 3461)."""
    tls: bool = False
    """STARTTLS is offered (RFC 3207)."""
    tls_required: bool = False
    """530 5.7.0 to all but NOOP, EHLO, STARTTLS and QUIT while there is no TLS (RFC 3207 4)."""
    auth: tuple[str, ...] = ()
    """SASL mechanisms offered, in upper case, best first; empty: no AUTH (RFC 4954)."""
    auth_needs_tls: bool = True
    """AUTH is offered under TLS only; 538 5.7.11 before it."""
    auth_required: bool = False
    """530 5.7.0 to what leads to mail, and to VRFY and EXPN, before AUTH (RFC 6409 4.3)."""

    def __post_init__(self) -> None:
        if not self.hostname or not self.hostname.isascii() or not self.hostname.isprintable():
            raise ValueError(f"hostname {self.hostname!r} is not printable ASCII")
        for name in ("message_size", "recipients", "errors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 at least")
        if self.command_line < 512:
            raise ValueError("command_line must be 512 at least (RFC 5321 4.5.3.1.4)")
        if self.wire not in ("normalize", "reject"):
            raise ValueError(f"wire is normalize or reject, not {self.wire!r}")
        if self.early_talker not in ("refuse", "ignore"):
            raise ValueError(f"early_talker is refuse or ignore, not {self.early_talker!r}")
        for mechanism in self.auth:
            if not _MECHANISM.fullmatch(mechanism):
                raise ValueError(f"auth: {mechanism!r} is not the name of a SASL mechanism")
        if self.auth_required and not self.auth:
            raise ValueError("auth_required is not possible without auth")
