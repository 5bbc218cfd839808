"""By when must a client have been heard? Pure; times are monotonic seconds.

Looked at once a second (Session.sweep), and only then put off by what was heard meanwhile: a command costs
no more than the time at which it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkd.config.schema import Timeouts
    from forkd.worker.transaction import Transaction


class Patience:
    """With one client.

    by         later it is too late.
    heard_at   when it was last heard.
    tarpitted  it is made to wait for an answer that is there.
    """

    __slots__ = ("_idle_by", "_spent_s", "_timeouts", "by", "heard_at", "tarpitted")

    def __init__(self, timeouts: Timeouts, now: float) -> None:
        self._timeouts = timeouts
        self.heard_at = now
        self._idle_by = now + timeouts.idle_session
        """For a session without a transaction."""
        self._spent_s = 0.0
        self.tarpitted = False
        self.by = now + timeouts.command

    def renew(self, transaction: Transaction | None) -> None:
        """From what was heard, and what is under way."""
        timeouts = self._timeouts
        if transaction is not None and transaction.started_at:
            total = timeouts.data_total + transaction.size / (1 << 20) * timeouts.data_per_mib
            self.by = min(self.heard_at + timeouts.data_block, transaction.started_at + total)
        else:
            self.by = min(self.heard_at + timeouts.command, self._idle_by)

    def finished(self, now: float) -> None:
        """A transaction came to its end: the limit of a session without one starts anew."""
        self._idle_by = now + self._timeouts.idle_session

    def spend(self, now: float, delay: float) -> float:
        """How long to make it wait: `delay`, or less where the session is over before, which it is too
        when all these delays together are as long as a session may be idle."""
        left = min(self._idle_by - now, self._timeouts.idle_session - self._spent_s)
        granted = max(0.0, min(delay, left))
        self._spent_s += granted
        return granted

    def over(self, now: float, transaction: Transaction | None) -> bool:
        """Is it too late, even with what was heard meanwhile?"""
        if now < self.by:
            return False
        self.renew(transaction)
        return now >= self.by
