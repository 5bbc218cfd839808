"""What stops a start where a program is a plugin: each with one clear line, before a client is greeted."""

from __future__ import annotations

import os

import pytest

from forkd.exits import Exit
from tests.support.daemon import Daemon
from tests.support.people import Person
from tests.support.waiting import wait_for
from tests.system.conftest import Make


def a_start(make_daemon: Make, mode: int, text: str = "#!/bin/sh\n") -> tuple[int, str]:
    """Of a daemon whose filter is a file of this mode: its exit status (0: it is ready), its last word."""
    daemon: Daemon = make_daemon(start=False)
    script = daemon.folder / "filter.sh"
    script.write_text(text)
    script.chmod(mode)
    os.chown(script, daemon.folder.stat().st_uid, -1)
    entries = daemon.folder / "plugins.d"
    entries.mkdir(exist_ok=True)
    (entries / "10-filter.toml").write_text(f'kind = "program"\nargv = ["{script}"]\n')
    daemon.start(ready=False)
    assert daemon.process is not None
    status = wait_for(
        lambda: daemon.process.poll() if daemon.process.poll() is not None else _ready(daemon), timeout_s=60
    )
    failed = [one["detail"] for one in daemon.events("service") if one["act"] == "failed"]
    return (0 if status is True else status), failed[-1] if failed else daemon.log_text()


def _ready(daemon: Daemon) -> bool:
    return any(one["act"] == "ready" for one in daemon.events("service"))


def test_a_program_that_others_may_write_is_not_started(make_daemon: Make) -> None:
    """Whoever can write it would be in every mail."""
    status, said = a_start(make_daemon, 0o777)
    assert status == Exit.CONFIG, said
    assert "plugin 'filter' is not started: everybody may write" in said


@pytest.mark.slow
def test_a_script_without_its_interpreter_is_not_started(make_daemon: Make) -> None:
    """Found before the first mail."""
    status, said = a_start(make_daemon, 0o755, "#!/nonexistent/interpreter\n")
    assert status == Exit.CONFIG, said
    assert "plugin 'filter': /nonexistent/interpreter cannot be read" in said


@pytest.mark.slow
def test_a_program_that_its_own_uid_may_not_execute_is_not_started(make_daemon: Make, who: Person) -> None:
    """Started by root it gets a uid of its own, which has to reach it; by a user it has his."""
    status, said = a_start(make_daemon, 0o700)
    if who.name == "user":
        assert status == 0, said
        return
    assert status == Exit.CONFIG, said
    assert "plugin 'filter'" in said and "as which it runs, cannot" in said
