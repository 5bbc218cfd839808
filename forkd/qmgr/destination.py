"""How many deliveries may one destination have at once, and when is it tried again after it was away? Pure.

As Postfix' qmgr does it, with less: a window that each success widens by 1/window, so that a window's
worth of successes makes it one wider, and that each failure halves. A failure in a window of 1 means that the
destination is away: nothing is started there but one probe after a back-off, which grows as long as
probes fail. One probe that succeeds and the window opens again from 1.

Only what is the destination's own doing counts as failure (no connection, a greeting of 4xx, 421, silence).
A 4xx for one recipient or one message shows that it works.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forkd.deliver.transport import Result
    from forkd.qmgr.retry import Retry
    from forkd.qmgr.turns import Part

FIRST_WINDOW = 5.0
"""Of a destination that nothing is known of: Postfix' initial_destination_concurrency."""


class Seen(enum.Enum):
    """What one run showed of its destination."""

    WORKS = "works"
    """It took the mail, or refused that message or those recipients."""
    AWAY = "away"
    UNTRIED = "untried"
    """The run did not come so far: qmgr stops, the message could not be read."""


class Destination:
    """One next hop of one transport, and the parts of messages that are for it."""

    __slots__ = (
        "failed_at",
        "failures",
        "held",
        "in_ring",
        "limit",
        "name",
        "parts",
        "probe_at",
        "probing",
        "retry",
        "running",
        "transport",
        "waiting",
        "why",
        "window",
    )

    def __init__(
        self, transport: str, name: str, *, limit: int, retry: Retry, window: float = FIRST_WINDOW
    ) -> None:
        self.transport = transport
        self.name = name
        self.limit = limit
        """Deliveries at once, at most: the route's concurrency."""
        self.retry = retry
        self.window = min(window, float(limit))
        self.running = 0
        self.failed_at = 0.0
        """When it was last found away, Unix time."""
        self.why: Result | None = None
        """What was said then."""
        self.failures = 0
        """Times it was found away, since it last worked."""
        self.probe_at: float | None = None
        """Unix time; None: it works, as far as we know."""
        self.probing = False
        self.held = False
        """By an admin: nothing is started there."""
        self.parts: dict[str, Part] = {}
        """All that is known to be for it, by queue id."""
        self.waiting: deque[Part] = deque()
        """For their turn, the first first; some may have left (Part.stage tells)."""
        self.in_ring = False

    @property
    def key(self) -> tuple[str, str]:
        """Its name among all."""
        return self.transport, self.name

    @property
    def away(self) -> bool:
        """Its mail waits together for one probe."""
        return self.probe_at is not None

    def free(self, now: float) -> int:
        """So many more runs may start now."""
        if self.held:
            return 0
        if self.probe_at is not None:
            return int(not self.probing and now >= self.probe_at)
        return max(0, int(self.window) - self.running)

    def start(self) -> bool:
        """One run more; true when it is the probe."""
        self.running += 1
        if self.probe_at is None:
            return False
        self.probing = True
        return True

    def end(self, seen: Seen, now: float, *, probe: bool, why: Result | None = None) -> None:
        """One run less, and what it showed."""
        self.running -= 1
        if probe:
            self.probing = False
        if seen is Seen.WORKS:
            self._works()
        elif seen is Seen.AWAY and (probe or not self.away):
            # Runs that began before it was found away say nothing new.
            self.failed_at, self.why = now, why
            self._fails(now)

    def forget(self) -> None:
        """As if nothing were known of it: an admin says that it is back."""
        self.probe_at = None
        self.failures = 0
        self.window = max(self.window, min(FIRST_WINDOW, float(self.limit)))

    def _works(self) -> None:
        if self.probe_at is not None:
            self.probe_at = None
            self.window = 1.0
        else:
            self.window = min(float(self.limit), self.window + 1.0 / self.window)
        self.failures = 0

    def _fails(self, now: float) -> None:
        if self.window >= 2.0 and self.probe_at is None:
            self.window /= 2.0
            return
        self.window = 1.0
        self.failures += 1
        key = f"{self.transport} {self.name}"
        self.probe_at = now + self.retry.probe_s(key, self.failures)
