"""What can the client have done? One value per act, as ServerConnection.next_event() gives them."""

from __future__ import annotations

import dataclasses

from forkd.smtp import xtext
from forkd.smtp.address import Mailbox
from forkd.smtp.reply import Reply

Parameters = dict[str, str | None]
"""Keyword in upper case to value as written; None where there is no `=`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hello:
    """HELO (`extended` false) or EHLO; `name` as the client wrote it, syntax checked."""

    name: str
    extended: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM; `sender` is None for the null reverse path.

    What is seldom given is read out of `parameters` when somebody asks for it: their syntax was checked.
    """

    sender: Mailbox | None
    parameters: Parameters = dataclasses.field(default_factory=dict)
    size: int | None = None
    """The SIZE parameter, octets (RFC 1870)."""
    body: str = "7BIT"
    """7BIT or 8BITMIME (RFC 6152)."""

    @property
    def smtputf8(self) -> bool:
        """Addresses and header may be UTF-8 (RFC 6531)."""
        return "SMTPUTF8" in self.parameters

    @property
    def ret(self) -> str:
        """What a failure report brings back: FULL, HDRS, or empty where it is left to us (RFC 3461 4.3)."""
        return (self.parameters.get("RET") or "").upper()

    @property
    def envid(self) -> str:
        """The client's name for this envelope, in xtext as written; empty: none (RFC 3461 4.4)."""
        return self.parameters.get("ENVID") or ""

    @property
    def auth(self) -> str | None:
        """Who handed the message in, as the client claims: an address, `<>` for unknown, None: not said.

        Decoded. Worth something only from a client that may vouch for others (RFC 4954 5).
        """
        value = self.parameters.get("AUTH")
        return None if value is None else xtext.decode(value)


@dataclasses.dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO."""

    recipient: Mailbox
    parameters: Parameters = dataclasses.field(default_factory=dict)

    @property
    def notify(self) -> tuple[str, ...]:
        """When to report: NEVER, or some of SUCCESS, FAILURE, DELAY; empty: not said (RFC 3461 4.1)."""
        value = self.parameters.get("NOTIFY")
        return () if value is None else tuple(value.upper().split(","))

    @property
    def orcpt(self) -> str:
        """The first address, as written: `rfc822;` and xtext; empty: not said (RFC 3461 4.2)."""
        return self.parameters.get("ORCPT") or ""


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """A message is about to come, in order: a sender and a recipient stand.

    Answer 354; a refusal ends the transaction. `chunked`: it was not DATA but the first BDAT (RFC 3030).
    That is answered alike, but the client hears nothing yet: after 354 its first reply is the one to
    ChunkEnd or DataEnd; a refusal is kept until the chunk has been read over, and then comes once
    more as a Refused.
    """

    chunked: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class DataChunk:
    """A piece of the message, dot-unstuffed, every line end CRLF, though one may be cut off. No reply.

    Never empty. After a fault there are no more, and never more octets in all than the size limit.
    """

    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class DataEnd:
    """CRLF.CRLF or the last chunk was read. The answer ends the transaction, whatever it is.

    size   octets of the message, unstuffed and normalised: of all chunks, and of what a fault kept back.
    fault  the reply that the message earned by its octets, None for a good one: more than the limit
           552 5.3.4, a NUL 550 5.6.0, under wire = "reject" a bare line end 550 5.6.0.
    """

    size: int
    fault: Reply | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ChunkEnd:
    """A chunk was read that is not the last; `size` is its octets on the wire. Answer 250 (replies.CHUNK_OK).

    A refusal ends the transaction: of what is left of the message, every chunk is read over and refused.
    """

    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS, in order and offered (RFC 3207).

    Answer 220, then give the connection to TLS, and tell the engine with secured() when it holds.
    Read nothing in between.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Auth:
    """AUTH with a mechanism that we offer, in upper case; what stood of an exchange before is void.

    initial  the initial response, decoded; b"" where it was given as `=`, None: not given.

    Answer 334 (replies.challenge), 235, or a refusal (RFC 4954 4).
    """

    mechanism: str
    initial: bytes | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class AuthData:
    """The response to a challenge, decoded; None: the client gave up with `*`. Answer as Auth.

    Where the engine itself refuses the response (Refused), the exchange is over too.
    """

    data: bytes | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Xclient:
    """XCLIENT from a client that may: attribute in upper case to decoded value, None: not known there.

    ADDR is in the form of an address literal without its brackets (`IPV6:2001:db8::1`); no value has
    been looked into but for its xtext. Answer with restart(), or a refusal (Postfix XCLIENT_README).
    """

    attributes: dict[str, str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Rset:
    """RSET."""


@dataclasses.dataclass(frozen=True, slots=True)
class Noop:
    """NOOP."""


@dataclasses.dataclass(frozen=True, slots=True)
class Vrfy:
    """VRFY; `smtputf8`: the argument, and names in the reply, may be UTF-8 (RFC 6531 3.7.4.2)."""

    argument: str
    smtputf8: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Expn:
    """EXPN; `smtputf8`: the argument, and names in the reply, may be UTF-8 (RFC 6531 3.7.4.2)."""

    argument: str
    smtputf8: bool = False


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
    was recognised. `said`, for the log: what stood behind MAIL or RCPT, and of no other verb, since a line
    that is out of order may hold a secret.
    """

    reply: Reply
    command: str = ""
    said: str = dataclasses.field(default="", compare=False)


Event = (
    Hello
    | Mail
    | Rcpt
    | Data
    | DataChunk
    | ChunkEnd
    | DataEnd
    | StartTls
    | Auth
    | AuthData
    | Xclient
    | Rset
    | Noop
    | Vrfy
    | Expn
    | Help
    | Quit
    | Refused
)
