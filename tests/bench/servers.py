"""What is a server under test? Started, accounted for and ended alike, whoever made it.

A server is a class here, in forkd.py or in peers/; catalogue.py says which ones run in which workload.
"""

from __future__ import annotations

import os
import shutil
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from tests.bench.process import Running, free_port

HERE: Final = Path(__file__).resolve().parent
CPUS: Final = len(os.sched_getaffinity(0))


class Missing(Exception):  # noqa: N818 - it reads as what it says
    """This server cannot be measured here; says why."""


class Server(ABC):
    """One server under test, in a folder of its own, on a free port of the loopback.

    `sent` counts the messages that were answered 250 to us, for counted(). A message that fails is
    the client's to report.

    most_sessions   more at once than this it does not take: columns with more are driven with these
    idle_limit      more idle connections than this it is not asked to hold; None: as many as forkd
    """

    name = ""
    most_sessions: int | None = None
    idle_limit: int | None = None

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o755)  # its processes may run as others
        self.folder = folder
        self.port = free_port()
        self.running = Running(folder / "log")
        self.sent = 0

    @abstractmethod
    def launch(self) -> None:
        """Start its processes; raises Missing."""

    def start(self) -> None:
        """Start and wait for its greeting. Raises Missing, RuntimeError."""
        self.launch()
        try:
            self.running.wait_greeting(self.port)
        except RuntimeError:
            self.stop()
            raise

    def stop(self) -> list[int]:
        """End all its processes; the pids that had to be killed."""
        return self.running.stop()

    def counted(self) -> int | None:
        """How many messages the server itself says, or its disk shows, it took; None: it cannot tell."""
        return None

    def left(self) -> int | None:
        """Messages that wait in its queue though it is at rest; None: it has none, or keeps them there."""
        return None

    @classmethod
    def version(cls) -> str:
        """For the record; empty when it is not here."""
        return ""


def files(folder: Path, pattern: str) -> int:
    """How many plain files below `folder` match? Servers' queues are counted so."""
    return sum(1 for path in folder.rglob(pattern) if path.is_file()) if folder.exists() else 0


def python() -> str:
    """The interpreter for helpers that run as another user: the base one, not a link in a checkout."""
    return getattr(sys, "_base_executable", sys.executable) or sys.executable


def program(name: str) -> Path:
    """A program by name, also where only root's PATH has it. Raises Missing."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is not installed")
    return Path(found)
