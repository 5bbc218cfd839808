"""What do admin and master say of what runs?"""

from __future__ import annotations

import msgspec

from forkd.rpc.message import Message


class AskStatus(Message, frozen=True, tag="ask_status"):
    """Admin to master."""

    n: int


class ProcessStatus(Message, frozen=True, tag="process"):
    """One child as `forkd status` shows it."""

    role: str
    slot: int
    pid: int
    state: str
    """starting | running | draining | backoff | stopped"""
    started_at: float
    restarts: int
    name: str = ""
    """The plugin's name for a zygote."""
    generation: int = 1
    """Of the configuration that it goes by; a role that goes on over a reload is of the one in force."""
    sessions: int = 0
    transactions: int = 0
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    info: dict[str, str] = msgspec.field(default_factory=dict)
    last_end: str = ""
    """How and why the one before it ended: `SIGKILL: no heartbeat for 10.0 s`; empty: there was none."""
    last_end_at: float = 0.0


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How many workers there may be ([pool], server.workers)."""

    min: int
    max: int
    sessions: int
    """Of each worker at most."""
    spare: int
    """Percent of all sessions that are to be free: with fewer one more worker is started, up to max."""


class Status(Message, frozen=True, tag="status"):
    """Answer to AskStatus."""

    n: int
    version: str
    state: str
    pid: int
    started_at: float
    hostname: str
    listeners: dict[str, str]
    durability: str
    processes: tuple[ProcessStatus, ...]
    sandbox: dict[str, str]
    """Layer -> enforced | absent | failed | unverified, from the start-up self-test."""
    notes: tuple[str, ...] = ()
    """What an admin should know: running as root without dropping, durability none, …"""
    generation: int = 1
    """Of the configuration: the one in force. The first is 1, each reload that is tried takes a number."""
    generation_at: float = 0.0
    """Since when."""
    reloading: bool = False
    """The next one is on its way."""
    not_reloaded: str = ""
    """Why the last reload came to nothing: what is in the files is not what runs. Empty: it is."""
    not_reloaded_at: float = 0.0
    pool: PoolStatus | None = None
    """None: there are no workers."""
    ended: dict[str, int] = msgspec.field(default_factory=dict)
    """Counters of all processes that have ended, added up by name."""
