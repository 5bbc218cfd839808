"""What does `forkd status` see of us? The pool, with what each process said last, as one message."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping

import msgspec

from forkd.master.place import Place
from forkd.master.pool import State
from forkd.rpc import channel
from forkd.rpc.messages import Done
from forkd.rpc.messages_pool import Heartbeat
from forkd.rpc.messages_status import PoolStatus, ProcessStatus, Status

MAX_LAST_END = 500
"""Characters of how a process ended: a plugin's author wrote what its zygote says as it gives up."""
MAX_NOT_RELOADED = 2000
"""Characters of why a reload came to nothing: all of it was in its answer, and is in the log."""

_SHOWN = {
    State.WAITING: "backoff",
    State.STARTING: "starting",
    State.RUNNING: "running",
    State.DRAINING: "draining",
    State.GONE: "stopped",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What changes by a reload alone. Times are Unix time, those of not_reloaded as Status has them."""

    version: str
    pid: int
    started_at: float
    hostname: str
    listeners: dict[str, str]
    durability: str
    sandbox: dict[str, str]
    notes: tuple[str, ...]
    generation: int = 1
    generation_at: float = 0.0
    not_reloaded: str = ""
    not_reloaded_at: float = 0.0
    pool: PoolStatus | None = None

    def kept(self, why: str) -> Service:
        """A reload has come to nothing: why."""
        return dataclasses.replace(self, not_reloaded=why[:MAX_NOT_RELOADED], not_reloaded_at=time.time())


def answer(
    n: int,
    state: str,
    service: Service,
    places: Iterable[Place],
    *,
    ended: Mapping[str, int],
    reloading: bool = False,
) -> Status | Done:
    """The answer to AskStatus `n`: one record, without counters and ends where it would not fit."""
    offset = time.time() - time.monotonic()
    full = Status(
        n=n,
        state=state,
        processes=tuple(_process(place, offset) for place in places),
        ended=dict(ended),
        reloading=reloading,
        **{field.name: getattr(service, field.name) for field in dataclasses.fields(service)},
    )
    for attempt in (full, _without_counters(full)):
        try:
            channel.encode(attempt)
        except ValueError:
            continue
        return attempt
    return Done(n=n, error="there are too many processes for one answer")


def _process(place: Place, offset: float) -> ProcessStatus:
    slot, said = place.slot, place.said or Heartbeat()
    alive = slot.alive
    return ProcessStatus(
        role=slot.role,
        slot=slot.number,
        pid=slot.pid,
        state=_SHOWN[slot.state],
        started_at=slot.started_at + offset if slot.starts else 0.0,
        restarts=slot.restarts,
        name=slot.name,
        generation=place.generation,
        sessions=said.sessions if alive else 0,
        transactions=said.transactions if alive else 0,
        counters=said.counters,
        info=said.info,
        last_end=slot.last_end[:MAX_LAST_END],
        last_end_at=slot.last_end_at + offset if slot.last_end else 0.0,
    )


def _without_counters(status: Status) -> Status:
    bare = tuple(
        msgspec.structs.replace(each, counters={}, info={}, last_end="", last_end_at=0.0)
        for each in status.processes
    )
    return msgspec.structs.replace(status, processes=bare, ended={}, not_reloaded=status.not_reloaded[:200])
