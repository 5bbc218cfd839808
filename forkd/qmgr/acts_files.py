"""What does removing, holding, releasing do to a message's files? Beside the loop: it waits for the disk.

Each function takes messages that nobody else touches meanwhile (their entries are lent, Standing.RUNNING)
and says of each in turn what came of it; what it had no time for is not in the answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import time
from collections.abc import Callable, Iterable, Sequence

from forkd import log
from forkd.fs import Fs, sync_name
from forkd.qmgr.requests_look import Candidate
from forkd.queue import state, stored
from forkd.queue.format import Damaged

ACT_S = 2.0
"""An act ends then, and goes on with the next request: progress is seen, and nobody else waits longer."""

NOT_HELD = "not held"


class Became(enum.Enum):
    """What a message is now."""

    UNCHANGED = enum.auto()
    GONE = enum.auto()
    HELD = enum.auto()
    RELEASED = enum.auto()


Done = tuple[Became, str]
"""And why not, where it is not what was asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The spool below `root`; `durable`: what is done survives a power cut."""

    root: str
    durable: bool
    fs: Fs


Work = Callable[[Place, Sequence[Candidate], str], list[Done]]
"""Messages, and who asks -> what came of each."""


def _gone_by() -> Callable[[], bool]:
    end = time.monotonic() + ACT_S
    return lambda: time.monotonic() >= end


def remove(place: Place, messages: Sequence[Candidate], who: str) -> list[Done]:
    """For good: no delivery, no report. One sync for all of a folder's names."""
    late, done = _gone_by(), []
    for message in messages:
        path = message.path(place.root)
        try:
            with contextlib.suppress(FileNotFoundError):
                place.fs.unlink(path)
        except OSError as error:
            done.append((Became.UNCHANGED, f"not removed: {error.strerror}"))
        else:
            # Without its message it means nothing: what cannot be removed now goes at the next start.
            with contextlib.suppress(OSError):
                place.fs.unlink(path + state.SUFFIX)
            done.append((Became.GONE, ""))
        if late():
            break
    folders = {message.slot: message.path(place.root) for message in messages[: len(done)]}
    unsynced = sync_folders(folders.values(), place.fs) if place.durable else ""
    for message, (became, why) in zip(messages, done, strict=False):
        if became is Became.GONE:
            log.queue_event(act="removed", id=message.id, who=who, detail=unsynced)
        else:
            log.queue_event(act="not_removed", id=message.id, who=who, detail=why, level="error")
    return done


def sync_folders(paths: Iterable[str], fs: Fs) -> str:
    """Sync the folders that `paths` lie in. Returns why names may be back after a power cut; what is
    removed is removed all the same."""
    try:
        for path in paths:
            sync_name(fs, path)
    except OSError as error:
        log.queue_event(act="unrecorded", detail=f"spool: {error.strerror}", level="error")
        return f"not synced: {error.strerror}"
    return ""


def hold(place: Place, messages: Sequence[Candidate], who: str) -> list[Done]:
    """Not delivered before it is released, over restarts too. One or two syncs each."""
    return _each(_hold, place, messages, who)


def release(place: Place, messages: Sequence[Candidate], who: str) -> list[Done]:
    """Deliver what is held, whoever held it. One or two syncs each."""
    return _each(_release, place, messages, who)


def _each(
    one: Callable[[Candidate, Place, str], Done], place: Place, messages: Sequence[Candidate], who: str
) -> list[Done]:
    late, done = _gone_by(), []
    for message in messages:
        done.append(one(message, place, who))
        if late():
            break
    return done


def _hold(message: Candidate, place: Place, who: str) -> Done:
    path = message.path(place.root)
    try:
        known = state.load(path, fs=place.fs)
    except OSError as error:
        return Became.UNCHANGED, f"cannot be read: {error}"
    why = _note(message, place, known, f"held by {who or '?'}")
    if why:
        return Became.UNCHANGED, why
    log.queue_event(act="held", id=message.id, who=who)
    return Became.HELD, ""


def _release(message: Candidate, place: Place, who: str) -> Done:
    path = message.path(place.root)
    # A quarantined message that was never due is not known to be held: the files tell.
    try:
        envelope = stored.load(path, message.id, fs=place.fs).envelope
        known = state.load(path, fs=place.fs)
    except (Damaged, OSError) as error:
        return Became.UNCHANGED, f"cannot be read: {error}"
    if not known.held(envelope):
        return Became.UNCHANGED, NOT_HELD
    why = _note(message, place, known, "")
    if why:
        return Became.UNCHANGED, why
    log.queue_event(act="released", id=message.id, who=who)
    return Became.RELEASED, ""


def _note(message: Candidate, place: Place, known: state.State, reason: str) -> str:
    """Write it down. Returns why not."""
    path, line = message.path(place.root), state.Attempt(at=time.time(), hold=reason)
    try:
        state.append(path, line, known, durable=place.durable, fs=place.fs)
    except OSError as error:
        log.queue_event(act="unrecorded", id=message.id, detail=f"spool: {error.strerror}", level="error")
        return f"not recorded: {error.strerror}"
    return ""
