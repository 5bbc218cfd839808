"""What does `forkd status` see of us? The pool, with what each process said last, as one message."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

from forkd.master.pool import Slot, State
from forkd.rpc import channel
from forkd.rpc.messages import Done, ProcessStatus, Status
from forkd.rpc.messages_pool import Heartbeat

MAX_LAST_END = 500
"""Characters of how a process ended: a plugin's author wrote what its zygote says as it gives up."""

_SHOWN = {
    State.WAITING: "backoff",
    State.STARTING: "starting",
    State.RUNNING: "running",
    State.DRAINING: "draining",
    State.GONE: "stopped",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What does not change while we run. `started_at` is Unix time."""

    version: str
    pid: int
    started_at: float
    hostname: str
    listeners: dict[str, str]
    durability: str
    sandbox: dict[str, str]
    notes: tuple[str, ...]


def answer(
    n: int, state: str, service: Service, slots: Iterable[tuple[Slot, Heartbeat | None]]
) -> Status | Done:
    """The answer to AskStatus `n`: one record, without counters and ends where it would not fit."""
    offset = time.time() - time.monotonic()
    processes = tuple(_process(slot, said or Heartbeat(), offset) for slot, said in slots)
    full = Status(
        n=n, state=state, processes=processes, version=service.version, pid=service.pid,
        started_at=service.started_at, hostname=service.hostname, listeners=service.listeners,
        durability=service.durability, sandbox=service.sandbox, notes=service.notes,
    )  # fmt: skip
    for attempt in (full, _without_counters(full)):
        try:
            channel.encode(attempt)
        except ValueError:
            continue
        return attempt
    return Done(n=n, error="there are too many processes for one answer")


def _process(slot: Slot, said: Heartbeat, offset: float) -> ProcessStatus:
    alive = slot.alive
    return ProcessStatus(
        role=slot.role,
        slot=slot.number,
        pid=slot.pid,
        state=_SHOWN[slot.state],
        started_at=slot.started_at + offset if slot.starts else 0.0,
        restarts=slot.restarts,
        name=slot.name,
        sessions=said.sessions if alive else 0,
        transactions=said.transactions if alive else 0,
        counters=said.counters,
        info=said.info,
        last_end=slot.last_end[:MAX_LAST_END],
        last_end_at=slot.last_end_at + offset if slot.last_end else 0.0,
    )


def _without_counters(status: Status) -> Status:
    processes = tuple(
        ProcessStatus(role=p.role, slot=p.slot, pid=p.pid, state=p.state, started_at=p.started_at,
                      restarts=p.restarts, name=p.name, sessions=p.sessions, transactions=p.transactions)
        for p in status.processes
    )  # fmt: skip
    return Status(
        n=status.n, version=status.version, state=status.state, pid=status.pid, started_at=status.started_at,
        hostname=status.hostname, listeners=status.listeners, durability=status.durability,
        processes=processes, sandbox=status.sandbox, notes=status.notes,
    )  # fmt: skip
