"""What serves the workers changes by a reload: qmgr, broker, admin, plugins, the pool; and what undoes it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import asking_http
from tests.support.daemon import Daemon, alive
from tests.support.next_hop import STALL
from tests.support.served_hop import ServedHop
from tests.support.waiting import wait_for

from .conftest import STOCK, Make
from .test_broker import echo, entry, said, session  # noqa: F401 - a fixture
from .test_full_worker import connect
from .test_full_worker import say as ask
from .test_reload import change, greeting, reloaded, say
from .test_workforce import told

pytestmark = pytest.mark.slow

SOON_S = 60
"""For what happens by itself, on a busy machine."""


@contextlib.contextmanager
def reloading(daemon: Daemon) -> Iterator[Callable[[], subprocess.CompletedProcess[str]]]:
    """`forkd reload` beside us; the value waits for its end."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        done = pool.submit(daemon.forkd, "reload", "--config", "forkd.toml")
        yield done.result


def begun(daemon: Daemon, role: str, count: int = 1) -> list[int]:
    """pids of the processes of that role that were started after the service was ready."""

    def started() -> list[int]:
        every = [event for event in daemon.events("process") if event["act"] == "started"]
        every = [event for event in every if event["role"].startswith(f"{role}.")]
        return [event["pid"] for event in every] if len(every) >= count else []

    return wait_for(started, timeout_s=SOON_S, what=f"{role} is started")


# --- qmgr ---------------------------------------------------------------------------------------------------


def to(port: int) -> str:
    """far.local goes there."""
    return (
        '[domain."test.local"]\n[domain."far.local"]\ntransport = "far"\n'
        f'[transport.far]\nkind = "smtp"\nhosts = ["127.0.0.1:{port}"]\ntls = "off"\n'
    )


def send(daemon: Daemon, name: str) -> None:
    with daemon.smtp() as client:
        client.sendmail("a@example.org", [f"{name}@far.local"], "Subject: x\r\n\r\nhello\r\n")


def arrived(hop: ServedHop) -> list[str]:
    return [recipient for mail in hop.mails for recipient in mail.recipients]


HOLDS = {".": [STALL, b"250 2.0.0 taken"]}
"""What a next hop says at the end of the first message, and of all others."""


def held(hop: ServedHop) -> bool:
    """It has a whole mail, and does not say whether it takes it."""
    assert hop.hop is not None
    return len(hop.hop.script["."]) < len(HOLDS["."])


def drains(pid: int) -> bool:
    return "draining" in Path(f"/proc/{pid}/cmdline").read_text()


def deliveries(daemon: Daemon) -> dict[str, str]:
    """Recipient -> what came of it."""
    return {event["recipient"]: event["status"] for event in daemon.events("delivery")}


def test_qmgr_ends_its_deliveries_before_the_next_one_begins(make_daemon: Make):
    """A transport changed while a next hop had a mail: delivered once, there; what comes meanwhile goes the
    new way."""
    with ServedHop(HOLDS) as first, ServedHop() as second:
        daemon = make_daemon(config=to(first.port))
        (old,) = daemon.role("qmgr")
        send(daemon, "under-way")
        wait_for(lambda: held(first), timeout_s=SOON_S)
        change(daemon, f":{first.port}", f":{second.port}")
        with reloading(daemon) as over:
            wait_for(lambda: drains(old), timeout_s=SOON_S)
            send(daemon, "meanwhile")
            assert daemon.role("qmgr") == [old]
            first.say(0, b"250 2.0.0 taken")
            done = over()
        assert done.returncode == 0, done.stderr
        assert re.search(r"^started anew: .*\bqmgr\b", done.stdout, re.M), done.stdout
        assert not alive(old)
        send(daemon, "after")
        wait_for(lambda: len(second.mails) >= 2, timeout_s=SOON_S)
        assert sorted(arrived(second)) == ["after@far.local", "meanwhile@far.local"]
        assert deliveries(daemon)["under-way@far.local"] == "delivered"
        assert not first.mails, "nothing after the one that was under way"
        assert daemon.stop() == 0


def refused_reloads(daemon: Daemon) -> int:
    return sum(event["act"] == "not_reloaded" for event in daemon.events("service"))


def test_qmgr_that_does_not_start_gives_way_to_the_one_before(make_daemon: Make):
    """Its lock is somebody else's when its turn comes: the report says so, mail goes the old way again.

    Another reload was asked for meanwhile: it begins when the one before is undone."""
    with ServedHop(HOLDS) as first, ServedHop() as second:
        daemon = make_daemon(config=to(first.port))
        (old,) = daemon.role("qmgr")
        send(daemon, "under-way")
        wait_for(lambda: held(first), timeout_s=SOON_S)
        workers = daemon.role("worker")
        change(daemon, f":{first.port}", f":{second.port}")
        path = daemon.var / "spool" / "lock"
        with path.open("r+b") as lock, reloading(daemon) as over:
            taking = threading.Thread(target=fcntl.flock, args=(lock, fcntl.LOCK_EX))
            taking.start()
            wait_for(lambda: drains(old), timeout_s=SOON_S)
            daemon.send_signal(signal.SIGHUP)
            first.say(0, b"250 2.0.0 taken")
            taking.join()
            done = over()
            wait_for(lambda: refused_reloads(daemon) == 2, timeout_s=SOON_S)
        assert done.returncode != 0
        assert "qmgr 1 did not start: exit 73: before" in done.stderr, done.stderr
        assert "another forkd has this data_dir" in done.stderr
        send(daemon, "after")
        wait_for(lambda: arrived(first) == ["after@far.local"], timeout_s=SOON_S)
        assert not second.mails
        assert daemon.role("worker") == workers
        assert "qmgr" in reloaded(daemon)["renewed"]
        send(daemon, "again")
        wait_for(lambda: arrived(second) == ["again@far.local"], timeout_s=SOON_S)
        assert daemon.stop() == 0


# --- broker, plugins ----------------------------------------------------------------------------------------


def test_a_session_goes_on_with_its_broker_when_that_is_replaced(make_daemon: Make, echo: str):  # noqa: F811
    """Both answer, from one store; the old one ends with the last session that has it."""
    daemon = make_daemon(copy=("asks",), plugins=entry(echo), config="[state]\nmax_keys = 1000\n")
    old = session(daemon)
    assert said(old, "count") == "1"
    (before,) = daemon.role("broker")
    change(daemon, "max_keys = 1000", "max_keys = 2000")
    report = reloaded(daemon)
    assert "broker" in report["renewed"] and "plugin 'asks'" in report["kept"]
    assert alive(before) and len(daemon.role("broker")) == 2
    new = session(daemon)
    for number in range(2, 12, 2):
        assert said(old, "count") == str(number)
        assert said(new, "count") == str(number + 1)
    assert said(old, "echo") == said(new, "echo") == "b'hello\\n'"
    old.quit()
    wait_for(lambda: not alive(before), timeout_s=SOON_S)
    assert said(new, "count") == "12"
    new.quit()
    assert daemon.stop() == 0


def plugin(folder: Path, word: str) -> None:
    """One that refuses with that word."""
    (folder / "words.py").write_text(
        "from forkd.sdk import Plugin, deny\n\ndef plugin_init(settings):\n"
        f"    return Plugin(mail=lambda session, sender: deny('5.7.1', {word!r}))\n"
    )


def test_old_sessions_ask_the_old_code_of_a_plugin(make_daemon: Make):
    """Whether they had asked it before or not; new ones ask the new code."""
    daemon = make_daemon(start=False, plugins={"10-words.toml": 'plugin = "../words"\n'})
    folder = daemon.folder / "words"
    folder.mkdir()
    (folder / "plugin.toml").write_text('name = "words"\nversion = "1"\napi = 1\nhooks = ["mail"]\n')
    plugin(folder, "first")
    for path in (folder, *folder.iterdir()):
        os.chown(path, daemon.folder.stat().st_uid, -1)
    daemon.start()
    asked, silent = session(daemon), session(daemon)
    assert asked.mail("a@example.org") == (550, b"5.7.1 first")
    plugin(folder, "second")
    assert "plugin 'words'" in reloaded(daemon)["renewed"]
    new = session(daemon)
    assert new.mail("a@example.org") == (550, b"5.7.1 second")
    for old in (asked, silent):
        assert old.mail("a@example.org") == (550, b"5.7.1 first")
        old.quit()
    wait_for(lambda: len(daemon.role("zygote")) == 2, timeout_s=SOON_S, what="the probe's and the new one")
    assert new.mail("a@example.org") == (550, b"5.7.1 second")


# --- workers ------------------------------------------------------------------------------------------------


def test_new_workers_that_die_are_taken_back(make_daemon: Make):
    """They come upon something that only they do: the old ones serve, the report names it."""
    daemon = make_daemon(server='workers = 1\ngreeting = "first"', plugins=STOCK)
    old = daemon.connect()
    assert b"first" in old.recv(1000)
    workers = daemon.role("worker")
    change(daemon, "first", "second")
    with reloading(daemon) as over:
        (pid,) = begun(daemon, "worker")
        os.kill(pid, signal.SIGKILL)
        done = over()
    assert done.returncode != 0
    assert "worker 1 did not start: SIGKILL" in done.stderr, done.stderr
    wait_for(lambda: daemon.role("worker") == workers, timeout_s=SOON_S)
    assert b"first" in greeting(daemon.port)
    assert say(old, b"NOOP").startswith(b"250")
    assert reloaded(daemon)["generation"] == 3
    assert b"second" in greeting(daemon.port)
    assert daemon.stop() == 0


def test_a_crowd_after_a_reload_gets_more_workers_of_the_new_configuration(make_daemon: Make):
    """The pool grows as before."""
    daemon = make_daemon(
        server='greeting = "first"\nworkers = 3\n[pool]\nmin = 1\nidle = "1s"\n',
        config="[limits]\nsessions = 4\n",
    )
    (first,) = daemon.role("worker")
    change(daemon, "first", "second")
    reloaded(daemon)
    wait_for(lambda: not alive(first), timeout_s=SOON_S)
    crowd = []
    for _ in range(12):
        peer = daemon.connect()
        crowd.append((peer, peer.makefile("rb")))
        assert b"second" in crowd[-1][1].readline()
    assert len(daemon.role("worker")) == 3
    assert all(ask(client, "NOOP").startswith(b"250") for client in crowd)
    wait_for(lambda: len(told(daemon, "worker_added")) == 2, timeout_s=SOON_S)
    assert daemon.stop() == 0


def test_the_oldest_of_too_many_generations_is_told_to_end(make_daemon: Make):
    """Each has a session that does not end: three of them may go on."""
    daemon = make_daemon(server='workers = 1\ngreeting = "g0"\nstop_timeout = "2s"')
    sessions = []
    for number in range(1, 5):
        sessions.append(connect(daemon))
        for each in sessions:
            assert ask(each, "NOOP").startswith(b"250")
        change(daemon, f'"g{number - 1}"', f'"g{number}"')
        reloaded(daemon)
    assert sessions[0][1].readline().startswith(b"421 ")
    assert all(ask(each, "NOOP").startswith(b"250") for each in sessions[1:])
    (hurried,) = told(daemon, "hurried")
    assert hurried["detail"].startswith("generation 1:")
    wait_for(lambda: len(daemon.role("worker")) == 4, timeout_s=SOON_S)
    assert daemon.stop() == 0


# --- limits of what is kept ---------------------------------------------------------------------------------


def test_who_is_kept_has_the_new_limits(make_daemon: Make):
    """Anvil goes on, by the new heartbeat: one that stands still is replaced."""
    daemon = make_daemon(server='heartbeat = "1h"')
    (anvil,) = daemon.role("anvil")
    change(daemon, '"1h"', '"2s"')
    assert "anvil" in reloaded(daemon)["kept"]
    os.kill(anvil, signal.SIGSTOP)
    wait_for(lambda: not alive(anvil), timeout_s=SOON_S)
    wait_for(lambda: daemon.role("anvil"), timeout_s=SOON_S)
    assert daemon.stop() == 0


# --- admin --------------------------------------------------------------------------------------------------


def test_the_answer_finds_its_client_when_admin_is_replaced(make_daemon: Make):
    """And the next one asks the new admin, which goes by the new table."""
    daemon = make_daemon(config='[admin]\nview = ["daemon"]\n')
    (before,) = daemon.role("admin")
    change(daemon, '["daemon"]', '["daemon", "games"]')
    report = reloaded(daemon)
    assert [each["key"] for each in report["applied"]] == ["admin.view"]
    assert "admin" in report["renewed"]
    wait_for(lambda: not alive(before), timeout_s=SOON_S)
    (after,) = daemon.role("admin")
    assert after != before
    status = daemon.forkd("status", "--json", "--config", "forkd.toml")
    assert status.returncode == 0, status.stderr
    assert daemon.stop() == 0


def test_balancers_notice_nothing(make_daemon: Make):
    """/readyz is 200 all the time, whoever is replaced."""
    with ServedHop() as hop:
        daemon = make_daemon(server='greeting = "g0"', plugins=STOCK, config=to(hop.port))
        path = daemon.var / "run" / "metrics.sock"
        wait_for(lambda: asking_http.get(path, "/readyz").status == 200, timeout_s=SOON_S)
        over, wrong, count = threading.Event(), [], 0

        def watch() -> None:
            nonlocal count
            while not over.wait(0.01):
                try:
                    found = asking_http.get(path, "/readyz")
                    count += 1
                    if found.status != 200:
                        wrong.append(found.text)
                except (OSError, ValueError, IndexError) as error:
                    wrong.append(repr(error))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for number in range(1, 4):
                change(daemon, f'"g{number - 1}"', f'"g{number}"')
                reloaded(daemon)
            change(daemon, f":{hop.port}", ":1")
            assert "qmgr" in reloaded(daemon)["renewed"]
        finally:
            over.set()
            watcher.join()
        assert count > 10 and not wrong, wrong


# --- TERM ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["zygote", "qmgr", "worker", "admin"])
def test_a_stop_ends_a_reload_wherever_it_is(make_daemon: Make, moment: str):
    """Its client is told; nothing is left; a delivery that goes on is done, or its mail stays queued."""
    with ServedHop(HOLDS) as first, ServedHop() as second:
        daemon = make_daemon(
            server='stop_timeout = "3s"', plugins=STOCK, config=to(first.port) + "[admin]\n", start=False
        )
        daemon.start()
        if moment == "qmgr":
            send(daemon, "under-way")
            wait_for(lambda: held(first), timeout_s=SOON_S)
        change(daemon, f":{first.port}", f":{second.port}")
        path = daemon.folder / "plugins.d" / "10-block_senders.toml"
        path.write_text(path.read_text().replace("blocked@", "other@"))
        with reloading(daemon) as over:
            if moment == "qmgr":
                wait_for(lambda: told(daemon, "reloading"), timeout_s=SOON_S)
                begun(daemon, "zygote")
            else:
                begun(daemon, moment)
            assert daemon.stop() == 0
            done = over()
        assert done.returncode == 0 or "stop" in done.stderr, done.stderr
        assert moment == "admin" or done.returncode != 0
        assert not daemon.events("bug")
