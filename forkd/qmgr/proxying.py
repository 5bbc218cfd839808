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

    SMTP has one reply for all, so it should be right for each: workers take no recipients of two transports
    into one transaction, none of two domains whose mail goes to different servers, and one alone where a
    server answers for each (worker/next_hop.py); and a server that refuses one of several before the message
    gets the message for none (transport.Delivery.together).

    What is left is an alias with members here and there. Temporary before permanent: a client that comes
    again reaches those that the first try did not, and who had the mail then has it twice.
    """
    for status in ("deferred", "failed"):
        for result in results:
            if result.status == status:
                return _of_mail(result.reply) if result.reply is not None else GENERAL[result.status]
    return GENERAL["delivered"] if len(results) == wanted else replies.NOT_TAKEN_NOW


def _of_mail(reply: Reply) -> Reply:
    """421 ends a connection, and the next hop's was not the client's: to the client it says "not now"."""
    return Reply(451, reply.enhanced, reply.lines) if reply.code == 421 else reply
