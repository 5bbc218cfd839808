"""When is a message tried again, warned of, given up? Pure: the same answers from the same records."""

from __future__ import annotations

import dataclasses
import math
import zlib

SPREAD = 0.2
"""Delays are 10 % shorter to 10 % longer: what was deferred together does not come back together."""
PROBE_FIRSTS = 12
"""A destination that is away is asked again after so many times the first delay at most, however patient its
mail is by then: it costs one connection. An hour by default; Postfix' maximal_backoff_time is 4000 s."""
MOST_DOUBLINGS = 30
"""Beyond it a float would overflow some day; every retry_max is reached long before."""


def jitter(key: str, attempt: int) -> float:
    """0 <= number < 1 that looks random, and is the same in every process: a CRC-32, not hash().

    So a due time can be told from id, attempt and the attempt's end alone, and a restart moves none.
    """
    return zlib.crc32(f"{key} {attempt}".encode()) / 2**32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How patient one route is. Seconds; the defaults are those of [queue]."""

    first_s: float = 300.0
    most_s: float = 14_400.0
    give_up_s: float = 432_000.0
    warn_s: float = 14_400.0
    """The sender is told of a delay after so long; 0: never."""

    def delay_s(self, key: str, attempt: int) -> float:
        """How long to wait after the attempt of that number, from 1: doubling from first_s to most_s.

        key  a queue id, say: what is deferred together has several
        """
        delay = min(self.most_s, self.first_s * 2.0 ** min(attempt - 1, MOST_DOUBLINGS))
        return delay * (1 - SPREAD / 2 + SPREAD * jitter(key, attempt))

    def probe_s(self, destination: str, failures: int) -> float:
        """How long to wait before a destination is asked again that was found away so often, from 1."""
        patient = dataclasses.replace(self, most_s=min(self.most_s, PROBE_FIRSTS * self.first_s))
        return patient.delay_s(destination, failures)

    @property
    def longest_s(self) -> float:
        """No wait is longer."""
        return self.most_s * (1 + SPREAD / 2)

    def due(self, queue_id: str, attempt: int, *, ended_at: float, received_at: float) -> float:
        """Unix time of the next try after that attempt was deferred.

        Never behind the moment of giving up: the last try is then, and not up to most_s later.
        """
        due = ended_at + self.delay_s(queue_id, attempt)
        give_up_at = received_at + self.give_up_s
        return min(due, give_up_at) if ended_at < give_up_at else due

    def due_of(self, queue_id: str, tries: int, *, ended_at: float, received_at: float) -> float:
        """As due(), of a recipient that was tried so often, the last time then; 0: now, it never was."""
        return self.due(queue_id, tries, ended_at=ended_at, received_at=received_at) if tries else 0.0

    def gives_up(self, *, received_at: float, now: float) -> bool:
        """What is deferred at that age has failed (RFC 3463 X.4.7)."""
        return now >= received_at + self.give_up_s

    def warns(self, *, received_at: float, now: float, warned: bool) -> bool:
        """The sender is to be told of the delay, once; not when the message is given up anyway."""
        if warned or not self.warn_s or self.gives_up(received_at=received_at, now=now):
            return False
        return now >= received_at + self.warn_s

    def next_look(self, *, received_at: float, now: float, warned: bool) -> float:
        """When a message that waits for its turn, not for a time, must be looked at again: to be warned of
        or given up. Behind `now`; infinite when nothing is left to say."""
        moments = [received_at + self.give_up_s]
        if self.warn_s and not warned:
            moments.append(received_at + self.warn_s)
        return min((moment for moment in moments if moment > now), default=math.inf)
