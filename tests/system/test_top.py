"""`forkd top` in a terminal, on a daemon that has mail and plugins; and what it goes by."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.test_top import Terminal
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

pytestmark = pytest.mark.slow


def test_top_shows_what_plugins_do(daemon: Daemon):
    """Calls and their time come with the workers' heartbeats; rates are of the last interval."""

    def counters() -> dict[str, int]:
        asked = daemon.forkd("status", "--json", "--config", "forkd.toml")
        found: dict[str, int] = {}
        for process in json.loads(asked.stdout)["processes"]:
            for name, number in process["counters"].items():
                found[name] = found.get(name, 0) + number
        return found

    with Terminal(daemon.folder, "--config", "forkd.toml", "--interval", "1s", columns=140, rows=40) as top:
        top.until(lambda text: "q quit" in text)
        with daemon.smtp() as client:
            for _ in range(3):
                client.sendmail("a@example.org", ["b@test.local"], b"Subject: one\r\n\r\nhello\r\n")
            wait_for(lambda: counters().get("plugin.mark.calls") == 3)
            top.until(lambda text: re.search(r"mark\W[^\n]* [0-9.]*[1-9]\b[^\n]* [0-9]+\.[0-9]", text))
            top.until(lambda text: "127.0.0.1" in text)
        top.press("q")
        assert top.process.wait(20) == 0
    assert 0 < counters()["plugin.mark.us"] < 60_000_000
    assert "ms each" in daemon.forkd("status", "--config", "forkd.toml").stdout
