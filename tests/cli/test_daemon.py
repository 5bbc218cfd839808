"""The command line against a real daemon: status, sandbox status, queue, stop, on defaults."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkd.exits import Exit
from tests.support.daemon import Daemon
from tests.support.people import installation, person


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """As an ordinary user, in a folder that he can enter (pytest's own are root's alone)."""
    who = person("user")
    root, python = installation()
    folder = Path(tempfile.mkdtemp(prefix="forkd-cli-", dir="/var/tmp"))
    folder.chmod(0o755)
    made = Daemon(folder, prefix=who.prefix, python=python, root=root)
    made.write_config()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, who.uid, -1)
    try:
        with made.start() as running:
            yield running
    finally:
        shutil.rmtree(folder)


def test_a_running_daemon_is_asked_and_stopped(daemon: Daemon):
    """status, queue and sandbox status answer; stop returns when master is gone; then nobody answers."""
    named = ("--config", "forkd.toml")
    status = json.loads(daemon.forkd("status", "--json", *named).stdout)
    assert daemon.process is not None
    assert (status["pid"], status["state"]) == (daemon.process.pid, "running")
    assert daemon.forkd("status").returncode == 0, "its data_dir is ./var, which is looked at without a name"
    assert daemon.forkd("queue", "list", *named).stdout == "the queue is empty\n"
    assert json.loads(daemon.forkd("sandbox", "status", "--json").stdout)["layers"] == status["sandbox"]
    unknown = daemon.forkd("queue", "show", "0")
    assert (unknown.returncode, unknown.stdout) == (Exit.FAILED, "")

    stopped = daemon.forkd("stop", *named)
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert daemon.process.wait(10) == Exit.OK
    assert daemon.forkd("status", *named).returncode == Exit.NO_DAEMON
