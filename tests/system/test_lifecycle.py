"""Start, stop, die: nothing accepted is lost, nothing of forkd is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forkd import logjournal
from forkd.exits import Exit
from tests.support.daemon import Daemon, alive
from tests.support.waiting import wait_for

from .conftest import STOCK, Make


def greet(daemon: Daemon) -> socket.socket:
    """A connection after EHLO."""
    peer = daemon.connect()
    assert peer.recv(1000).startswith(b"220 ")
    peer.sendall(b"EHLO client.example\r\n")
    reply = b""
    while b"250 " not in reply:
        reply += peer.recv(1000)
    return peer


def exchange(peer: socket.socket, command: bytes) -> bytes:
    peer.sendall(command)
    return peer.recv(1000)


def test_each_process_shows_its_role(daemon: Daemon):
    """setproctitle: role, slot, generation, state."""
    assert len(daemon.role("worker")) == len(os.sched_getaffinity(0))
    for role in ("qmgr", "admin", "anvil"):
        assert len(daemon.role(role)) == 1, role
    assert len(daemon.role("zygote")) == 3, "two plugins, and the probe's"


@pytest.mark.skipif(Path(logjournal.SOCKET).exists(), reason="this machine has a journal")
def test_without_a_journal_a_log_for_it_is_a_clear_error(tmp_path: Path):
    """It says which key, what is missing and what would be right."""
    file = tmp_path / "forkd.toml"
    server = f'[server]\nhostname = "mx.test"\ndata_dir = "{tmp_path}/var"\n'
    file.write_text(f'{server}[log]\nformat = "journal"\n[domain.x]\n')
    command = [sys.executable, "-m", "forkd", "run", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == Exit.CONFIG, done
    (line,) = done.stderr.splitlines()
    assert line.startswith(f'forkd: log.format = "journal": {logjournal.SOCKET}: No such file or directory; ')
    assert '"logfmt"' in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_idle_sessions_with_421_and_lets_transactions_finish(make_daemon: Make, number: int):
    """operations.md, signals: TERM."""
    daemon = make_daemon(plugins=STOCK)
    idle, busy = greet(daemon), greet(daemon)
    assert exchange(busy, b"MAIL FROM:<a@example.org>\r\n").startswith(b"250")
    assert exchange(busy, b"RCPT TO:<late@test.local>\r\n").startswith(b"250")
    assert exchange(busy, b"DATA\r\n").startswith(b"354")
    daemon.pids()
    daemon.send_signal(number)
    assert idle.recv(1000).startswith(b"421 4.3.2")
    assert idle.recv(1000) == b""
    busy.sendall(b"Subject: late\r\n\r\nhello\r\n.\r\n")
    reply = busy.makefile("rb").readline()
    assert reply.startswith(b"250 2.0.0"), "a transaction under way finishes"
    assert daemon.stop() == 0
    assert [e for e in daemon.events("message") if e["recipients"] == ["late@test.local"]]


def test_a_stop_has_a_deadline(make_daemon: Make):
    """stop_timeout: a client that holds its transaction does not hold the daemon."""
    daemon = make_daemon(server='stop_timeout = "1s"\n')
    busy = greet(daemon)
    assert exchange(busy, b"MAIL FROM:<a@example.org>\r\n").startswith(b"250")
    assert daemon.stop() == 0


def test_a_drain_waits_for_the_last_transaction(make_daemon: Make):
    """QUIT: as TERM without a limit."""
    daemon = make_daemon(server='stop_timeout = "1s"\n')
    busy = greet(daemon)
    assert exchange(busy, b"MAIL FROM:<a@example.org>\r\n").startswith(b"250")
    daemon.pids()
    daemon.send_signal(signal.SIGQUIT)
    wait_for(lambda: [e for e in daemon.events("service") if e["act"] in ("draining", "stopping")])
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(3)
    assert exchange(busy, b"RSET\r\n").startswith(b"250")
    busy.close()
    assert daemon.stop() == 0


def test_kill_9_of_master_leaves_no_process_and_no_socket(daemon: Daemon):
    """README, processes: everything of ours ends when master is gone."""
    greeted = greet(daemon)
    assert exchange(greeted, b"MAIL FROM:<a@example.org>\r\n").startswith(b"250"), "a sandbox is at work"
    daemon.stop(signal.SIGKILL)
    wait_for(lambda: not list((daemon.var / "run").glob("**/*.sock")), timeout_s=10)
    again = Daemon(daemon.folder, prefix=daemon.prefix, python=daemon.python, root=daemon.root)
    with again:
        assert again.smtp().noop()[0] == 250


@pytest.mark.both_modes
def test_a_killed_worker_is_replaced_and_leaves_no_sandbox(daemon: Daemon):
    """Its sandboxes die with it by their leash; asserted with ten times the 100 ms of the page."""
    greeted = greet(daemon)
    before = daemon.pids()
    assert exchange(greeted, b"MAIL FROM:<a@example.org>\r\n").startswith(b"250")
    workers = daemon.role("worker")
    sandboxes = wait_for(lambda: daemon.pids() - before)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(alive(pid) for pid in sandboxes), timeout_s=1)
    wait_for(lambda: len(set(daemon.role("worker")) - set(workers)) == len(workers), timeout_s=30)
    wait_for(lambda: daemon.smtp().noop()[0] == 250, timeout_s=30)


@pytest.mark.parametrize("role", ["qmgr", "anvil", "admin", "zygote"])
def test_any_other_process_that_dies_is_replaced_and_mail_flows(daemon: Daemon, role: str):
    killed = daemon.role(role)
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(set(daemon.role(role)) - set(killed)) == len(killed), timeout_s=30)

    def delivered() -> bool:
        with daemon.smtp() as client:
            client.ehlo()
            client.mail("a@example.org")
            client.rcpt("after@test.local")
            return client.data(b"Subject: x\r\n\r\nhello\r\n")[0] == 250

    wait_for(delivered, timeout_s=30)
    wait_for(lambda: daemon.mailbox("after"), timeout_s=30)


def test_a_stalled_worker_is_killed_and_replaced(make_daemon: Make):
    """The heartbeat comes from the loop that serves: a stopped process has none."""
    daemon = make_daemon(server='heartbeat = "2s"\n')
    stalled = daemon.role("worker")[0]
    os.kill(stalled, signal.SIGSTOP)
    wait_for(lambda: not alive(stalled), timeout_s=30)
    wait_for(lambda: len(daemon.role("worker")) == len(os.sched_getaffinity(0)), timeout_s=30)
    assert [e for e in daemon.events("process") if "no heartbeat" in e.get("reason", "")]


def test_as_many_wait_to_be_accepted_as_the_listener_says(make_daemon: Make):
    """listener.backlog, 1,024: a burst is not sent away for a second, to come again."""
    daemon = make_daemon(server="workers = 1\n")
    (worker,) = daemon.role("worker")
    os.kill(worker, signal.SIGSTOP)
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        stack.callback(os.kill, worker, signal.SIGCONT)
        for _ in range(400):
            peer = stack.enter_context(socket.socket())
            peer.setblocking(False)
            peer.connect_ex(("127.0.0.1", daemon.port))
            poll.register(peer, select.POLLOUT)
        assert wait_for(lambda: len(poll.poll(0)) == 400)


def test_status_counts_a_message_once(daemon: Daemon):
    """Roles' counters are summed by their names: what two of them count has two names."""
    with daemon.smtp() as client:
        client.sendmail("a@example.org", "user@test.local", b"Subject: x\r\n\r\nhello\r\n")
    wait_for(lambda: daemon.mailbox("user"), timeout_s=30)

    def counted() -> str:
        said = daemon.forkd("status", "--config", "forkd.toml").stdout
        line = next(line for line in said.splitlines() if line.startswith("since start"))
        return line if "finished 1" in line and "messages" in line else ""  # each role's heartbeat tells

    assert "messages 1," in wait_for(counted, timeout_s=30)


def test_status_stop_and_queue_by_command_line(daemon: Daemon):
    status = daemon.forkd("status", "--json", "--config", "forkd.toml")
    assert status.returncode == 0, status.stderr
    roles = [process["role"] for process in json.loads(status.stdout)["processes"]]
    assert {"worker", "zygote", "qmgr", "admin", "anvil"} <= set(roles)
    sandbox = daemon.forkd("sandbox", "status", "--json", "--config", "forkd.toml")
    assert sandbox.returncode == 0, sandbox.stderr
    assert "seccomp" in sandbox.stdout
    assert daemon.forkd("queue", "list", "--config", "forkd.toml").returncode == 0
    stopped = daemon.forkd("stop", "--config", "forkd.toml")
    assert stopped.returncode == 0, stopped.stderr
    assert daemon.process.wait(30) == 0
    daemon.stop()


def test_two_daemons_do_not_share_a_data_dir(daemon: Daemon):
    result = daemon.forkd("run", "--config", "forkd.toml")
    assert result.returncode != 0
    assert "another forkd" in result.stderr
    assert daemon.smtp().noop()[0] == 250
