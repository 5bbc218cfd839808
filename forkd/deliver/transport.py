"""What is a transport? Deliveries in, one result per recipient out.

Of two kinds, by what they wait for: a disk or a program of this machine (Transport, on threads), or others'
servers and programs (AsyncTransport, on one event loop). Both say which destination a recipient belongs to:
what shares its fate, and gets its turns and its rest together (qmgr/turns.py).
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence
from typing import Literal, Protocol

from forkd.queue.format import Damaged
from forkd.queue.stored import StoredMessage
from forkd.smtp.reply import Reply

Status = Literal["delivered", "deferred", "failed"]


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One recipient as its transport needs it."""

    index: int
    """Place in the envelope's recipients."""
    address: str
    """As it stands in the envelope."""
    mailbox: str
    """Local part of the mailbox, without detail (config.recipients.Accepted)."""
    domain: str
    detail: str = ""
    original: str = ""
    """What the client said, where a plugin rewrote it, or an alias stands for others."""


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """One message, and those of its recipients that go this way: all to the same destination, where the
    transport has more than one."""

    message: StoredMessage
    targets: tuple[Target, ...]
    together: bool = False
    """A client waits, and hears one reply: as far as the next hop lets us choose, all targets have it or
    none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What became of one recipient."""

    target: Target
    status: Status
    enhanced: str
    """RFC 3463."""
    text: str
    """For the log and the queue's list."""
    reply: Reply | None = None
    """The next hop's own, where it had one: for the client that waits for this outcome (accept = "proxy"),
    which hears the general one for None; and Diagnostic-Code in a report."""
    host: str = ""
    """The next hop's name, for the log, `forkd queue show` and Remote-MTA in a report; empty: none."""
    tls: str = ""
    """How it went there, for the log: version and cipher, and whether the server proved who it is; empty: in
    the clear."""
    away: bool = False
    """The destination itself did not serve us: no connection, a greeting of 4xx or 5xx, 421, no TLS or login
    where they must be; an end or silence over more than one message. Always with status "deferred"."""
    relayed: bool = False
    """Delivered to a next hop that does not know DSN: "relayed" where SUCCESS was asked for (RFC 3461)."""
    passed_on: bool = False
    """Delivered to a next hop that took the DSN parameters over: it reports, not we."""


class Transport(Protocol):
    """A way out that blocks. Shared by `parallel` threads, each of which hands over up to `batch` deliveries
    at once."""

    name: str
    parallel: int
    """Threads that help: 1 where nothing waits, more where disk or network does."""
    batch: int
    """Deliveries that gain by being taken together; 1: none."""

    def destination(self, target: Target) -> str:
        """What shares its fate with others of this transport: the recipient's domain, where a next hop is
        looked up by it; empty: there is but one for all. Pure, and cheap."""
        ...

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        """Try each; return for each, in the same order, one result per target.

        Damaged instead, where the message's own stream raised it: then none of these targets has it.
        Blocks for as long as the disk or the next hop takes. Raises nothing that is not a bug.
        """
        ...


class AsyncTransport(Protocol):
    """A way out that waits for others. All of them run on one event loop, in a thread of qmgr's of its own:
    what blocks there holds up all mail that leaves the machine."""

    name: str
    connections: int
    """Deliveries at once, at most, over all destinations."""

    def destination(self, target: Target) -> str:
        """As Transport.destination."""
        ...

    async def deliver(self, delivery: Delivery) -> list[Result] | Damaged:
        """One result per target, in their order; Damaged where the message's own stream raised it.

        Raises nothing that is not a bug. May be cancelled, when qmgr stops: it may return then what it knows
        by now, of some targets. What it has not told is tried again.
        """
        ...

    async def close(self) -> None:
        """Let go of what is open, connections that wait for more mail, say. No delivery runs any more."""
        ...


_FULL = {errno.EDQUOT: "4.2.2", errno.ENOSPC: "4.3.1"}
"""The user's share of a disk, and the disk itself (RFC 3463: mailbox full, mail system full)."""


def refused_by_system(target: Target, error: OSError) -> Result:
    """The Result of an OSError on our side: always temporary, since an admin can repair it."""
    text = os.strerror(error.errno) if error.errno else str(error)
    return Result(target, "deferred", _FULL.get(error.errno or 0, "4.3.0"), text)
