"""What is a transport? Deliveries in, one result per recipient out."""

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
    """What the client said, where a plugin rewrote it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Delivery:
    """One message, and those of its recipients that go this way."""

    message: StoredMessage
    targets: tuple[Target, ...]


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
    """For the client, where it waits for this outcome (accept = "proxy"); None: the general one."""


class Transport(Protocol):
    """A way out. Shared by `parallel` threads, each of which hands over up to `batch` deliveries at once."""

    name: str
    parallel: int
    """Threads that help: 1 where nothing waits, more where disk or network does."""
    batch: int
    """Deliveries that gain by being taken together; 1: none."""

    def deliver(self, deliveries: Sequence[Delivery]) -> list[list[Result] | Damaged]:
        """Try each; return for each, in the same order, one result per target.

        Damaged instead, where the message's own stream raised it: then none of these targets has it.
        Blocks for as long as the disk or the next hop takes. Raises nothing that is not a bug.
        """
        ...


def refused_by_system(target: Target, error: OSError) -> Result:
    """The Result of an OSError on our side: always temporary, since an admin can repair it."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = os.strerror(error.errno) if error.errno else str(error)
    return Result(target, "deferred", "4.2.2" if full else "4.3.0", text)
