"""A real Dovecot that knows passwords and nothing else: its auth service on a unix socket."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.daemon import alive, children, kill_left
from tests.support.waiting import wait_for

SERVER = shutil.which("dovecot", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


class Dovecot:
    """From start() to stop(); may be started again on the same socket.

    users       login -> password, or `!` for one that always is Dovecot's own trouble
    mechanisms  as auth_mechanisms has them
    """

    def __init__(self, users: dict[str, str], *, mechanisms: str = "plain login scram-sha-256") -> None:
        # Not tmp_path: the path of a unix socket has 107 octets at most.
        self.folder = Path(tempfile.mkdtemp(prefix="dovecot-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "auth"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [f"{login}:{{PLAIN}}{password}::::::\n" for login, password in users.items()]
        (self.folder / "passwd").write_text("".join(lines))
        (self.folder / "passwd").chmod(0o644)
        me = getpass.getuser()
        people = "" if os.geteuid() == 0 else f"default_internal_user = {me}\ndefault_login_user = {me}\n"
        (self.folder / "dovecot.conf").write_text(
            f"base_dir = {self.folder}/run\n"
            f"log_path = {self.folder}/log\n"
            "ssl = no\n"
            "protocols =\n"
            "auth_failure_delay = 0\n"
            f"auth_mechanisms = {mechanisms}\n"
            f"passdb {{\n driver = passwd-file\n args = username_format=%u {self.folder}/passwd\n}}\n"
            "userdb {\n driver = static\n args = uid=nobody gid=nogroup home=/tmp\n}\n"
            f"service auth {{\n unix_listener {self.socket} {{\n  mode = 0666\n }}\n}}\n{people}"
        )

    def start(self) -> Dovecot:
        """Run it; returns when the socket is there."""
        if SERVER is None:
            pytest.skip("dovecot is not installed")
        self._process = subprocess.Popen(
            [SERVER, "-F", "-c", str(self.folder / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self._process.stderr and self._process.stderr.read()
            return self.socket.exists()

        wait_for(ready, timeout_s=20)
        return self

    def stop(self) -> None:
        """End it: Dovecot's own processes outlive its master as long as they have clients."""
        if self._process is not None:
            pids = children(self._process.pid)
            self._process.terminate()
            self._process.wait(20)
            kill_left(pids)
            wait_for(lambda: not any(alive(pid) for pid in pids), timeout_s=10)
            self.socket.unlink(missing_ok=True)
            if self._process.stderr is not None:
                self._process.stderr.close()
            self._process = None

    def __enter__(self) -> Dovecot:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
