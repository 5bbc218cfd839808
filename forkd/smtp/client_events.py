"""What can have become of what we asked a server? One value per answer, as ClientConnection gives them."""

from __future__ import annotations

import dataclasses
from typing import Literal

from forkd.smtp.client_offered import Offered
from forkd.smtp.client_phases import Phase
from forkd.smtp.reply import Reply

Status = Literal["delivered", "temporary", "permanent"]
Cause = Literal["quit", "shutdown", "abandoned", "violation", "lost"]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient.

    Of the replies that could decide it, the one that did; None: none came, `why` says it. All text is
    printable and bounded (client_replies.py).
    """

    status: Status
    phase: Phase
    reply: Reply | None = None
    why: str = ""
    uncertain: bool = False
    """The whole message went out and no reply came: the server may have it, and trying again may
    duplicate it (RFC 1047). Temporary."""


@dataclasses.dataclass(frozen=True, slots=True)
class Greeted:
    """220: hello() is next."""

    reply: Reply


@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """EHLO, LHLO or HELO was accepted; mail may go, or TLS and AUTH come first."""

    reply: Reply
    offered: Offered


@dataclasses.dataclass(frozen=True, slots=True)
class TlsReady:
    """220 to STARTTLS: give the connection to TLS, then call secured(). Read nothing in between."""


@dataclasses.dataclass(frozen=True, slots=True)
class Authenticated:
    """235, and where the mechanism can tell, from the server that knows our password."""

    reply: Reply


@dataclasses.dataclass(frozen=True, slots=True)
class Denied:
    """4xx or 5xx to the greeting, hello, STARTTLS or AUTH. After a greeting, only QUIT is left."""

    phase: Phase
    reply: Reply


@dataclasses.dataclass(frozen=True, slots=True)
class BodyWanted:
    """Recipients stand: body() and end_body() are next."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """The transaction is over; an outcome for each recipient, in the order of the mail's."""

    outcomes: tuple[Outcome, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class WasReset:
    """250 to RSET: the server is still there."""


@dataclasses.dataclass(frozen=True, slots=True)
class Closed:
    """Close the socket: there is nothing more to say or hear. The last event, once.

    quit       we asked for it
    shutdown   421 came, in `reply`
    abandoned  the server refused what could not be stopped any more (`reply`)
    violation  what the server said is not SMTP, or not in order; `why`
    lost       its end came, or lost() was called; `why`
    """

    cause: Cause
    phase: Phase
    reply: Reply | None = None
    why: str = ""


ClientEvent = Greeted | Ready | TlsReady | Authenticated | Denied | BodyWanted | Finished | WasReset | Closed
