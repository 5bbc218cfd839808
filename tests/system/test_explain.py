"""forkd explain: any id in a reply or the log leads to the whole story, and what is missing is said."""

from __future__ import annotations

import json
import os
import re
import signal
import smtplib

import pytest

from forkd.cli.control import request
from forkd.queue.ids import time_of
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import Make
from .test_faults import misbehave

MESSAGE = "Subject: x\r\n\r\nhello\r\n"


@pytest.fixture
def failing(make_daemon: Make) -> Daemon:
    """A daemon whose plugin misbehaves when it is told to."""
    return make_daemon(config='[queue]\nretry_first = "1h"\n', plugins=misbehave(), copy=("misbehave",))


def explained(daemon: Daemon, id_: str) -> dict:
    """The answer of `forkd explain --json`; {} where nothing is known."""
    done = daemon.forkd("explain", "--json", id_)
    answer = json.loads(done.stdout)
    return answer if done.returncode == 0 else {}


def told(daemon: Daemon, id_: str, *events: str) -> dict:
    """The story of an id, once all these events are in it: they are told a moment later."""

    def whole() -> dict:
        answer = explained(daemon, id_)
        return answer if set(events) <= {event["event"] for event in answer.get("events", ())} else {}

    return wait_for(whole, timeout_s=30)


def test_every_id_of_a_reply_leads_to_the_story(failing: Daemon):
    """A failure's reply names the session, a taken message's its id; both tell what plugins said."""
    with failing.smtp() as client:
        client.ehlo("client.example")
        client.mail("a@example.org")
        client.rcpt("b@test.local")
        _, taken = client.data(MESSAGE)
        client.mail("mail-raise@example.org")
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.quit()
    [refused] = failing.told("refused")
    assert "(session " in refused["reply"]

    story = told(failing, refused["reply"], "plugin_failure", "session", "delivery", "sandbox_end")
    assert (story["kind"], story["notes"], story["gaps"]) == ("session", [], [])
    by_name = {event["event"]: event["fields"] for event in story["events"]}
    assert by_name["plugin_failure"]["plugin"] == "misbehave"
    assert by_name["refused"]["reply"] == refused["reply"]
    assert by_name["delivery"]["status"] == "delivered"
    assert by_name["sandbox_end"]["memory_kib"] > 0
    hooks = [event["fields"]["hook"] for event in story["events"] if event["event"] == "plugin_call"]
    assert {"mail", "rcpt", "message"} <= set(hooks)

    message = explained(failing, taken.decode())
    assert (message["kind"], message["sessions"]) == ("message", [story["id"]])
    assert "refused" not in {event["event"] for event in message["events"]}, "that was another transaction"

    shown = failing.forkd("explain", refused["reply"]).stdout
    assert f"session   {story['id']}" in shown
    assert re.search(r"failure +plugin misbehave .* at mail: ", shown)
    assert re.search(r"delivered +b@test.local by local", shown)


@pytest.mark.slow
def test_what_was_kept_can_be_read_where_no_forkd_runs(failing: Daemon):
    """After a stop, and after a kill of everything."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with failing.smtp() as client:
            client.sendmail("a@example.org", ["b@test.local"], MESSAGE)
        told(failing, failing.told("session")[-1]["session"], "session", "delivery")
        last = failing.told("message")[-1]["id"]
        failing.stop(number)
        done = failing.forkd("explain", last)
        assert "no forkd runs here" in done.stderr
        assert re.search(r"delivered +b@test.local by local", done.stdout)
        failing.start()


@pytest.mark.slow
def test_what_nobody_can_know_is_said(failing: Daemon):
    """Another forkd's id, one from before everything, and what is none."""
    old, other, none = (
        failing.forkd("explain", id_) for id_ in ("HOFU7Z4TRZX1S7W0", "not an id", "AAAAAAAAAAAAAAAA")
    )
    assert "what is kept begins at" in old.stderr
    assert "there is no id in" in other.stderr
    assert all(done.returncode == 1 for done in (old, other, none))


@pytest.mark.slow
def test_without_keep_nothing_is_kept(make_daemon: Make):
    """trace.keep = 0: no folder, no file, and the command says so."""
    daemon = make_daemon(config='[trace]\nkeep = "0s"\n')
    with daemon.smtp() as client:
        client.sendmail("a@example.org", ["b@test.local"], MESSAGE)
    done = daemon.forkd("explain", daemon.told("message")[0]["id"])
    assert "trace.keep = 0" in done.stderr
    assert not (daemon.var / "trace").exists()


@pytest.mark.slow
def test_a_session_whose_worker_was_killed_has_no_end_and_that_is_said(failing: Daemon):
    """Not that it is still open."""
    client = failing.smtp()
    client.ehlo("client.example")
    [connection] = wait_for(lambda: [_session(failing)] if _session(failing) else [], timeout_s=30)
    for pid in failing.role("worker"):
        os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: any("was killed" in note for note in explained(failing, connection)["notes"]), timeout_s=60
    )


def _session(daemon: Daemon) -> str:
    """The id of the only session, from the store's own file."""
    import sqlite3

    database = sqlite3.connect(f"file:{daemon.var}/trace/trace.db?mode=ro", uri=True)
    try:
        found = database.execute("SELECT key FROM piece WHERE begins").fetchone()
    finally:
        database.close()
    return found[0] if found else ""


@pytest.mark.slow
@pytest.mark.both_modes
def test_a_killed_admin_loses_little_and_knows_what(failing: Daemon):
    """While it is away records wait in the socket; what it had read and not written is counted as missing."""
    sent = 0
    for _ in range(5):
        for _ in range(20):
            with failing.smtp() as client:
                client.sendmail("a@example.org", ["b@test.local"], MESSAGE)
            sent += 1
        [admin] = failing.role("admin")
        os.kill(admin, signal.SIGKILL)
        wait_for(lambda admin=admin: failing.role("admin") not in ([], [admin]), timeout_s=30)
    with failing.smtp() as client:
        client.sendmail("a@example.org", ["b@test.local"], MESSAGE)
    *ids, last = [event["id"] for event in failing.told("message", sent + 1)]
    told(failing, last, "delivery")  # of those before it a kill may have taken every event
    missing = sum(not request(failing.var, "explain", id=id_, since=time_of(id_))["events"] for id_ in ids)
    assert missing < sent // 2

    def known_to_be_missing() -> bool:
        # Each process' next record tells. The first id is older than any gap, so its answer has them all.
        gaps = request(failing.var, "explain", id=ids[0], since=time_of(ids[0]))["gaps"]
        return sum(gap["events"] for gap in gaps) >= missing

    wait_for(known_to_be_missing, timeout_s=30)
