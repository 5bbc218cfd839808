"""Which commands may go out now, and which of them does the next reply belong to? (RFC 2920)"""

from __future__ import annotations

from collections import deque
from typing import Final

from forkd.smtp.client_phases import Phase

MOST_IN_FLIGHT: Final = 100
"""Commands without a reply. Their replies, 51 KiB at most by RFC 5321 4.5.3.1.5, fit into a socket's buffer:
so a server that answers can always read on, and we may write all of it before we read (RFC 2920 3.1)."""

Awaited = tuple[Phase, int]
"""What a reply is for; which recipient, -1: none of them."""


class Pipeline:
    """Commands that wait to go, and those that went and have no reply yet."""

    __slots__ = ("_flight", "_unsent")

    def __init__(self) -> None:
        self._unsent: deque[tuple[Awaited, bytes]] = deque()
        self._flight: deque[Awaited] = deque()

    def add(self, phase: Phase, octets: bytes, index: int = -1) -> None:
        """A command, to go when it may."""
        self._unsent.append(((phase, index), octets))

    def expect(self, phase: Phase, index: int = -1) -> None:
        """A reply that comes without a command of its own, after all that are awaited now."""
        if self._unsent:
            self._unsent.append(((phase, index), b""))
        else:
            self._flight.append((phase, index))

    def leave(self, *, pipelining: bool) -> list[bytes]:
        """The commands that may go now."""
        unsent, flight = self._unsent, self._flight
        most = MOST_IN_FLIGHT if pipelining else 1
        gone = []
        while unsent and (len(flight) < most or not unsent[0][1]):
            awaited, octets = unsent.popleft()
            flight.append(awaited)
            gone.append(octets)
        return gone

    def answered(self) -> Awaited | None:
        """What the reply that came is for; None: nobody asked."""
        return self._flight.popleft() if self._flight else None

    def drop_unsent(self) -> None:
        """What has not gone need not go any more."""
        self._unsent.clear()

    def clear(self) -> None:
        """Nothing is awaited any more."""
        self._unsent.clear()
        self._flight.clear()

    @property
    def awaited(self) -> Phase | None:
        """What the next reply is for, also where its command has not gone yet; None: nothing is under way."""
        if self._flight:
            return self._flight[0][0]
        return self._unsent[0][0][0] if self._unsent else None

    @property
    def unsent(self) -> bool:
        """Commands wait to go."""
        return bool(self._unsent)

    @property
    def idle(self) -> bool:
        """None waits, none is in flight."""
        return not self._unsent and not self._flight

    @property
    def in_flight(self) -> int:
        """Replies that are due."""
        return len(self._flight)
