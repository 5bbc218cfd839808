"""What becomes of mail when a filter is edited, or what starts it is upgraded, while forkd runs?"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal

import pytest

from tests.programs.test_daemon import reply_to
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for
from tests.system.conftest import Make


def with_filter(make_daemon: Make, text: str, server: str = "") -> Daemon:
    """A daemon whose filter is `filter.sh` in its folder, started by an interpreter of its own there."""
    daemon: Daemon = make_daemon(start=False, server=server)
    owner = daemon.folder.stat().st_uid
    interpreter = daemon.folder / "sh"
    shutil.copy("/bin/dash", interpreter)
    script = daemon.folder / "filter.sh"
    script.write_text(f"#!{interpreter}\n{text}\n")
    for path in (script, interpreter):
        path.chmod(0o755)
        os.chown(path, owner, -1)
    entries = daemon.folder / "plugins.d"
    entries.mkdir(exist_ok=True)
    (entries / "10-filter.toml").write_text(f'kind = "program"\nargv = ["{script}"]\n')
    return daemon.start()


def test_an_edited_filter_is_asked_at_once_and_still_after_its_zygotes_end(make_daemon: Make) -> None:
    """Not a message waits: the change is no reason not to start the zygote, and the log has the new hash."""
    daemon = with_filter(make_daemon, "exit 100")
    assert reply_to(daemon, "test")[0] == 554
    script = daemon.folder / "filter.sh"
    script.write_text(script.read_text().replace("exit 100", "exit 111"))
    assert reply_to(daemon, "test")[0] == 451
    (before,) = daemon.role("zygote filter")
    os.kill(before, signal.SIGKILL)
    after = daemon.told("plugin_loaded", 2)[-1]["sha256"]
    assert reply_to(daemon, "test")[1].startswith("4.3.0 A filter of this server puts the message off")
    row = f"{hashlib.sha256(script.read_bytes()).hexdigest()}  {script.name}\n"
    assert after == hashlib.sha256(row.encode()).hexdigest()
    assert not [event for event in daemon.events("process") if event["act"] == "not_started"]


@pytest.mark.slow
def test_an_upgraded_interpreter_is_told_while_forkd_runs(make_daemon: Make) -> None:
    """One line in the log with what to do, before somebody wonders about mail that waits."""
    daemon = with_filter(make_daemon, "exit 100", server='heartbeat = "2s"\n')
    assert reply_to(daemon, "test")[0] == 554
    interpreter = daemon.folder / "sh"
    shutil.copy2(interpreter, daemon.folder / "new")
    (daemon.folder / "new").rename(interpreter)
    (told,) = wait_for(
        lambda: [event for event in daemon.events("process") if event["act"] == "changed"], timeout_s=120
    )
    assert (told["name"], told["level"]) == ("filter", "warning")
    assert told["reason"] == "sh changed on disk since it was taken into use: restart forkd"
