"""Where do plugins keep what outlives a session? The interface that the rest of the broker knows.

sqlite_store.py stands behind it; a store shared by several machines can as well.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from forkd.broker.protocol import StateRequest

Result = bool | int | str | None
"""Of Get and Incr the value, of Set, Add and Delete whether it was done."""


class StateError(Exception):
    """What was asked cannot be done; the text is for the plugin's author."""


class StoreUnavailable(Exception):  # noqa: N818 - a state of the world
    """Nothing can be done now."""


class Store(Protocol):
    """Keys and values by namespace."""

    def ask(self, namespace: str, request: StateRequest) -> asyncio.Future[Result]:
        """Do it: atomic, and visible to every request after it. The future fails with StateError or
        StoreUnavailable."""
        ...

    def info(self) -> dict[str, str]:
        """For the heartbeat."""
        ...

    async def close(self) -> None:
        """Make everything durable."""
        ...
