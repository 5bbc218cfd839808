"""What do a queued message's files say to an admin? Read beside the loop; also where no qmgr runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from forkd.fs import REAL, Fs
from forkd.qmgr.schedule import Entry, Standing
from forkd.queue import state, stored
from forkd.queue.format import Damaged
from forkd.queue.ids import QueueId, time_of
from forkd.queue.outcome import Outcome
from forkd.queue.state import State
from forkd.queue.stored import StoredMessage
from forkd.rpc.messages import QueueEntry

ANSWER_BYTES = 40_000
"""Of what can grow in one answer, so that the record stays below channel.MAX_RECORD_BYTES (65,536)."""

TAIL_BYTES = 4096
"""What is read of a message's file, from its end: nearly every envelope is smaller."""

SHOWN_RECIPIENTS = 10
SHOWN_ATTEMPTS = 20
REASON_CHARACTERS = 500

_encode = msgspec.json.Encoder().encode


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A message as the loop knows it, copied, so that another thread may look at its files.

    standing   None: there is no loop that would know
    waits_for  a next hop that is away, and what was said there
    lent       its entry, where it is lent to that thread
    """

    id: QueueId
    slot: str
    standing: Standing | None = None
    due: float = 0.0
    waits_for: str = ""
    lent: Entry | None = None

    @classmethod
    def of(
        cls, entry: Entry, *, waits_for: str = "", due: float | None = None, lent: bool = False
    ) -> Candidate:
        """On the loop's thread."""
        due = entry.due if due is None else due
        return cls(entry.id, entry.slot, entry.standing, due, waits_for, entry if lent else None)

    def path(self, root: str) -> str:
        """The message's file."""
        return f"{root}/new/{self.slot}/{self.id}"


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A message, its outcomes, and what follows from both.

    message    None: it cannot be read, `reason` says why
    undone     indexes of the recipients that do not have it
    state      as `forkd queue list` names it (Standing)
    """

    candidate: Candidate
    message: StoredMessage | None
    known: State
    undone: Sequence[int]
    state: str
    reason: str
    next_try_at: float

    @property
    def sender(self) -> str:
        """The null sender, and that of what cannot be read, is the empty string."""
        return "" if self.message is None else self.message.envelope.sender

    @property
    def received_at(self) -> float:
        """Of what cannot be read: when its id was made."""
        return time_of(self.candidate.id) if self.message is None else self.message.envelope.received_at

    @property
    def size(self) -> int:
        """Octets of header and body."""
        return 0 if self.message is None else self.message.size

    def recipients(self) -> list[str]:
        """Addresses of those that do not have it."""
        if self.message is None:
            return []
        recipients = self.message.envelope.recipients
        return [recipients[i].address for i in self.undone]


def look(root: str, candidate: Candidate, *, fs: Fs = REAL) -> Seen | None:
    """Read its files; None when it has just gone. Blocks for the disk; raises nothing that is not a bug."""
    path = candidate.path(root)
    try:
        message = stored.load(path, candidate.id, whole=TAIL_BYTES, fs=fs)
        known = state.load(path, fs=fs)
    except FileNotFoundError:
        return None
    except (Damaged, OSError) as error:
        return _unreadable(candidate, str(error))
    recipients = message.envelope.recipients
    last = known.last
    undone = [i for i, each in enumerate(recipients) if not each.fate and not _over(last.get(i))]
    standing = candidate.standing
    held = known.held(message.envelope) if standing is not Standing.RUNNING else ""
    reason = held or candidate.waits_for or next((last[i].text for i in undone if i in last), "")
    due = candidate.due
    if standing is None:
        # As qmgr will see it when it starts (Intake.recover).
        standing, due = Standing.WAITING, known.next_try_at
    if held:
        standing = Standing.HELD
    elif standing is Standing.WAITING and not known.attempts and not candidate.waits_for:
        standing = Standing.RUNNING  # its first try is now
    return Seen(
        candidate,
        message,
        known,
        undone,
        state=standing.value,
        reason=reason[:REASON_CHARACTERS],
        next_try_at=0.0 if standing is Standing.HELD else due,
    )


def _over(outcome: Outcome | None) -> bool:
    """Nothing more is done for that recipient: delivered, or failed and its sender knows."""
    return outcome is not None and (
        outcome.status == "delivered" or (outcome.status == "failed" and outcome.told)
    )


def _unreadable(candidate: Candidate, why: str) -> Seen:
    standing = candidate.standing or Standing.WAITING
    reason = f"cannot be read: {why}"[:REASON_CHARACTERS]
    return Seen(candidate, None, State(), (), standing.value, reason, candidate.due)


def entry_of(seen: Seen, *, detail: str = "") -> QueueEntry:
    """As it goes to admin."""
    recipients = seen.recipients()
    return QueueEntry(
        id=seen.candidate.id,
        sender=seen.sender,
        recipients=tuple(recipients[:SHOWN_RECIPIENTS]),
        more_recipients=max(0, len(recipients) - SHOWN_RECIPIENTS),
        size=seen.size,
        received_at=seen.received_at,
        attempts=seen.known.attempts,
        next_try_at=seen.next_try_at,
        reason=seen.reason,
        state=seen.state,
        detail=detail,
    )


def whole_entry(root: str, candidate: Candidate, *, fs: Fs = REAL) -> QueueEntry | None:
    """With all that is known of it; None when it has just gone. As look()."""
    seen = look(root, candidate, fs=fs)
    return None if seen is None else entry_of(seen, detail=_detail(root, seen, fs))


def _detail(root: str, seen: Seen, fs: Fs) -> str:
    """Envelope, outcomes and attempts as JSON; of too much, the first recipients and last attempts."""
    if seen.message is None:
        return ""
    envelope = seen.message.envelope
    try:
        attempts = state.history(seen.candidate.path(root), fs=fs)
    except OSError:
        attempts = []
    count = len(envelope.recipients)
    for shown, tries in ((count, SHOWN_ATTEMPTS), (100, SHOWN_ATTEMPTS), (10, 5), (1, 1)):
        indexes = range(min(shown, count))
        text: bytes = _encode(
            {
                "envelope": msgspec.structs.replace(
                    envelope, recipients=tuple(envelope.recipients[i] for i in indexes)
                ),
                "recipients": count,
                "outcomes": [_outcome(seen, i) for i in indexes if i in seen.known.last],
                "attempts": [_attempt(line) for line in attempts[-tries:]],
            }
        )
        if len(text) <= ANSWER_BYTES:
            return text.decode()
    return ""


def _outcome(seen: Seen, index: int) -> dict[str, Any]:
    assert seen.message is not None
    outcome = seen.known.last[index]
    return {
        "index": index,
        "recipient": seen.message.envelope.recipients[index].address,
        "status": outcome.status,
        "enhanced": outcome.enhanced,
        "text": outcome.text,
        "host": outcome.host,
        "reply": outcome.reply,
    }


def _attempt(line: state.Attempt) -> dict[str, Any]:
    if line.hold is not None:
        return {"at": line.at, "hold": line.hold}
    statuses = [outcome.status for outcome in line.outcomes]
    counts = {status: statuses.count(status) for status in ("delivered", "deferred", "failed")}
    together = {"attempts": line.before.attempts} if line.before is not None else {}
    return {
        "at": line.at, "next_try_at": line.next_try_at, **together, **{s: n for s, n in counts.items() if n}
    }  # fmt: skip
