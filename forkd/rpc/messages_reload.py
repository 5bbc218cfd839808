"""What do admin and master say of a reload?"""

from __future__ import annotations

import msgspec

from forkd.rpc.message import Message


class AskReload(Message, frozen=True, tag="ask_reload"):
    """Admin to master: answered when it is over; `who` for the audit line."""

    n: int
    who: str


class Changed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key of the configuration that is not as it was; both values as TOML would have them."""

    key: str
    old: str = ""
    new: str = ""
    why: str = ""
    """Of one that needs a restart."""


class Reloaded(Message, frozen=True, tag="reloaded"):
    """Answer to AskReload. With an `error` the old configuration stays in force, and nothing was applied."""

    n: int
    generation: int
    """The one in force now."""
    error: str = ""
    applied: tuple[Changed, ...] = ()
    needs_restart: tuple[Changed, ...] = ()
    unchanged: int = 0
    """Keys."""
    renewed: tuple[str, ...] = ()
    """Processes that are others now."""
    kept: tuple[str, ...] = ()
    """Processes that were given nothing new, and go on."""
    seconds: float = 0.0
