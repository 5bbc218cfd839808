"""What is a client told that waits for the next hop? One reply from the outcomes of all recipients; pure."""

from __future__ import annotations

from collections.abc import Sequence

from forkd.deliver.transport import Result, Status
from forkd.smtp import replies
from forkd.smtp.reply import Reply

GENERAL: dict[Status, Reply] = {
    "delivered": replies.DATA_OK,
    "deferred": replies.NOT_TAKEN_NOW,
    "failed": replies.NOT_TAKEN,
}
"""Where the transport has no words for the client."""


def reply(results: Sequence[Result], wanted: int) -> Reply:
    """250 when all `wanted` recipients have the mail; else what the first one says that does not.

    Temporary before permanent: a client that comes again reaches those that the first try did not. Who had
    the mail then has it twice: SMTP has one reply for all (so workers take no recipients of two transports
    into one transaction, and a transport that is waited for has one answer for all of its own).
    """
    for status in ("deferred", "failed"):
        for result in results:
            if result.status == status:
                return result.reply or GENERAL[result.status]
    return GENERAL["delivered"] if len(results) == wanted else replies.NOT_TAKEN_NOW
