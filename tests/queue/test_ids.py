"""Queue ids and process marks."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from forkd.queue import ids
from forkd.queue.ids import ID, Ids, Process, alive, boot, time_of


def test_ids_sort_by_time_and_are_short() -> None:
    """0-9 A-Z, at most 20, growing."""
    maker = Ids("w0")
    made = [maker.new() for _ in range(1000)]
    assert made == sorted(set(made))
    assert all(ID.fullmatch(i) and len(i) <= 20 for i in made)
    assert abs(time_of(made[0]) - time.time()) < 10


def test_ids_grow_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a process no id comes twice, whatever the clock does."""
    maker = Ids("w0")
    first = maker.new()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 10**18)
    assert maker.new() > first


def test_a_forked_process_makes_other_ids() -> None:
    """Unique over workers and restarts: a fork gets a tail of its own."""
    maker = Ids("w0")
    ours = maker.new()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_end, maker.new().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    theirs = os.read(read_end, 100).decode()
    os.close(read_end)
    os.close(write_end)
    assert theirs[10:14] != ours[10:14]
    assert theirs[14:] == ours[14:] == "W0"


@pytest.mark.parametrize("slot", ["", "W0", "../x", "w0/", "toolong1"])
def test_a_slot_is_a_plain_name(slot: str) -> None:
    """It becomes a folder's name."""
    with pytest.raises(ValueError, match="slot"):
        Ids(slot)


def test_a_living_process_is_alive_and_its_namesakes_are_not() -> None:
    """Pid, start time and boot together: each of them comes again alone."""
    pid, start, boot_mark = Process.mark().split(".")
    assert boot_mark == boot()
    assert alive(int(pid), int(start), boot_mark)
    assert not alive(int(pid), int(start) + 1, boot_mark)
    assert not alive(int(pid), int(start), "00000000")


def test_a_dead_process_is_dead() -> None:
    """ESRCH is the only proof."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert not alive(child.pid, 0, boot())
