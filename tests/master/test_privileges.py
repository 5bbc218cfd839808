"""forkd/master/privileges.py: who runs as whom, decided before anything is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DECIDE = """
from forkd.config.schema import Server
from forkd.master import privileges
server = Server(user="daemon", queue_user="mail", admin_user="uucp", launcher_user="other")
keys = (*privileges.USERS, privileges.LAUNCHER_USER)
print(privileges.decide(server, keys=keys).problem)
print(privileges.decide(server).problem)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes ids")
def test_two_names_of_one_uid_are_one_user(tmp_path: Path):
    """The user of queue programs, which have no walls, is nobody else's, whatever he is called."""
    accounts = Path("/etc/passwd").read_text()
    (mail,) = [line for line in accounts.splitlines() if line.startswith("mail:")]
    (tmp_path / "passwd").write_text(f"{accounts}{mail.replace('mail', 'other', 1)}\n")
    # In a mount namespace of its own, so that nobody else sees these accounts.
    script = f"mount --bind {tmp_path}/passwd /etc/passwd && exec {sys.executable} -c '{DECIDE}'"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    clash, fine = done.stdout.splitlines()
    assert "server.launcher_user = 'other' and server.queue_user = 'mail' are one user" in clash
    assert fine == "", "without a launcher nobody has to be somebody else"
