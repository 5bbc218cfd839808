"""A real clamd with two signatures of the test's, on a unix socket: Debian's, started by hand."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.waiting import wait_for

SERVER = shutil.which("clamd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

# In two pieces, so that no scanner finds this file.
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-" + rb"STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""The anti-virus test file (eicar.org); found as Test.Eicar."""
SUSPECT = b"a phrase that the heuristic signature of the tests finds"
"""Found as Heuristics.Test.Phrase."""


class Clamd:
    """From start() to stop(); may be started again on the same socket.

    stream_max  StreamMaxLength, in octets
    """

    def __init__(self, *, stream_max: int = 1 << 20) -> None:
        # Not tmp_path: the path of a unix socket has 107 octets at most, and others must get there.
        self.folder = Path(tempfile.mkdtemp(prefix="clamd-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "ctl"
        self._process: subprocess.Popen[bytes] | None = None
        database = self.folder / "db"
        database.mkdir()
        (database / "test.ndb").write_text(
            f"Test.Eicar:0:*:{EICAR.hex()}\nHeuristics.Test.Phrase:0:*:{SUSPECT.hex()}\n"
        )
        (self.folder / "clamd.conf").write_text(
            "Foreground yes\n"
            f"LocalSocket {self.socket}\n"
            "LocalSocketMode 666\n"
            f"DatabaseDirectory {database}\n"
            f"TemporaryDirectory {self.folder}\n"
            f"StreamMaxLength {stream_max}\n"
            "SelfCheck 0\n"
            f"User {getpass.getuser()}\n"
        )

    @property
    def target(self) -> str:
        """As grants.connect has it."""
        return f"unix:{self.socket}"

    def start(self) -> Clamd:
        """Run it; returns when it listens."""
        if SERVER is None:
            pytest.skip("clamd is not installed")
        self._process = subprocess.Popen(
            [SERVER, f"--config-file={self.folder}/clamd.conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, "clamd has ended"
            return self.socket.exists()

        wait_for(ready, timeout_s=30)
        return self

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self.socket.unlink(missing_ok=True)
            self._process = None

    def __enter__(self) -> Clamd:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
