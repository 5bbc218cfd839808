"""What do master and its roles say of being alive, of room, and of the end?"""

from __future__ import annotations

import msgspec

from forkd.rpc.message import Message

# --- role -> master ---------------------------------------------------------------------------------


class Heartbeat(Message, frozen=True, tag="beat"):
    """From the loop that does the work, once a second. Counters never fall within one process."""

    state: str = "running"
    """running | draining"""
    sessions: int = 0
    transactions: int = 0
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    """accepted, messages, refused, plugin_failures, … for `forkd status`."""
    info: dict[str, str] = msgspec.field(default_factory=dict)
    sandboxes: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    """Of workers: every plugin -> sandboxes held since the last heartbeat, the fewest and the most."""
    places: int = 0
    """Of workers: sessions it may have (limits.sessions); 0: not told."""
    busy: float = 0.0
    """Of workers: processor time since the last heartbeat, as a share of one processor."""
    memory: int = 0
    """Of workers: octets that are its own."""
    served: int = 0
    """Of workers: sessions since it started."""


# --- master -> role ---------------------------------------------------------------------------------


class Stop(Message, frozen=True, tag="stop"):
    """Stop taking work; idle sessions get 421, transactions finish until `deadline_s` (None: no limit)."""

    deadline_s: float | None
    gently: bool = False
    """Others serve on: sessions go on too, and only one that stays idle for a while gets its 421."""


class Log(Message, frozen=True, tag="log"):
    """To a role that a reload keeps as it is: [log] of the configuration in force."""

    format: str
    level: str


class Room(Message, frozen=True, tag="room"):
    """Master to worker: is there room in another worker, or soon will be?"""

    elsewhere: bool
    """True: who is full leaves new connections to others. False: idle sessions give way to them."""
