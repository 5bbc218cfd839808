"""[reports]: what are senders told of mail that is late or lost, and what the postmaster?"""

from __future__ import annotations

from typing import Annotated, Literal

from forkd.config.table import Between, Table, WaitOrNone
from forkd.config.units import Bytes, Seconds


class Reports(Table, frozen=True):
    """[reports]: mail to senders about their mail (RFC 3464), as they ask for it by NOTIFY (RFC 3461).

    It goes the way that any mail to them goes: by [domain], [route], queue.relay_transport. There is none
    beside, so that no mail leaves a machine that nobody told to send any. To a sender where no way leads
    nothing is written of delays and successes; of a failure the postmaster hears instead, and without one the
    report waits in the queue, where an admin sees it, until it is given up.
    """

    warn_after: WaitOrNone = Seconds(14_400)
    """A message that waits so long gets its delay warning with the next try, once; 0: never. Four hours, as
    sendmail's; Postfix has none by default."""
    max_returned: Annotated[Bytes, Between(0, 10 << 20)] = Bytes(50_000)
    """A longer message comes back as its header alone, whatever RET says; as Postfix' bounce_size_limit. So
    much is held in memory while a report is written."""
    postmaster: str = ""
    """Who gets copies of reports on failures, with the message's header; empty: nobody. Of copies that fail
    there are none."""
    copies: Literal["untold", "failures"] = "untold"
    """Copies of what no sender is told: a report that failed itself (qmail's double bounce), other mail of
    the null sender, NOTIFY=NEVER, senders that do not exist or where no way leads; or of all failures."""
