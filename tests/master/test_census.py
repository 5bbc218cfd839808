"""forkd/master/census.py: whose is every process of a plugin?"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from forkd.master import census
from forkd.master.census import LEAVE, LOOK_S, SETTLED_S, Census
from tests.support.waiting import wait_for

ZYGOTE, WORKER = 100, 7


def processes(*pids: int) -> set[census.Process]:
    return {(pid, 1) for pid in pids}


class Story:
    """A census over one plugin: looks LOOK_S apart, heartbeats of one worker in between."""

    def __init__(self) -> None:
        self.census = Census()
        self.census.started("p", ZYGOTE, 1)
        self.now = 1000.0
        self.sessions = {ZYGOTE: processes()}

    def look(self, *pids: int, workers: tuple[int, ...] = (WORKER,)) -> list[str]:
        """The names that must end."""
        self.sessions[ZYGOTE] = processes(*pids)
        condemned = self.census.judge(self.sessions, workers, self.now)
        return [name for name, _ in condemned]

    def later(self, fewest: int, most: int, *, after_s: float = SETTLED_S) -> None:
        """A heartbeat, then the time of the next look."""
        self.census.heard(WORKER, {"p": (fewest, most)}, self.now + after_s)
        self.now += LOOK_S


def test_sandboxes_that_workers_hold_are_fine():
    """As many as were held all the time may have been there all the time."""
    story = Story()
    for _ in range(5):
        assert story.look(1, 2, 3) == []
        story.later(3, 5)


def test_a_helper_that_no_worker_holds_is_found_at_the_second_look_that_shows_it():
    """Once may be a mistake of ours; twice in a row is not."""
    story = Story()
    assert story.look(1, 2) == []
    story.later(1, 9)
    assert story.look(1, 2) == []
    story.later(1, 9)
    assert story.look(1, 2) == ["p"]


def test_processes_that_come_and_go_are_not_helpers():
    """Thousands of sessions an hour: nobody is there at two looks."""
    story = Story()
    for number in range(6):
        assert story.look(10 * number, 10 * number + 1) == []
        story.later(0, 4)


def test_a_pid_that_came_again_is_another_process():
    """pids are used again; start times tell them apart."""
    story = Story()
    for number in range(6):
        story.sessions[ZYGOTE] = {(1, number)}
        assert story.census.judge(story.sessions, (WORKER,), story.now) == []
        story.later(0, 1)


def test_helpers_that_replace_each_other_are_found_by_their_number():
    """None is there at two looks, but all of them are more than workers ever held."""
    story = Story()
    seen = []
    for number in range(4):
        seen += story.look(*range(100 * number, 100 * number + LEAVE + 6))
        story.later(0, 4)
    assert seen == ["p", "p"]


def test_a_burst_between_two_heartbeats_is_no_crowd_of_helpers():
    """The most that was held since the last heartbeat counts, not what is held when it is sent."""
    story = Story()
    for number in range(6):
        assert story.look(*range(1000 * number, 1000 * number + 200)) == []
        story.later(0, 200)


@pytest.mark.parametrize("what", ["silent", "early"])
def test_what_workers_did_not_say_in_time_condemns_nobody(what: str):
    """A worker that stands still, or whose heartbeat speaks of the time before the look, cannot be asked."""
    story = Story()
    for _ in range(5):
        assert story.look(1, 2) == []
        if what == "early":
            story.later(0, 0, after_s=0.1)
        else:
            story.now += LOOK_S


def test_what_a_dead_zygote_left_behind_is_counted_with_its_successors_processes():
    """A plugin that lets its zygote die must not hide helpers so."""
    story = Story()
    story.sessions = {ZYGOTE: processes(1), 200: processes()}
    story.census.started("p", 200, 2)
    assert story.census.sessions("p") == {ZYGOTE: 1, 200: 2}
    found = []
    for _ in range(3):
        found += story.census.judge(story.sessions, (WORKER,), story.now)
        story.later(0, 0)
    assert [name for name, _ in found] == ["p"]


def test_a_session_without_processes_is_forgotten():
    """Or a look would cost more with each death."""
    story = Story()
    story.census.reaped("p", ZYGOTE)
    story.census.started("p", 200, 2)
    story.sessions = {ZYGOTE: processes(), 200: processes()}
    story.census.judge(story.sessions, (WORKER,), story.now)
    assert story.census.sessions("p") == {200: 2}


HELPERS = """
import os, signal, sys, time
os.setsid()
pids = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    pids.append(pid)
print(*pids, flush=True)
time.sleep(600)
"""


def test_a_look_sees_a_sessions_processes_and_end_ends_them():
    """Real processes: the leader is not counted, the dead are not, and all are ended when he is dead."""
    with subprocess.Popen([sys.executable, "-c", HELPERS], stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        pids = {int(pid) for pid in leader.stdout.readline().split()}
        sessions = {leader.pid: census.start_time(leader.pid)}
        assert {pid for pid, _ in census.look(sessions)[leader.pid]} == pids
        assert {census.session_of(pid) for pid in pids} == {leader.pid}
        leader.kill()
        leader.wait()
        began = time.monotonic()
        census.end(sessions)
        assert time.monotonic() - began < 1.0  # 0.1 s, with ten times slack
        wait_for(lambda: not census.look(sessions)[leader.pid])
    assert all(census.session_of(pid) == 0 for pid in pids)


def test_a_stranger_with_a_dead_zygotes_number_is_left_alone():
    """pids come again: the leader of that session started at another time, and its processes are not ours."""
    with subprocess.Popen([sys.executable, "-c", HELPERS], stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout is not None
        pids = {int(pid) for pid in stranger.stdout.readline().split()}
        mine = {stranger.pid: census.start_time(stranger.pid)}
        ours_before = {stranger.pid: mine[stranger.pid] - 1}
        try:
            assert census.look(ours_before) == {stranger.pid: set()}
            census.end(ours_before)
            assert {pid for pid, _ in census.look(mine)[stranger.pid]} == pids
        finally:
            stranger.kill()
            stranger.wait()
            census.end(mine)


def test_a_dead_zygotes_session_is_forgotten_when_nobody_is_in_it():
    """Also before its successor starts, which may take minutes."""
    story = Story()
    story.census.reaped("p", ZYGOTE)
    story.look(1)
    assert story.census.sessions("p") == {ZYGOTE: 1}
    story.look()
    assert story.census.sessions("p") == {}


def test_a_look_without_plugins_looks_at_nothing():
    """Nor is one due."""
    assert census.look({}) == {}
    assert Census().due is None
