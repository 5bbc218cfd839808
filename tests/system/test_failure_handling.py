"""The real daemon when plugins fail: breaker, shadow mode, crash records, what `forkd status` says of it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from forkd.rpc import records
from tests.support.daemon import Daemon, titles
from tests.support.waiting import wait_for

from .conftest import Make
from .test_faults import Neighbours, dialogue, misbehave

STRANGERS = "[networks]\ntrusted = []\n[limits]\nsessions_per_client = 1000\n"
"""Everybody has a network: one /24 each."""
ONE_WORKER = "workers = 1\n"
ENDS = {"421 4.3.0"}


def ended(replies: list[bytes]) -> str:
    return replies[-1][:9].decode()


def status(daemon: Daemon) -> dict:
    return json.loads(daemon.forkd("status", "--json", "--config", "forkd.toml").stdout)


def counters(daemon: Daemon) -> dict[str, int]:
    total: dict[str, int] = {}
    for process in status(daemon)["processes"]:
        for name, number in process["counters"].items():
            total[name] = total.get(name, 0) + number
    return total


def breaker_states(daemon: Daemon) -> list[str]:
    return [event["state"] for event in daemon.events("breaker")]


# --- the breaker ----------------------------------------------------------------------------------------


def test_a_client_that_crashes_a_scanner_on_purpose_does_not_switch_it_off(make_daemon: Make):
    """Again and again, for longer than the window: everybody else is scanned, each time."""
    daemon = make_daemon(
        config=f'{STRANGERS}[breaker]\nwindow = "1s"\nnetworks = 2\n',
        server=ONE_WORKER,
        plugins=misbehave(sandboxes="128"),
        copy=("misbehave",),
    )
    crashed = 0
    until = time.monotonic() + 3
    with Neighbours(daemon.port, 3, source="127.11.{}.1") as neighbours:
        while time.monotonic() < until:
            replies = dialogue(daemon.port, sender="mail-segv", source="127.9.0.1")
            assert ended(replies) in ENDS
            crashed += 1
    assert crashed > 10
    assert breaker_states(daemon) == []
    assert all(replies[-1].startswith(b"221") for replies in neighbours.sessions)
    wait_for(lambda: len(daemon.events("message")) >= len(neighbours.sessions))
    scanned = [" ".join(event["plugins"]) for event in daemon.events("message") if event.get("id")]
    assert all("misbehave/message=none" in story and "!" not in story for story in scanned)


def test_a_plugin_that_fails_for_everyone_is_not_asked_until_it_works_again(make_daemon: Make):
    """Open: on_failure at once, told in log and status. One session is let through, and it is closed."""
    daemon = make_daemon(
        config=f'{STRANGERS}[breaker]\nwindow = "1s"\nnetworks = 2\npause = "2s"\n',
        server=ONE_WORKER,
        plugins=misbehave(),
        copy=("misbehave",),
    )

    def break_it() -> bool:
        # At its first hook: a call before it that succeeds would show that it works.
        for network in range(3):
            dialogue(daemon.port, source=f"127.0.{network}.{10 + 3}")
        return breaker_states(daemon) == ["open"]

    wait_for(break_it, timeout_s=20)
    replies = dialogue(daemon.port, source="127.11.0.1")
    assert ended(replies) == "421 4.3.0"
    [refused] = wait_for(
        lambda: [e for e in daemon.events("session") if e["client"].startswith("127.11.0.1:")]
    )
    assert refused["plugins"][0].startswith("misbehave/connect=disconnect!breaker_open")
    of_it = [e for e in daemon.events("plugin_failure") if e["session"] == refused["session"]]
    assert of_it == [], "it was not asked, and no line is written for that"
    wait_for(lambda: "BREAKER OPEN in 1 of 1 workers" in daemon.forkd("status").stdout)
    assert counters(daemon)["plugin.misbehave.breaker_refused"] >= 1

    wait_for(lambda: ended(dialogue(daemon.port, source="127.11.0.1")).startswith("221"), timeout_s=20)
    assert breaker_states(daemon) == ["open", "half_open", "closed"]
    wait_for(lambda: "BREAKER" not in daemon.forkd("status").stdout)


@pytest.mark.slow
def test_a_zygote_that_takes_no_calls_opens_it(make_daemon: Make):
    """Whoever calls: nobody waits for deadline after deadline."""
    daemon = make_daemon(
        config='[breaker]\npause = "2s"\n',
        server=ONE_WORKER + 'heartbeat = "1h"\n',  # until master ends it
        plugins=misbehave(spare="0"),
        copy=("misbehave",),
    )
    [zygote] = daemon.role("zygote misbehave")
    os.kill(zygote, signal.SIGSTOP)
    try:
        for _ in range(2):
            assert ended(dialogue(daemon.port)) == "421 4.3.0"
        assert breaker_states(daemon) == ["open"]
        assert {event["cause"] for event in daemon.told("plugin_failure", 2)} == {"unavailable"}
        assert "zygote" in daemon.events("breaker")[0]["reason"]
    finally:
        os.kill(zygote, signal.SIGCONT)
    wait_for(lambda: ended(dialogue(daemon.port)).startswith("221"), timeout_s=20)
    assert breaker_states(daemon)[-1] == "closed"


# --- shadow mode ----------------------------------------------------------------------------------------


def shadowed(entry: dict[str, str]) -> dict[str, str]:
    return {name: f'mode = "shadow"\n{text}' for name, text in entry.items()}


def test_a_shadow_plugin_is_told_of_and_not_obeyed(make_daemon: Make):
    """The mail is taken; the log has what the plugin would have said, the counters that it differs."""
    entry = {"10-block_senders.toml": 'plugin = "block_senders"\n[settings]\nsenders = ["a@example.org"]\n'}
    daemon = make_daemon(plugins=shadowed(entry))
    assert dialogue(daemon.port)[-1].startswith(b"221")
    assert dialogue(daemon.port, sender="good")[-1].startswith(b"221")
    [told] = daemon.told("shadow")
    assert (told["plugin"], told["hook"], told["differs"]) == ("block_senders", "mail", True)
    assert (told["would"], told["did"]) == ("deny", "go on")
    assert told["reply"].startswith("550 ")
    wait_for(lambda: counters(daemon).get("plugin.block_senders.shadow_same", 0) >= 1)
    assert counters(daemon)["plugin.block_senders.shadow_differs"] == 1
    assert "shadow differs 1" in daemon.forkd("status").stdout


def test_a_shadow_plugin_that_hangs_keeps_nobody_waiting(make_daemon: Make):
    """All replies are there while its first call is still under way; its end is a line of the log."""
    daemon = make_daemon(
        plugins=shadowed(misbehave(timeout='"60s"', message_timeout='"60s"', cpu='"60s"')),
        copy=("misbehave",),
    )
    replies = dialogue(daemon.port, sender="mail-sleep")
    assert [reply[:3] for reply in replies] == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert daemon.events("plugin_failure") == []
    hanging = [t for t in titles(daemon.pids()).values() if t.startswith("forkd: sandbox misbehave")]
    assert hanging, "its call is still under way"
    others = [threading.Thread(target=dialogue, args=(daemon.port,)) for _ in range(8)]
    for other in others:
        other.start()
    for other in others:
        other.join(30)
    wait_for(lambda: len(daemon.mailbox("user")) == 9)


def test_a_shadow_plugin_that_fails_is_logged_and_the_client_does_not_know(make_daemon: Make):
    """By any way to fail; its breaker is none, its sandboxes are nobody's share."""
    daemon = make_daemon(plugins=shadowed(misbehave()), copy=("misbehave",))
    for act in ("segv", "raise", "exit"):
        assert dialogue(daemon.port, sender=f"mail-{act}")[-1].startswith(b"221")
    lines = daemon.told("plugin_failure", 3)
    assert {line["on_failure"] for line in lines} == {"shadow"}
    assert {line["cause"] for line in lines} == {"crash", "exception"}


@pytest.mark.both_modes
def test_the_end_of_a_zygote_is_no_crash_of_its_plugin(make_daemon: Make):
    """Its sandboxes end with it: on_failure for their sessions, a cause of its own, and nothing is kept."""
    daemon = make_daemon(
        config="[crash]\nkeep = 2\n",
        server=ONE_WORKER,
        plugins=misbehave(spare="0"),
        copy=("misbehave",),
    )
    [zygote] = daemon.role("zygote misbehave")
    client = daemon.smtp()
    assert client.ehlo()[0] == 250
    [sandbox] = daemon.role("sandbox misbehave")
    os.kill(zygote, signal.SIGKILL)
    wait_for(lambda: sandbox not in titles(daemon.pids()))
    assert client.mail("sender@example.org")[0] == 421
    [line] = daemon.told("plugin_failure")
    assert (line["cause"], line["hook"], line["pid"]) == ("zygote ended", "mail", sandbox)
    assert "record" not in line
    failed = wait_for(lambda: {name: n for name, n in counters(daemon).items() if ".failed." in name})
    assert failed == {"plugin.misbehave.failed.zygote_ended": 1}
    wait_for(lambda: ended(dialogue(daemon.port)).startswith("221"), timeout_s=20)
    assert breaker_states(daemon) == []
    assert kept(daemon, "json") == []


# --- crash records --------------------------------------------------------------------------------------

FALLING = '''
"""Fails when it has read a message, for tests."""
from forkd.sdk import Plugin

def plugin_init(settings):
    def message(session, envelope, message):
        raise ValueError(f"cannot read {len(message.body)} octets")
    return Plugin(message=message)
'''
FALLING_MANIFEST = """
name = "falling"
version = "3.1"
api = 1
kind = "python"
description = "Fails when it has read a message, for tests"
hooks = ["message"]
[wants.reads]
body = "that is what it fails at"
envelope = "likewise"
"""


def falling(make_daemon: Make, config: str) -> Daemon:
    daemon = make_daemon(config=config, server=ONE_WORKER, start=False)
    folder = daemon.folder / "falling"
    folder.mkdir()
    (folder / "falling.py").write_text(FALLING)
    (folder / "plugin.toml").write_text(FALLING_MANIFEST)
    (daemon.folder / "plugins.d").mkdir()
    (daemon.folder / "plugins.d" / "10-falling.toml").write_text(
        'plugin = "../falling"\n[grants]\nreads = ["envelope", "body"]\n'
    )
    owner = daemon.folder.stat().st_uid
    for path in (daemon.folder, *daemon.folder.rglob("*")):
        os.chown(path, owner, -1)
    return daemon.start()


def kept(daemon: Daemon, suffix: str) -> list[Path]:
    return sorted((daemon.var / "crash").glob(f"*.{suffix}"))


@pytest.mark.both_modes
def test_a_failed_call_can_be_looked_at_later(make_daemon: Make):
    """crash.keep: the frames and the message, under the id that the log line names, for the worker alone."""
    daemon = falling(make_daemon, "[crash]\nkeep = 2\n")
    for _ in range(3):
        assert ended(dialogue(daemon.port)) == "421 4.3.0"
    lines = daemon.told("plugin_failure", 3)
    newest = [line["record"] for line in lines][-2:]
    wait_for(lambda: [path.stem for path in kept(daemon, "json")] == newest)
    folder = (daemon.var / "crash").stat()
    assert folder.st_mode & 0o777 == 0o700
    record = records.decode(kept(daemon, "json")[-1].read_bytes())
    assert (record.plugin, record.version, record.hook, record.cause) == (
        "falling",
        "3.1",
        "message",
        "exception",
    )
    assert record.session == lines[-1]["session"]
    assert record.hash == daemon.events("plugin_loaded")[0]["sha256"]
    assert record.output.endswith("ValueError: cannot read 7 octets")
    frames = [json.loads(bytes(frame)) for frame in record.frames]
    assert [frame["hook"] for frame in frames] == ["message"]
    assert frames[0]["recipients"] == [{"local": "user", "domain": "test.local"}]
    message = daemon.var / "crash" / record.message
    assert message.read_bytes() == b"Subject: x\r\n\r\nhello\r\n"
    assert message.stat().st_uid == folder.st_uid


def test_no_record_is_kept_unless_asked_for(make_daemon: Make):
    """They hold mail."""
    daemon = falling(make_daemon, "")
    dialogue(daemon.port)
    [line] = daemon.told("plugin_failure")
    assert "record" not in line
    assert not (daemon.var / "crash").exists()


def test_a_record_that_cannot_be_written_costs_nobody_anything(make_daemon: Make):
    """Its folder is gone: the log says which record is lost, and mail goes on."""
    daemon = falling(make_daemon, "[crash]\nkeep = 2\n")
    (daemon.var / "crash").rmdir()
    assert ended(dialogue(daemon.port)) == "421 4.3.0"
    [line] = daemon.told("plugin_failure")
    [lost] = daemon.told("crash_record")
    assert (lost["act"], lost["record"]) == ("lost", line["record"])
    assert ended(dialogue(daemon.port)) == "421 4.3.0"
