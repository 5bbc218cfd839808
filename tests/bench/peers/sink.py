"""smtp-sink: C, one process, no mail server at all: the floor."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from tests.bench.servers import Missing, Server, program


class SmtpSink(Server):
    """Workload A."""

    name = "smtp-sink"

    def launch(self) -> None:
        command: list[str | Path] = [program("smtp-sink")]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        self.running.start(*command, f"127.0.0.1:{self.port}", "4096")

    @classmethod
    def version(cls) -> str:
        return postfix_version()


def postfix_version() -> str:
    """smtp-sink and smtp-source are Postfix'."""
    with contextlib.suppress(Missing):
        done = subprocess.run(
            [program("postconf"), "-dh", "mail_version"], capture_output=True, text=True, check=False
        )
        return f"Postfix {done.stdout.strip()}"
    return ""
