"""What does master tell admin of metrics? Where there is one more slot to read."""

from __future__ import annotations

from forkd.rpc.message import Message


class SlotMade(Message, frozen=True, tag="slot"):
    """Master to admin: a process at a new place counts (forkd/metrics_slot.py). With the record goes a
    descriptor to read its slot by."""

    name: str
    """`worker.3`"""
