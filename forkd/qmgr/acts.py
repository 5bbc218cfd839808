"""What does an admin do to a queued message? Remove, bounce, hold, release; while it is running, after its
pass."""

from __future__ import annotations

from collections.abc import Callable

from forkd.fs import Fs
from forkd.qmgr.acts_bounce import Bounce
from forkd.qmgr.acts_files import NOT_HELD, Became, Done, Place, Work, hold, release, remove
from forkd.qmgr.requests_look import Candidate
from forkd.qmgr.schedule import Entry, Schedule, Standing
from forkd.queue.recovery import Found
from forkd.queue.spool import QMGR_SLOT

NOT_QUEUED = "not in the queue"


def path_of(root: str, message: Entry | Found) -> str:
    """The message's file."""
    return f"{root}/new/{message.slot}/{message.id}"


class Acts:
    """On the messages of one schedule. All methods belong to the loop's thread.

    What waits for the disk is done elsewhere: a message is lent, as to a pass, and comes back with what
    became of it.

    root    of the spool
    bounce  how senders are told
    leave   called with a message that is about to be lent: it has no turn any more
    """

    def __init__(
        self,
        root: str,
        schedule: Schedule,
        *,
        durable: bool,
        fs: Fs,
        bounce: Bounce,
        leave: Callable[[Entry], None],
    ) -> None:
        self.place = Place(root, durable, fs)
        self.bounce: Work = bounce.work
        self._reports = bounce.reports
        self._schedule = schedule
        self._leave = leave

    def after_pass(self, entry: Entry) -> None:
        """What was asked for while it was running; it is still in the queue. Blocks for a sync or two."""
        if entry.removed_by:
            self._now(entry, self.bounce if entry.bounced else remove, entry.removed_by)
        elif entry.hold_by:
            who, entry.hold_by = entry.hold_by, ""
            self._now(entry, hold, who)

    def _now(self, entry: Entry, work: Work, who: str) -> None:
        (done,) = work(self.place, [Candidate.of(entry, lent=True)], who)
        self._become(entry, entry.standing, done, 0.0)

    def later(self, entry: Entry, work: Work, who: str) -> str:
        """It is running: what is wanted when its pass ends. Returns why not."""
        if work is remove or work is self.bounce:
            entry.removed_by, entry.bounced = who or "?", work is self.bounce
        elif work is hold:
            entry.hold_by = who or "?"
        elif work is release:
            asked, entry.hold_by = entry.hold_by, ""
            return "" if asked else NOT_HELD
        return ""

    def lend(self, entry: Entry) -> Standing:
        """From now on nobody else touches it or its files; its standing, for take_back()."""
        self._leave(entry)
        standing, entry.standing = entry.standing, Standing.RUNNING
        return standing

    def take_back(self, entry: Entry, standing: Standing, done: Done, now: float) -> None:
        """What became of it; and what was asked for meanwhile."""
        self._become(entry, standing, done, now)
        if entry.id in self._schedule:
            self.after_pass(entry)

    def _become(self, entry: Entry, standing: Standing, done: Done, now: float) -> None:
        became = done[0]
        while self._reports:
            self._schedule.add(self._reports.popleft(), QMGR_SLOT, 0.0)
        if became is Became.GONE:
            self._schedule.remove(entry.id)
            return
        entry.has_state = True  # perhaps: looking costs little
        if became is Became.HELD or (became is Became.UNCHANGED and standing is Standing.HELD):
            self._schedule.hold(entry)
        elif became is Became.RELEASED:
            self._schedule.wait(entry, now)
        else:
            self._schedule.wait(entry, entry.due)
