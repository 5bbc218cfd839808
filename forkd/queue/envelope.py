"""What does the spool know of a message besides its bytes?"""

from __future__ import annotations

import msgspec


class Recipient(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One recipient that the message goes to; `address` as Mailbox writes it."""

    address: str
    notify: tuple[str, ...] = ()
    """NOTIFY, as the client gave it: NEVER, or any of SUCCESS, FAILURE, DELAY (RFC 3461 4.1)."""
    orcpt: str = ""
    """ORCPT, as the client wrote it: `rfc822;…` (RFC 3461 4.2)."""
    original: str = ""
    """What the client said, where a plugin rewrote it, or an alias stands for others."""
    sender: str = ""
    """Member of a list with an owner: the sender that this recipient's mail has, to whom its reports go; the
    message's own, ENVID and RET are not for it (RFC 5321 3.9.2, RFC 3461 5.2.7.1). Empty: the message's."""
    fate: str = ""
    """`expanded`, `delivered`: known when the message came in, since an alias or a list stands in its place,
    and its members beside it. Nothing is delivered to it; it is here for the report that was asked for."""


class Edit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change to the header, applied in order while the message streams out (message/edits.py)."""

    op: str
    """add_header | change_header | delete_header"""
    name: str
    value: str = ""
    n: int = 0
    """change, delete: the n-th field of that name, from 1, as the edits before left it; delete 0: all."""


class Replaced(msgspec.Struct, frozen=True, kw_only=True):
    """A body that a plugin put in the place of the client's: where it lies in the spool file (FORMAT.md)."""

    kept: int
    """Octets of the client's message that still count, from its beginning: its header with the empty line."""
    kept_crc: int
    offset: int
    octets: int
    crc: int


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
    replaced: Replaced | None = None
    original_sender: str | None = None
    """What the client said, where a plugin changed it; the empty string is the null sender."""
    hold: str = ""
    """A plugin quarantined it: the reason. Not delivered before an admin releases it."""
    body: str = "7BIT"
    smtputf8: bool = False
    """The client asked for SMTPUTF8: only a next hop that has it may get this message (RFC 6531 3.4)."""
    ret: str = ""
    """RET, FULL or HDRS (RFC 3461 4.3)."""
    envid: str = ""
    """ENVID, as the client wrote it (RFC 3461 4.4)."""
    client_ip: str = ""
    client_name: str = ""
    helo: str = ""
    protocol: str = "SMTP"
    tls: str = ""
    """`TLSv1.3 with cipher TLS_AES_256_GCM_SHA384`, or empty."""
    user: str = ""
    """Who authenticated."""
