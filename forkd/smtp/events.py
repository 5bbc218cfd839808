"""What can the client have done? One value per act, as ServerConnection.next_event() gives them."""

from __future__ import annotations

import dataclasses

from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply


@dataclasses.dataclass(frozen=True, slots=True)
class Hello:
    """HELO (`extended` false) or EHLO; `name` as the client wrote it, syntax checked."""

    name: str
    extended: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM; `sender` is None for the null reverse path."""

    sender: Mailbox | None
    parameters: dict[str, str | None] = dataclasses.field(default_factory=dict)
    size: int | None = None
    """The SIZE parameter, octets (RFC 1870)."""
    body: str = "7BIT"
    """7BIT or 8BITMIME (RFC 6152)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO."""

    recipient: Mailbox
    parameters: dict[str, str | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """DATA, in order: a sender and a recipient stand. Answer 354; a refusal ends the transaction."""


@dataclasses.dataclass(frozen=True, slots=True)
class DataChunk:
    """A piece of the message, dot-unstuffed, every line end CRLF, though one may be cut off. No reply.

    Never empty. After a fault there are no more, and never more octets in all than the size limit.
    """

    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class DataEnd:
    """CRLF.CRLF was read, and the message is over. The answer ends the transaction, whatever it is.

    size   octets of the message, unstuffed and normalised: of all chunks, and of what a fault kept back.
    fault  the reply that the message earned by its octets, None for a good one: more than the limit
           552 5.3.4, a NUL 550 5.6.0, under wire = "reject" a bare line end 550 5.6.0.
    """

    size: int
    fault: Reply | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rset:
    """RSET."""


@dataclasses.dataclass(frozen=True, slots=True)
class Noop:
    """NOOP."""


@dataclasses.dataclass(frozen=True, slots=True)
class Vrfy:
    """VRFY."""

    argument: str


@dataclasses.dataclass(frozen=True, slots=True)
class Expn:
    """EXPN."""

    argument: str


@dataclasses.dataclass(frozen=True, slots=True)
class Help:
    """HELP."""

    argument: str


@dataclasses.dataclass(frozen=True, slots=True)
class Quit:
    """QUIT."""


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The engine itself refuses: unknown command, bad syntax, bad sequence, a limit, too many errors.

    `reply` is ready to be sent as it stands, and no 2xx is taken instead; `command` is the verb where one
    was recognised.
    """

    reply: Reply
    command: str = ""


Event = Hello | Mail | Rcpt | Data | DataChunk | DataEnd | Rset | Noop | Vrfy | Expn | Help | Quit | Refused
