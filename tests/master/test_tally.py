"""What processes counted that are no more (tally.py)."""

from __future__ import annotations

from forkd.master.tally import MOST, MOST_NAMES, Tally
from forkd.rpc import channel
from forkd.rpc.messages_status import Status


def test_counters_are_added_up_by_name():
    """A worker that was replaced twice."""
    tally = Tally()
    for counters in ({"messages": 3, "refused": 1}, {"messages": 4, "idle": 0}):
        tally.add(counters)
    assert tally.counted == {"messages": 7, "refused": 1}


def test_who_was_taken_over_cannot_make_it_large_or_wrong():
    """New names with each death, numbers beyond what a record takes, numbers that fall."""
    tally = Tally()
    for death in range(10):
        tally.add({f"name{death}.{number}": 1 for number in range(MOST_NAMES // 5)} | {"messages": 2**64 - 1})
    tally.add({"messages": -5})
    assert len(tally.counted) == MOST_NAMES
    assert tally.counted["messages"] == MOST
    empty = Status(
        n=1, version="", state="", pid=1, started_at=0.0, hostname="", listeners={}, durability="",
        processes=(), sandbox={}, ended={"messages": MOST},
    )  # fmt: skip
    assert channel.encode(empty)
