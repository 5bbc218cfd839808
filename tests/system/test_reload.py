"""A new configuration comes into force while sessions go on; a bad one does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from tests.support.daemon import Daemon, free_port
from tests.support.knocking import Account, Knocker
from tests.support.waiting import wait_for

from .conftest import STOCK, Make


def say(peer: socket.socket, line: bytes) -> bytes:
    """One command, the last line of its reply."""
    peer.sendall(line + b"\r\n")
    reply = b""
    while not reply.endswith(b"\r\n") or reply.splitlines()[-1][3:4] == b"-":
        more = peer.recv(4096)
        if not more:
            break
        reply += more
    return reply


def greeting(port: int, host: str = "127.0.0.1") -> bytes:
    with socket.create_connection((host, port), timeout=30) as peer:
        return peer.recv(1000)


def reloaded(daemon: Daemon) -> dict:
    """What `forkd reload` says; it went well."""
    done = daemon.forkd("reload", "--json", "--config", "forkd.toml")
    assert done.returncode == 0, done.stderr + daemon.log_text()[-3000:]
    return json.loads(done.stdout)


def change(daemon: Daemon, old: str, new: str) -> None:
    path = daemon.folder / "forkd.toml"
    text = path.read_text()
    assert old in text
    # Whole, whoever reads it meanwhile; by its owner, as an editor does.
    fresh = path.with_name("forkd.toml.new")
    fresh.write_text(text.replace(old, new))
    shutil.copystat(path, fresh)
    os.chown(fresh, path.stat().st_uid, path.stat().st_gid)
    fresh.replace(path)


def shown(daemon: Daemon) -> dict:
    """What `forkd status` says."""
    return json.loads(daemon.forkd("status", "--json", "--data-dir", "var").stdout)


def acts(daemon: Daemon) -> list[str]:
    """Of the service, as the log has them."""
    return [event.get("act", "") for event in daemon.events("service")]


def test_sessions_go_on_and_new_ones_have_the_new_settings(make_daemon: Make):
    """operations.md, HUP: no connection refused, no session dropped; what did not change is kept."""
    daemon = make_daemon(server='greeting = "first"', plugins=STOCK)
    old = daemon.connect()
    assert b"first" in old.recv(1000)
    pids = {role: daemon.role(role) for role in ("anvil", "zygote", "worker", "qmgr")}
    change(daemon, "first", "second")
    report = reloaded(daemon)
    assert [each["key"] for each in report["applied"]] == ["server.greeting"]
    assert report["generation"] == 2
    assert b"second" in greeting(daemon.port)
    assert daemon.role("anvil") == pids["anvil"], "counts outlast a reload"
    # A sandbox has its zygote's title for a moment after the fork.
    wait_for(lambda: daemon.role("zygote") == pids["zygote"], what="plugins that did not change are kept")
    assert daemon.role("qmgr") == pids["qmgr"], "deliveries go on"
    assert say(old, b"EHLO client.example").splitlines()[-1].startswith(b"250 ")
    for line in (b"MAIL FROM:<a@example.org>", b"RCPT TO:<old@test.local>"):
        assert say(old, line).startswith(b"250"), line
    assert say(old, b"DATA").startswith(b"354")
    assert say(old, b"Subject: x\r\n\r\nhello\r\n.").startswith(b"250 2.0.0")
    assert say(old, b"QUIT").startswith(b"221")
    wait_for(lambda: daemon.mailbox("old"), timeout_s=20)
    wait_for(lambda: not set(pids["worker"]) & set(daemon.role("worker")), timeout_s=20)
    status = shown(daemon)
    assert status["generation"] == 2 and status["not_reloaded"] == ""
    assert {each["generation"] for each in status["processes"]} == {2}
    assert status["ended"]["messages"] == 1, "what was done before is not forgotten"
    daemon.pids()
    assert daemon.stop() == 0


def test_a_mistake_keeps_the_old_configuration_and_says_why(make_daemon: Make):
    """What is wrong, and where; the exit status is not 0; the old one serves."""
    daemon = make_daemon(server='greeting = "first"')
    workers = daemon.role("worker")
    change(daemon, "greeting =", "greting =")
    done = daemon.forkd("reload", "--config", "forkd.toml")
    assert done.returncode != 0
    assert f"not reloaded, generation 1 stays in force: {daemon.folder}/forkd.toml:" in done.stderr
    assert "greting" in done.stderr and "greeting" in done.stderr
    status = shown(daemon)
    assert "greting" in status["not_reloaded"] and status["not_reloaded_at"] > status["generation_at"]
    assert daemon.role("worker") == workers
    assert b"first" in greeting(daemon.port)
    change(daemon, "greting =", "greeting =")
    reloaded(daemon)
    assert shown(daemon)["not_reloaded"] == ""


def test_a_plugin_that_does_not_start_keeps_the_old_ones(make_daemon: Make):
    """The report has the plugin's own words; the old zygote serves on."""
    daemon = make_daemon(plugins=STOCK)
    zygotes = daemon.role("zygote")
    broken = daemon.folder / "broken"
    broken.mkdir(mode=0o755)
    (broken / "plugin.toml").write_text('name = "broken"\nversion = "1"\napi = 1\nhooks = ["mail"]\n')
    (broken / "broken.py").write_text('raise RuntimeError("no such list")\n')
    (daemon.folder / "plugins.d" / "90-broken.toml").write_text('plugin = "../broken"\n')
    done = daemon.forkd("reload", "--config", "forkd.toml")
    assert done.returncode != 0
    assert "no such list" in done.stderr
    wait_for(lambda: daemon.role("zygote") == zygotes, timeout_s=20)
    assert greeting(daemon.port).startswith(b"220 ")


def test_an_address_changes_to_one_that_it_includes_and_back(make_daemon: Make):
    """0.0.0.0 and 127.0.0.1 with one port: the next one listens before the old one ends."""
    port = free_port()
    daemon = make_daemon(config=f'[listener.other]\naddress = "0.0.0.0:{port}"\n')
    for address in ("127.0.0.1", "0.0.0.0"):
        text = (daemon.folder / "forkd.toml").read_text()
        was = next(line for line in text.splitlines() if f":{port}" in line)
        change(daemon, was, f'address = "{address}:{port}"')
        reloaded(daemon)
        assert greeting(port).startswith(b"220 ")


@pytest.mark.slow
def test_nobody_is_cut_off_where_an_address_changes_to_one_that_includes_it(make_daemon: Make):
    """Whoever connects just then is served by the old socket or by the next one."""
    port = free_port()
    daemon = make_daemon(config=f'[listener.other]\naddress = "127.0.0.1:{port}"\n')
    account, over = Account(), threading.Event()
    clients = [Knocker("127.0.0.1", port, number, over=over, account=account) for number in range(6)]
    for client in clients:
        client.start()
    try:
        for _ in range(8):
            change(daemon, f"127.0.0.1:{port}", f"0.0.0.0:{port}")
            reloaded(daemon)
            change(daemon, f"0.0.0.0:{port}", f"127.0.0.1:{port}")
            reloaded(daemon)
    finally:
        over.set()
        for client in clients:
            client.join()
    assert (account.dropped, account.refused, account.later) == ([], 0, 0)
    assert len(account.accepted) > 100


def test_what_needs_a_restart_is_named_and_stays(make_daemon: Make):
    """Nothing is half applied. What was opened for the rest is given up with forkd."""
    daemon = make_daemon(server='data_dir = "var"', config='[metrics]\nlisten = "auto"\n')
    brought = daemon.folder / "m.sock"
    change(daemon, '"var"', '"elsewhere"')
    change(daemon, '"auto"', f'"{brought}"')
    done = daemon.forkd("reload", "--json", "--data-dir", "var")
    report = json.loads(done.stdout)
    assert [each["key"] for each in report["needs_restart"]] == ["server.data_dir"]
    assert not (daemon.folder / "elsewhere").exists()
    wait_for(lambda: not (daemon.var / "run" / "metrics.sock").exists(), timeout_s=20)
    assert brought.exists()
    assert daemon.stop() == 0
    assert not brought.exists()


def test_a_stop_in_the_middle_of_a_reload_stops_everything(make_daemon: Make):
    """Another one that was asked for meanwhile does not begin; old and new processes end."""
    daemon = make_daemon(plugins=STOCK, config='[sandbox]\nstart_timeout = "60s"\n')
    sleeper = daemon.folder / "sleeper"
    sleeper.mkdir(mode=0o755)
    (sleeper / "plugin.toml").write_text('name = "sleeper"\nversion = "1"\napi = 1\nhooks = ["mail"]\n')
    (sleeper / "sleeper.py").write_text("import time\n\ntime.sleep(600)\n")
    (daemon.folder / "plugins.d" / "90-sleeper.toml").write_text('plugin = "../sleeper"\n')
    daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: acts(daemon).count("reloading") == 1, timeout_s=60)
    daemon.send_signal(signal.SIGHUP)
    daemon.pids()
    assert daemon.stop() == 0
    told = acts(daemon)
    assert "not_reloaded" in told and "reloaded" not in told
    assert told.count("reloading") == 1, daemon.log_text()


def tail(daemon: Daemon) -> str:
    """The last that the log has of processes, reloads, and sessions that ended otherwise than by QUIT."""
    usual = ("message", "delivery", "listening")
    lines = [
        event for event in daemon.events() if event["event"] not in usual and event.get("reason") != "quit"
    ]
    return "\n".join(map(str, lines[-60:]))


@pytest.mark.slow
def test_a_reload_each_second_under_load(make_daemon: Make):
    """60 s: no connection refused, no session dropped, no message lost. Our name is qmgr's too: it is
    replaced each time."""
    daemon = make_daemon(server='hostname = "g0.example"', plugins=STOCK)
    seconds, sent, number = 60, 0, 0
    clock = subprocess.Popen(["sleep", str(seconds)])
    while clock.poll() is None:
        source = subprocess.Popen(
            ["smtp-source", "-s", "4", "-m", "150", "-l", "2000", "-f", "a@example.org", "-t", "b@test.local",
             f"127.0.0.1:{daemon.port}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"LANG": "C"},
        )  # fmt: skip
        while source.poll() is None:
            number += 1
            change(daemon, f'"g{number - 1}.example"', f'"g{number}.example"')
            daemon.send_signal(signal.SIGHUP)
            try:
                source.wait(1)
            except subprocess.TimeoutExpired:
                continue
        out = source.communicate()[0].decode()
        assert source.returncode == 0 and not out, f"{out}\n{tail(daemon)}"
        sent += 150
    assert number > 20 and len(daemon.events("service")) > 20
    wait_for(lambda: len(daemon.mailbox("b")) >= sent, timeout_s=120)
    assert len(daemon.mailbox("b")) == sent
    assert [each for each in daemon.events("service") if each.get("act") == "not_reloaded"] == []
    daemon.pids()
    assert daemon.stop() == 0
