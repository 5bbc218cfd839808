"""The life of real processes under a real master: started, replaced, killed, stopped."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess

import pytest

from forkd.exits import Exit
from tests.support.daemon import alive
from tests.support.trivial import Trivial
from tests.support.waiting import wait_for


def test_each_process_says_in_its_title_what_it_is(tmp_path):
    """Role, number, generation, state (issue: setproctitle for each process)."""
    with Trivial(tmp_path, "good*2") as forkd:
        assert sorted(forkd.titles().values()) == [
            "forkd: good 0 gen 1 [running]",
            "forkd: good 1 gen 1 [running]",
        ]
        forkd.signal(signal.SIGTERM)
        assert forkd.ended() == Exit.OK


def test_a_role_holds_nothing_but_its_own(tmp_path):
    """Standard streams, the log, the lock, its channel, what its row names; nothing of its siblings."""
    with Trivial(tmp_path, "good*3,lingers") as forkd:
        counts = [len(each["fds"]) for each in forkd.seen("start", "good")]
        assert counts == [7, 7, 7], forkd.seen("start", "good")
        (other,) = forkd.seen("start", "lingers")
        assert len(other["fds"]) == 6


def test_phases_start_one_after_the_other_and_stop_in_the_tables_order(tmp_path):
    """Workers start when who serves them is ready, and stop before them."""
    with Trivial(tmp_path, "steady,good*2") as forkd:
        assert [each["role"] for each in forkd.seen("start")] == ["good", "good", "steady"]
        forkd.signal(signal.SIGTERM)
        forkd.ended()
        assert [each["role"] for each in forkd.seen("stop")] == ["steady", "good", "good"]


def test_a_crash_in_c_says_where_python_was(tmp_path):
    """The signal alone tells nobody anything: of a crash seen once the stack is all there is."""
    with Trivial(tmp_path, "good,crashes") as forkd:
        forkd.wait_log("act=died", "SIGSEGV")
        forkd.wait_log("Segmentation fault")
        forkd.wait_log("roles.py", " in crashes")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_gives_the_roles_stop_timeout(tmp_path, number):
    """TERM: transactions may finish up to stop_timeout; INT is the same."""
    with Trivial(tmp_path, "good*2", {"stop_timeout": 7}) as forkd:
        forkd.signal(number)
        assert forkd.ended() == Exit.OK
        assert [each["deadline"] for each in forkd.seen("stop")] == [7, 7]


def test_quit_sets_no_limit(tmp_path):
    """QUIT drains as long as it takes."""
    with Trivial(tmp_path, "good") as forkd:
        forkd.signal(signal.SIGQUIT)
        assert forkd.ended() == Exit.OK
        assert forkd.seen("stop")[0]["deadline"] is None


def test_who_does_not_stop_in_time_is_killed(tmp_path):
    """The limit is stop_timeout, then SIGKILL."""
    with Trivial(tmp_path, "lingers", {"stop_timeout": 0.3}) as forkd:
        forkd.signal(signal.SIGTERM)
        assert forkd.ended() == Exit.OK
        assert "did not stop in time" in forkd.log()


def test_term_cuts_a_drain_short(tmp_path):
    """An admin who has waited long enough need not kill."""
    with Trivial(tmp_path, "lingers", {"stop_timeout": 0.3}) as forkd:
        forkd.signal(signal.SIGQUIT)
        forkd.wait_log("act=draining")
        forkd.signal(signal.SIGTERM)
        assert forkd.ended() == Exit.OK


def test_who_ends_by_itself_while_we_stop_is_no_error(tmp_path):
    """Systemd may tell all processes at once (KillMode=control-group): nothing has gone wrong."""
    with Trivial(tmp_path, "lingers,good", {"stop_timeout": 0.3}) as forkd:
        (good,) = forkd.seen("start", "good")
        forkd.signal(signal.SIGTERM)
        wait_for(lambda: forkd.seen("stop"))
        os.kill(good["pid"], signal.SIGTERM)
        assert forkd.ended() == Exit.OK
        (exited,) = [line for line in forkd.log().splitlines() if f"pid={good['pid']} " in line]
        assert "level=info" in exited and "act=exited" in exited and "status=SIGTERM" in exited


def test_a_second_int_stops_at_once(tmp_path):
    """Ctrl-C twice: nobody is waited for."""
    with Trivial(tmp_path, "lingers", {"stop_timeout": 600}) as forkd:
        forkd.signal(signal.SIGINT)
        wait_for(lambda: forkd.seen("stop"))
        forkd.signal(signal.SIGINT)
        assert forkd.ended() == Exit.OK


def test_a_terminals_signals_are_masters_alone(tmp_path):
    """Ctrl-C goes to the whole process group: children leave the decision to master."""
    with Trivial(tmp_path, "good*2,anvil,admin") as forkd:
        pids = set(forkd.titles())
        for pid in pids:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                os.kill(pid, number)
        assert len(forkd.ask(b'{"request":"status"}')[0]["result"]["processes"]) == 4
        assert set(forkd.titles()) == pids
        assert "act=exited" not in forkd.log() and "act=died" not in forkd.log()


def test_hup_reloads(tmp_path):
    """HUP must not end the daemon, as it does by default; who goes by nothing that changed stays."""
    with Trivial(tmp_path, "good") as forkd:
        forkd.signal(signal.SIGHUP)
        forkd.wait_log("act=reloaded")
        forkd.signal(signal.SIGTERM)
        assert forkd.ended() == Exit.OK


def test_a_dead_process_is_replaced(tmp_path):
    """kill -9 of one: a new one in its place, the others untouched."""
    with Trivial(tmp_path, "good*2") as forkd:
        first, second = forkd.seen("start")
        os.kill(first["pid"], signal.SIGKILL)
        wait_for(lambda: len(forkd.seen("start")) == 3)
        new = forkd.seen("start")[2]
        assert new["slot"] == first["slot"]
        assert alive(second["pid"])
        forkd.wait_log("act=died", "status=SIGKILL")


def test_a_process_that_dies_again_and_again_is_no_hot_loop(tmp_path):
    """Starts follow at growing distances."""
    with Trivial(tmp_path, "dies,good") as forkd:
        wait_for(lambda: len(forkd.seen("start", "dies")) == 4, timeout_s=20)
        at = [each["at"] for each in forkd.seen("start", "dies")]
        gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert gaps[0] >= 0.1
        assert gaps[2] > gaps[1] >= 0.2


def test_a_loop_that_stands_still_is_killed_and_replaced(tmp_path):
    """No heartbeat for server.heartbeat, all signals blocked: SIGKILL, and a successor."""
    with Trivial(tmp_path, "stuck", {"heartbeat": 0.5}) as forkd:
        wait_for(lambda: forkd.seen("start"))
        assert "no heartbeat for" in forkd.log()
        forkd.wait_log("act=ready", "role=stuck.0")


@pytest.mark.parametrize("role", ["babbles", "presumes"])
def test_no_record_of_a_role_can_hurt_the_master(tmp_path, role):
    """Garbage, or an order that is not its to give: that role is killed and replaced, nothing else."""
    with Trivial(tmp_path, f"good,{role}") as forkd:
        wait_for(lambda: forkd.seen("start", role))
        forkd.wait_log("act=killed", f"role={role}.0")
        assert len(forkd.seen("start", "good")) == 1
        assert not forkd.seen("stop")


@pytest.mark.parametrize(("role", "status"), [("never_ready", 75), ("raises", Exit.BUG)])
def test_a_role_that_fails_at_start_stops_the_start(tmp_path, role, status):
    """Half a daemon is worse than none: exit with the role's own status, everything gone."""
    forkd = Trivial(tmp_path, f"good,{role}").start()
    assert forkd.ended() == status
    assert f"{role} 0 did not start" in forkd.log()


def test_a_stop_during_the_start_starts_nothing_more(tmp_path):
    """TERM while a phase is not ready yet: the next one never begins, what is there ends."""
    with Trivial(tmp_path, "good,slow", {"stop_timeout": 0.2}, wait_ready=False) as forkd:
        wait_for(lambda: forkd.seen("slow"))
        forkd.signal(signal.SIGTERM)
        assert forkd.ended() == Exit.OK
        assert "act=ready" not in forkd.log()


def test_status_tells_of_every_process(tmp_path):
    """What `forkd status` shows comes from the heartbeats."""
    with Trivial(tmp_path, "good*2,asks") as forkd:
        status = wait_for(lambda: forkd.seen("status"))[0]["status"]
        assert status["pid"] == forkd.pid
        assert [(each["role"], each["slot"]) for each in status["processes"]] == [
            ("good", 0),
            ("good", 1),
            ("asks", 0),
        ]
        assert status["listeners"]["default"].startswith("127.0.0.1:")
        (tmp_path / "stop-now").touch()
        assert forkd.ended() == Exit.OK
        assert "asked by tester" in forkd.log()


def test_kill_9_of_the_master_leaves_nothing(tmp_path):
    """Roles see end of file; admin removes sockets and lock."""
    with Trivial(tmp_path, "good*2,anvil,admin") as forkd:
        assert list(forkd.run.glob("*.sock"))
        forkd.signal(signal.SIGKILL)
        forkd.ended()
        assert len(forkd.seen("orphaned")) == 2


def test_a_successor_waits_for_what_a_killed_master_left(tmp_path):
    """Its roles still hold the lock for a moment: no clash over files and addresses."""
    with Trivial(tmp_path, "good*2,anvil,admin") as first:
        first.signal(signal.SIGKILL)
        second = Trivial(tmp_path, "good,anvil,admin").start()
        second.wait_log("act=ready", count=2)
        wait_for(lambda: second.ask(b'{"request":"status"}')[0]["ok"])
        second.signal(signal.SIGTERM)
        assert second.ended() == Exit.OK


def test_two_forkd_in_one_data_dir_are_refused(tmp_path):
    """At once, with the other's pid, and without touching what is the other's."""
    with Trivial(tmp_path, "good,admin") as first:
        second = Trivial(tmp_path, "good").start()
        assert second.process is not None
        assert second.process.wait(10) == Exit.IN_USE
        assert f"another forkd (pid {first.pid})" in first.log()
        assert (first.run / "control.sock").exists()


def test_an_address_in_use_is_a_clear_error(tmp_path):
    """Which listener, which address; nothing is left."""
    with Trivial(tmp_path, "good,asks") as first:
        listeners = wait_for(lambda: first.seen("status"))[0]["status"]["listeners"]
        (tmp_path / "other").mkdir()
        second = Trivial(tmp_path / "other", "good", environment={"ADDRESS": listeners["default"]}).start()
        assert second.ended() == Exit.IN_USE
        assert "[listener.default] cannot listen" in second.log()


def test_a_sigstopped_master_does_not_kill_who_was_fine(tmp_path):
    """Heartbeats that waited in the socket are read before anybody is judged."""
    with Trivial(tmp_path, "good", {"heartbeat": 0.6}) as forkd:
        (pid,) = (each["pid"] for each in forkd.seen("start"))
        forkd.signal(signal.SIGSTOP)
        subprocess.run(["sleep", "1.5"], check=True)  # longer than the limit: that is the point
        forkd.signal(signal.SIGCONT)
        forkd.signal(signal.SIGHUP)
        forkd.wait_log("act=reloaded")
        assert alive(pid)
        assert "no heartbeat" not in forkd.log()


def test_a_pause_of_all_of_us_kills_nobody(tmp_path):
    """A container that is paused, Ctrl-Z: nobody could beat, and master looks at the clock first."""
    with Trivial(tmp_path, "good*3", {"heartbeat": 1.0}) as forkd:
        pids = [each["pid"] for each in forkd.seen("start")]
        for pid in (forkd.pid, *pids):
            os.kill(pid, signal.SIGSTOP)
        subprocess.run(["sleep", "2.5"], check=True)  # longer than the limit: that is the point
        forkd.signal(signal.SIGCONT)
        forkd.signal(signal.SIGHUP)
        forkd.wait_log("act=reloaded")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert [pid for pid in pids if alive(pid)] == pids
        assert "no heartbeat" not in forkd.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_root_with_a_configuration_file_but_no_users_is_refused(tmp_path):
    """Nothing falls back silently: the fix is named, the status is UNCONFINED."""
    forkd = Trivial(tmp_path, "good", {"user": "no-such-user"}, {"WITH_FILE": "1"}).start()
    assert forkd.process is not None
    assert forkd.process.wait(20) == Exit.UNCONFINED
    assert "there is no user 'no-such-user'" in forkd.log()
    assert "useradd --system no-such-user" in forkd.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_root_without_a_configuration_file_goes_on_and_says_so(tmp_path):
    """A newcomer's first minute: it runs, and the log names the fix."""
    with Trivial(tmp_path, "good", {"user": "no-such-user"}) as forkd:
        assert "everything runs as root" in forkd.log()
        assert forkd.seen("start")[0]["uid"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_roles_drop_to_their_users(tmp_path):
    """Each role as its row says, supplementary groups gone, data_dir divided between them."""
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:-1]:
        parent.chmod(parent.stat().st_mode | 0o011)
    users = {"user": "nobody", "queue_user": "mail", "admin_user": "daemon"}
    (tmp_path / "seen").touch()
    (tmp_path / "seen").chmod(0o666)
    with Trivial(tmp_path, "good,anvil,admin", users, {"WITH_FILE": "1"}) as forkd:
        (start,) = forkd.seen("start")
        assert (start["uid"], start["groups"]) == (65534, [])
        assert forkd.ask(b'{"request":"status"}')[0]["ok"]
        assert (tmp_path / "var" / "mail").stat().st_uid == 8
        forkd.signal(signal.SIGKILL)
        forkd.ended()
