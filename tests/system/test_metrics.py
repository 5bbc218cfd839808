"""/metrics of the real daemon: what it says is what the log says, and it never falls."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import smtplib
import subprocess

import pytest

from tests.support import asking_http as ask
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

from .conftest import STOCK, Make

LINE = re.compile(r"(forkd_\w+)(?:\{(.*)\})? (\S+)")

Numbers = dict[tuple[str, str], float]


def scraped(daemon: Daemon) -> Numbers:
    """(name, labels as they stand there) -> value."""
    answer = ask.get(daemon.var / "run" / "metrics.sock", "/metrics")
    assert answer.status == 200
    assert answer.fields["content-type"].startswith("text/plain; version=0.0.4")
    found: Numbers = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match is not None, line
            found[match[1], match[2] or ""] = float(match[3])
    return found


def total(numbers: Numbers, name: str, labels: str = "") -> float:
    return sum(value for (n, has), value in numbers.items() if n == name and labels in has)


def send(daemon: Daemon, recipient: str) -> None:
    with contextlib.suppress(smtplib.SMTPException, OSError), smtplib.SMTP("127.0.0.1", daemon.port) as smtp:
        smtp.sendmail("sender@example.org", [recipient], b"Subject: x\r\n\r\nhello\r\n")


def test_metrics_agree_with_the_log(make_daemon: Make):
    """Counted is what the log tells, by the same events; promtool takes it; a killed worker takes nothing."""
    daemon = make_daemon(plugins=STOCK, config='[log]\nformat = "json"\nlevel = "debug"\n')
    for number in range(6):
        send(daemon, f"user{number}@test.local" if number % 2 else "stranger@elsewhere.example")
    wait_for(lambda: len(daemon.events("session")) == 6 and len(daemon.events("delivery")) == 3)
    before = scraped(daemon)
    assert total(before, "forkd_connections_total") == 6
    assert total(before, "forkd_session_ends_total", 'reason="quit"') == 6
    assert total(before, "forkd_messages_total", 'result="accepted"') == 3
    assert total(before, "forkd_recipients_total") == 3
    assert total(before, "forkd_message_bytes_total") == sum(e["size"] for e in daemon.events("message"))
    assert total(before, "forkd_refusals_total", 'command="RCPT"') == len(daemon.events("refused")) == 3
    assert total(before, "forkd_replies_total", 'code="220"') == 6
    assert total(before, "forkd_deliveries_total", 'status="delivered"') == 3
    assert total(before, "forkd_spool_commit_seconds_count") == 3
    calls = [e for e in daemon.events("plugin_call") if not e["plugin"].startswith("@")]
    assert total(before, "forkd_plugin_calls_total") == len(calls) > 0
    assert not [key for key in before if "@" in key[1]], "forkd's own probe is in no count"
    if promtool := shutil.which("promtool"):
        text = ask.get(daemon.var / "run" / "metrics.sock", "/metrics").text
        command = [promtool, "check", "metrics"]
        checked = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    for pid in daemon.role("worker"):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not falls(before, scraped(daemon)) and workers_run(daemon))
    send(daemon, "user7@test.local")
    wait_for(lambda: len(daemon.events("delivery")) == 4)
    after = scraped(daemon)
    assert not falls(before, after)
    assert total(after, "forkd_messages_total", 'result="accepted"') == 4
    assert total(after, "forkd_process_events_total", 'act="died"') >= 1


def workers_run(daemon: Daemon) -> bool:
    return total(scraped(daemon), "forkd_processes", 'role="worker",state="running"') >= 1


def falls(before: Numbers, after: Numbers) -> list[tuple[str, str]]:
    """Counters that are smaller, or gone."""
    rising = ("_total", "_count", "_bucket")
    return [key for key, was in before.items() if key[0].endswith(rising) and after.get(key, -1.0) < was]


@pytest.mark.slow
def test_counters_never_fall_while_workers_are_killed(make_daemon: Make):
    """Under load, with a worker killed every few messages and a scrape after each; at the end what clients
    were told and what was counted agree, but for what a kill cut off between the two."""
    daemon = make_daemon(plugins=STOCK)
    last = scraped(daemon)
    accepted = kills = 0
    for number in range(150):
        told = contextlib.suppress(smtplib.SMTPException, OSError)
        with told, smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as smtp:
            smtp.sendmail("a@example.org", [f"user{number}@test.local"], b"Subject: x\r\n\r\nhello\r\n")
            accepted += 1
        if number % 25 == 24:
            os.kill(daemon.role("worker")[0], signal.SIGKILL)
            kills += 1
            wait_for(lambda: workers_run(daemon))
        now = scraped(daemon)
        assert not falls(last, now)
        last = now
    wait_for(lambda: total(scraped(daemon), "forkd_deliveries_total", 'status="delivered"') >= accepted)
    last = scraped(daemon)
    assert accepted <= total(last, "forkd_messages_total", 'result="accepted"') <= accepted + kills
    assert total(last, "forkd_deliveries_total", 'status="delivered"') == len(daemon.events("delivery"))


@pytest.mark.slow
def test_counters_outlast_a_reload(make_daemon: Make):
    """The new generation's workers, and an admin that was replaced, go on with what was counted."""
    daemon = make_daemon(plugins=STOCK)
    for number in range(4):
        send(daemon, f"user{number}@test.local")
    wait_for(lambda: len(daemon.events("delivery")) == 4)
    before = scraped(daemon)
    config = daemon.folder / "forkd.toml"
    config.write_text(config.read_text() + '\n[metrics]\nlisten = "auto"\n[limits]\nsessions = 321\n')
    done = daemon.forkd("reload", "--config", "forkd.toml")
    assert done.returncode == 0, done.stderr
    send(daemon, "user5@test.local")
    wait_for(lambda: len(daemon.events("delivery")) == 5)
    wait_for(lambda: not total(scraped(daemon), "forkd_session_places") % 321)
    after = scraped(daemon)
    assert not falls(before, after)
    assert total(after, "forkd_messages_total", 'result="accepted"') == 5
