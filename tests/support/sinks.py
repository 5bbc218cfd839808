"""Postfix' test programs: smtp-sink as a next hop in the mood asked for, smtp-source as a crowd."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from tests.support.daemon import free_port
from tests.support.waiting import wait_for

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
_RECIPIENT = re.compile(rb"^X-Rcpt-Args: <([^>]*)>", re.MULTILINE)


def program(name: str) -> str:
    """Where it is; skips the test where it is not."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install postfix")
    return found


class Sink:
    """smtp-sink on one port, from start() to stop(); may be started again with other arguments."""

    def __init__(self) -> None:
        # Not tmp_path: it is filled by a user of its own.
        self.folder = Path(tempfile.mkdtemp(prefix="sink-", dir="/var/tmp"))
        self.folder.chmod(0o777)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> Sink:
        """Run it; returns when it listens."""
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        log = (self.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    program("smtp-sink"), *user, "-d", f"{self.folder}/mail.%s.", *arguments,
                    f"127.0.0.1:{self.port}", "1000",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

        def listens() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listens, timeout_s=20)
        return self

    def stop(self) -> None:
        """End it, with whatever it is in."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def mails(self) -> list[bytes]:
        """What it was given, each as it wrote it: X- fields of the envelope, then the message."""
        return [file.read_bytes() for file in self.folder.glob("mail.*")]

    def recipients(self) -> Counter[str]:
        """Of all mails, and how often."""
        heads = (mail.partition(b"\n\n")[0] for mail in self.mails())
        return Counter(found.decode() for head in heads for found in _RECIPIENT.findall(head))

    def __enter__(self) -> Sink:
        return self.start() if self._process is None else self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def source(
    port: int,
    count: int,
    *,
    recipient: str = "user@example.org",
    numbered: bool = True,
    sessions: int = 10,
    octets: int = 1024,
) -> set[str]:
    """smtp-source sends that many messages: the recipients. `numbered`: each message has one of its own."""
    done = subprocess.run(
        [
            program("smtp-source"), *(("-N",) if numbered else ()), "-m", str(count), "-s", str(sessions),
            "-l", str(octets), "-f", "sender@client.example", "-t", recipient, f"127.0.0.1:{port}",
        ],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {f"{number}{recipient}" for number in range(1, count + 1)} if numbered else {recipient}
