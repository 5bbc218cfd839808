"""What does the spool know of a message besides its bytes?"""

from __future__ import annotations

import msgspec


class Recipient(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One accepted recipient; `address` as Mailbox writes it. DSN parameters come with their issue."""

    address: str


class Edit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change to the header that a plugin made, applied while the message streams out."""

    op: str
    """`add_header`; more with their issue."""
    name: str
    value: str


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sender, recipients and facts of one message, as they stand in its spool file (FORMAT.md)."""

    session: str
    """The session id the client was served under: joins log lines."""
    received_at: float
    """Unix time of the end of data, seconds."""
    sender: str
    """As Mailbox writes it; the null sender is the empty string."""
    recipients: tuple[Recipient, ...]
    trace: str = ""
    """The Received header field, folded with CRLF, ending in CRLF."""
    edits: tuple[Edit, ...] = ()
    body: str = "7BIT"
    client_ip: str = ""
    client_name: str = ""
    helo: str = ""
    protocol: str = "SMTP"
