"""What a process has counted outlasts it, and is read by somebody who believes nothing of it."""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from forkd import metrics, metrics_slot
from forkd.metrics_events import EVENTS, Counting, counting
from forkd.metrics_slot import HEAD, Slot


@pytest.fixture
def fd() -> Iterator[int]:
    made = metrics_slot.create("test")
    yield made
    os.close(made)


def seen(fd: int, now: float | None = None) -> dict[tuple[str, ...], tuple[float, ...]]:
    read = metrics_slot.read(fd, time.monotonic() if now is None else now)
    return {(family.name, *labels): numbers for family, labels, numbers in read}


def test_a_successor_goes_on_with_what_the_one_before_counted(fd: int):
    """Counters and histograms never fall; gauges begin anew."""
    first = Slot(fd)
    first.add(metrics.REPLIES, "250")
    first.add(metrics.REPLIES, "250", by=2)
    first.observe(metrics.COMMIT_SECONDS, 0.003)
    first.set(metrics.SESSIONS, 7)
    first.beat()
    assert seen(fd)[("forkd_sessions",)] == (7.0,)
    second = Slot(fd)
    assert ("forkd_sessions",) not in seen(fd)
    second.add(metrics.REPLIES, "250")
    second.observe(metrics.COMMIT_SECONDS, 1e9)
    second.beat()
    found = seen(fd)
    assert found["forkd_replies_total", "250"] == (4.0,)
    assert found[("forkd_sessions",)] == (0.0,)
    histogram = found[("forkd_spool_commit_seconds",)]
    assert histogram[metrics.QUICK.index(0.005)] == 1
    assert histogram[-2:] == (1.0, 1e9 + 0.003)
    assert sum(histogram[:-1]) == 2


def test_a_bound_belongs_to_its_bucket(fd: int):
    """Prometheus' le is less or equal."""
    slot = Slot(fd)
    slot.observe(metrics.COMMIT_SECONDS, 0.0005)
    assert seen(fd)[("forkd_spool_commit_seconds",)][0] == 1


def test_gauges_of_who_is_silent_or_has_ended_are_nobodys(fd: int):
    """A worker that was killed and has no successor serves no sessions."""
    slot = Slot(fd)
    slot.set(metrics.SESSIONS, 7)
    slot.add(metrics.REPLIES, "250")
    slot.beat()
    assert ("forkd_sessions",) in seen(fd)
    late = seen(fd, time.monotonic() + metrics_slot.STALE_S + 1)
    assert ("forkd_sessions",) not in late
    assert ("forkd_replies_total", "250") in late
    slot.end()
    assert ("forkd_sessions",) not in seen(fd)


def test_what_has_no_room_is_counted_as_such_and_nothing_breaks(fd: int):
    """However many series a fault of ours would make."""
    slot = Slot(fd)
    for number in range(30_000):
        slot.add(metrics.REFUSALS, f"COMMAND{number}", "500")
    slot.observe(metrics.PLUGIN_SECONDS, 1.0, "one more")
    found = seen(fd)
    lost = found[("forkd_metrics_lost_total",)][0]
    assert lost == 30_001 - (len(found) - 1) > 0
    slot.add(metrics.REFUSALS, "COMMAND0", "500")
    assert seen(fd)["forkd_refusals_total", "COMMAND0", "500"] == (2.0,)


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"x" * metrics_slot.SIZE,
        metrics_slot.MAGIC + struct.pack("=Qdd", 1 << 60, 1.0, float("nan")) + b"\xff" * 4000,
        metrics_slot.MAGIC + struct.pack("=Qdd", 4000, float("inf"), -1.0) + bytes(4000),
        metrics_slot.MAGIC
        + struct.pack("=Qdd", 40, 0, 0)
        + struct.pack("=IHH", 40, 20, 1)
        + b"forkd_sessions\0a\0b\0c\0"[:20].ljust(24, b"\0")
        + struct.pack("=d", 1),
    ],
)
def test_nonsense_in_a_slot_is_left_out(fd: int, written: bytes):
    """A process that was taken over writes what it likes: it lies about its own numbers, and no more."""
    os.pwrite(fd, written, 0)
    assert seen(fd) == {}


def test_numbers_that_are_none_are_left_out(fd: int):
    slot = Slot(fd)
    slot.add(metrics.REPLIES, "250", by=float("nan"))
    slot.add(metrics.REPLIES, "251", by=-5)
    slot.add(metrics.REPLIES, "252")
    assert seen(fd) == {("forkd_replies_total", "252"): (1.0,)}


def test_a_label_that_is_cut_is_one_series(fd: int):
    """However long a listener's name is, and whatever is in it: else each count made another one, and soon
    the slot had no room for anything."""
    for _ in range(2):
        slot = Slot(fd)
        for name in ("l" * 150, "l" * 151, "nul\0", "half \udc80"):
            slot.add(metrics.CONNECTIONS, name)
            slot.add(metrics.CONNECTIONS, name)
    assert {name[1]: numbers[0] for name, numbers in seen(fd).items()} == {
        "l" * 100: 8, "nul?": 4, "half ?": 4,
    }  # fmt: skip


def test_what_is_lost_is_events_not_octets(fd: int):
    slot = Slot(fd)
    for number in range(30_000):
        slot.add(metrics.REFUSALS, f"COMMAND{number}", "500")
    lost = seen(fd)[("forkd_metrics_lost_total",)][0]
    slot.add(metrics.MESSAGE_BYTES, by=5e6)
    assert seen(fd)[("forkd_metrics_lost_total",)] == (lost + 1,)


@pytest.mark.parametrize("number", [float("nan"), -1.0, 1e300])
def test_a_number_that_was_none_is_one_again_with_the_next_process(fd: int, number: float):
    """Else that counter would be gone until master is restarted."""
    for _ in range(2):
        slot = Slot(fd)
        slot.add(metrics.REPLIES, "250")
    slot.numbers[slot.place(metrics.REPLIES, ("250",))] = number
    assert seen(fd) == {}
    Slot(fd).add(metrics.REPLIES, "250")
    assert seen(fd) == {("forkd_replies_total", "250"): (1.0,)}


def test_labels_that_are_not_the_familys_are_a_bug(fd: int):
    """Counted as lost for want of room they would be looked for in the wrong place."""
    with pytest.raises(AssertionError, match="has labels"):
        Slot(fd).add(metrics.REPLIES, "250", "one more")


def test_who_was_taken_over_cannot_shrink_its_slot(fd: int):
    """Whoever has it mapped would die of that."""
    with pytest.raises(PermissionError):
        os.ftruncate(fd, HEAD)


def test_without_a_slot_counting_costs_nothing_and_breaks_nothing():
    slot = Slot(-1)
    for number in range(1000):
        slot.add(metrics.REFUSALS, f"COMMAND{number}", "500")
    slot.beat()
    assert counting(slot) is None


def test_dropped_lines_are_counted_by_role(fd: int):
    """And told of a process' own alone."""
    count = Counting(Slot(fd))
    for _ in range(2):
        count("log_dropped", {"process": "worker.3", "lines": 70})
    assert seen(fd) == {("forkd_log_lines_dropped_total", "worker"): (140.0,)}
    assert metrics.LOG_DROPPED.told_by("worker", ("worker",))
    assert not metrics.LOG_DROPPED.told_by("worker", ("qmgr",))


ACCEPTED = {
    "reply": "250 2.0.0 ok",
    "size": 4096,
    "recipients": ["a@example.org", "b@example.org"],
    "seconds": 0.3,
}
OTHERS = (
    ACCEPTED | {"discarded": True},
    ACCEPTED | {"reply": "451 4.3.0 later"},
    ACCEPTED | {"reply": "550 5.7.1 no", "size": 0},
)


def test_the_short_way_of_an_accepted_message_counts_as_the_long_one(fd: int):
    """Its numbers are written in one go; what a row of the table would have counted."""
    other = metrics_slot.create("other")
    try:
        count, slot = Counting(Slot(fd)), Slot(other)
        for fields in (ACCEPTED, *OTHERS, ACCEPTED):
            count("message", fields)
            EVENTS["message"](slot, fields)
        assert seen(fd) == seen(other)
        assert seen(fd)["forkd_messages_total", "accepted"] == (2.0,)
        assert seen(fd)[("forkd_recipients_total",)] == (4.0,)
    finally:
        os.close(other)


def test_a_message_that_has_no_room_breaks_nothing(fd: int):
    """Else its numbers were written over the head."""
    slot = Slot(fd)
    for number in range(30_000):
        slot.add(metrics.REFUSALS, f"COMMAND{number}", "500")
    before = seen(fd)
    count = Counting(slot)
    for _ in range(2):
        count("message", ACCEPTED)
    lost = ("forkd_metrics_lost_total",)
    after = seen(fd)
    assert after.pop(lost) > before.pop(lost)
    assert after == before


def test_threads_lose_nothing(fd: int):
    """Lanes of qmgr log, and so count, each on a thread of its own."""
    count = Counting(Slot(fd))

    def work() -> None:
        for _ in range(2000):
            count("message", ACCEPTED)

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switching)
    assert seen(fd)["forkd_messages_total", "accepted"] == (8000.0,)
