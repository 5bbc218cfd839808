"""aiosmtpd: Python in one address space, on uvloop."""

from __future__ import annotations

import importlib.metadata
import os
import sys

from tests.bench.peers.cache import PROGRAMS
from tests.bench.process import Running
from tests.bench.servers import CPUS, Missing, Server


class Aiosmtpd(Server):
    """Workload A, as many processes as there are CPUs."""

    name = f"aiosmtpd, {CPUS} processes"
    mode = "sink"
    processes = CPUS

    def launch(self) -> None:
        if not self.version():
            raise Missing("aiosmtpd is not installed here (it comes with the extra `dev`)")
        self.running = Running(self.folder / "log", whole_group=True)
        script = PROGRAMS / "aiosmtpd_server.py"
        self.running.start(
            sys.executable, script, str(self.port), str(self.processes), self.mode, self.folder / "maildir"
        )

    def counted(self) -> int | None:
        if self.mode in ("sink", "hooks"):
            return None
        with os.scandir(self.folder / "maildir" / "new") as entries:
            return sum(1 for _ in entries)

    @classmethod
    def version(cls) -> str:
        try:
            return f"aiosmtpd {importlib.metadata.version('aiosmtpd')}"
        except importlib.metadata.PackageNotFoundError:
            return ""


class AiosmtpdSingle(Aiosmtpd):
    """Workload A, one process."""

    name = "aiosmtpd, 1 process"
    processes = 1


class AiosmtpdDurable(Aiosmtpd):
    """Workload B."""

    name = "aiosmtpd, synced Maildir"
    mode = "durable"


class AiosmtpdChecks(Aiosmtpd):
    """Workload C, durable."""

    name = "aiosmtpd, 3 handlers, synced Maildir"
    mode = "checks"


class AiosmtpdHooks(Aiosmtpd):
    """Workload C without a disk: what three checks cost it at the least."""

    name = "aiosmtpd, 3 handlers, discards"
    mode = "hooks"
