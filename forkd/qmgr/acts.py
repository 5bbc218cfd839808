"""What does an admin do to a queued message? Remove, hold, release; while it is running, after its pass."""

from __future__ import annotations

import contextlib
import time

from forkd import log
from forkd.fs import Fs, sync_name
from forkd.qmgr.schedule import Entry, Schedule, Standing
from forkd.queue import state, stored
from forkd.queue.format import Damaged
from forkd.queue.ids import QueueId

NOT_QUEUED = "not in the queue"
NOT_HELD = "not held"


def path_of(root: str, entry: Entry) -> str:
    """The message's file."""
    return f"{root}/new/{entry.slot}/{entry.id}"


class Acts:
    """On the messages of one schedule. All methods belong to the loop's thread.

    root  of the spool
    """

    def __init__(self, root: str, schedule: Schedule, *, durable: bool, fs: Fs) -> None:
        self._root = root
        self._schedule = schedule
        self._durable = durable
        self._fs = fs

    def after_pass(self, entry: Entry) -> None:
        """What was asked for while it was running; it is still in the queue."""
        if entry.removed_by:
            self._remove(entry, entry.removed_by)
        elif entry.hold_by:
            who, entry.hold_by = entry.hold_by, ""
            self._hold(entry, who)

    def remove(self, queue_id: QueueId, who: str) -> bool:
        """Remove a message for good; while it is running, when its pass ends. False: not in the queue."""
        entry = self._schedule.get(queue_id)
        if entry is None:
            return False
        if entry.standing is Standing.RUNNING:
            entry.removed_by = who or "?"
        else:
            self._remove(entry, who)
        return True

    def _remove(self, entry: Entry, who: str) -> None:
        path = path_of(self._root, entry)
        try:
            with contextlib.suppress(FileNotFoundError):
                state.remove(path, has_state=entry.has_state, fs=self._fs)
            sync_name(self._fs, path)
        except OSError as error:
            log.queue_event(
                act="not_removed", id=entry.id, detail=f"{error.strerror}", who=who, level="error"
            )
            return
        self._schedule.remove(entry.id)
        log.queue_event(act="removed", id=entry.id, who=who)

    def hold(self, queue_id: QueueId, who: str) -> str:
        """Do not deliver it before it is released; while it is running, from the end of its pass on.

        Durable when this returns, but for a running one. Blocks for one or two syncs. Returns why not.
        """
        entry = self._schedule.get(queue_id)
        if entry is None:
            return NOT_QUEUED
        if entry.standing is Standing.RUNNING:
            entry.hold_by = who or "?"
            return ""
        return "" if entry.standing is Standing.HELD else self._hold(entry, who)

    def release(self, queue_id: QueueId, who: str, now: float) -> str:
        """Deliver what is held: it is due now, whoever held it. As hold()."""
        entry = self._schedule.get(queue_id)
        if entry is None:
            return NOT_QUEUED
        if entry.standing is Standing.RUNNING:
            asked, entry.hold_by = entry.hold_by, ""
            return "" if asked else NOT_HELD
        # A quarantined message that was never due is not known to be held: the files tell.
        path = path_of(self._root, entry)
        try:
            message = stored.load(path, entry.id, fs=self._fs)
            known = state.load(path, fs=self._fs)
        except (Damaged, OSError) as error:
            return f"cannot be read: {error}"
        if not known.held(message.envelope):
            return NOT_HELD
        why = self._note_hold(entry, known, "")
        if not why:
            log.queue_event(act="released", id=queue_id, who=who)
            self._schedule.wait(entry, now)
        return why

    def _hold(self, entry: Entry, who: str) -> str:
        try:
            known = state.load(path_of(self._root, entry), fs=self._fs)
        except OSError as error:
            return f"cannot be read: {error}"
        why = self._note_hold(entry, known, f"held by {who or '?'}")
        if not why:
            log.queue_event(act="held", id=entry.id, who=who)
            self._schedule.hold(entry)
        return why

    def _note_hold(self, entry: Entry, known: state.State, reason: str) -> str:
        entry.has_state = True
        line = state.Attempt(at=time.time(), hold=reason)
        try:
            state.append(path_of(self._root, entry), line, known, durable=self._durable, fs=self._fs)
        except OSError as error:
            log.queue_event(act="unrecorded", id=entry.id, detail=f"spool: {error.strerror}", level="error")
            return f"not recorded: {error.strerror}"
        return ""
