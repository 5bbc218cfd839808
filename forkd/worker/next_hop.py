"""How does a message get to its next hop while its client waits? (accept = "proxy") By qmgr, from tmp/.

The message is made whole in tmp/, as it would be for the queue, but not synced: until the next hop has it,
it is the client's. qmgr reads it there, brings it to its transports and answers with the reply. Whatever goes
wrong in between is a temporary refusal: the client comes again, and where the next hop had the mail already,
it has it twice (as with every SMTP server whose 250 is lost).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from forkd import log
from forkd.config.next_hop_schema import PATIENT_S, Lmtp, Smtp
from forkd.config.schema import Config, QmailQueue, Transport
from forkd.queue.commit import finish_uncommitted
from forkd.queue.envelope import Envelope
from forkd.queue.spool import SpoolFile
from forkd.rpc import channel
from forkd.rpc.messages import Deliver, Delivered
from forkd.smtp import replies
from forkd.smtp.reply import Reply

SLACK_S = 60.0
"""More time than the transport has: qmgr's ends of waiting come first (manager.BEGIN_S, the transport's own
timeout, deliver's HOST_SLACK_S), so that no mail is delivered whose client was told to come again."""


class NextHop:
    """The way to qmgr's socket for workers.

    slot  whose folder in tmp/ our messages are in
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, slot: str, config: Config) -> None:
        self._qmgr = channel.RequestClient(loop, path, Delivered)
        self._slot = slot
        self._transports = config.transport
        self._limit_s = _longest(config.transport.values()) + SLACK_S

    async def deliver(self, file: SpoolFile, envelope: Envelope) -> Reply:
        """The reply to the end of data. The file is the caller's to abort afterwards. Raises SpoolError."""
        name = finish_uncommitted(file, envelope)
        try:
            answer: Delivered = await self._qmgr.request(
                lambda n: Deliver(n=n, slot=self._slot, name=name), timeout_s=self._limit_s
            )
        except channel.Unavailable as error:
            log.service(act="not_handed_on", detail=f"qmgr: {error}", level="error", session=envelope.session)
            return replies.NOT_TAKEN_NOW
        try:
            reply = Reply(answer.code, answer.enhanced or None, answer.lines)
        except ValueError:
            return replies.NOT_TAKEN_NOW
        # As to mail that is kept here or dropped: no sender can try out which of his a plugin quarantines.
        return replies.queued(file.id) if reply.ok else reply

    def together(self, transports: Iterable[str], one: str, other: str) -> bool:
        """May recipients of these domains be in one transaction, if both go by these transports? For SMTP has
        one reply for all, which must be right for each.

        A queue program takes all or nothing; so do we with a server that speaks SMTP (Delivery.together), but
        not with two. An LMTP server answers for each recipient when each either has the message or has not.
        """
        for name in transports:
            table = self._transports.get(name)
            if isinstance(table, Lmtp) or (isinstance(table, Smtp) and not table.hosts and one != other):
                return False
        return True

    def close(self) -> None:
        """No client waits any more."""
        self._qmgr.close()


def _longest(transports: Iterable[Transport]) -> float:
    longest = 0.0
    for table in transports:
        if isinstance(table, QmailQueue):
            longest = max(longest, float(table.timeout))
        elif isinstance(table, Smtp | Lmtp):
            longest = max(longest, PATIENT_S)
    return longest
