"""A real master over trivial roles (roles.py), as a test drives and inspects it."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.daemon import alive, children, kill_left, titles
from tests.support.waiting import wait_for

PROGRAM = Path(__file__).with_name("roles.py")


@dataclasses.dataclass
class Trivial:
    """One master; `log` is its stderr. Leaving the with block kills what is left and says so."""

    folder: Path
    roles: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    wait_ready: bool = True
    """Entering the with block waits until the service is ready."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Trivial:
        arguments = [f"{key}={value}" for key, value in self.settings.items()]
        root = str(PROGRAM.parent.parent.parent)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, str(PROGRAM), str(self.folder), *arguments],
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "ROLES": self.roles, "PYTHONPATH": root} | self.environment,
            )
        return self

    def __enter__(self) -> Trivial:
        self.start()
        if self.wait_ready:
            self.wait_log("act=ready")
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        pids = children(self.process.pid)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        kill_left(pids)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def run(self) -> Path:
        return self.folder / "var" / "run"

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_log(self, *parts: str, count: int = 1) -> None:
        """Until `count` lines hold all of `parts`."""

        def found() -> bool:
            lines = [line for line in self.log().splitlines() if all(part in line for part in parts)]
            ended = self.process is not None and self.process.poll() is not None
            assert len(lines) >= count or not ended, f"the master ended: {self.log()}"
            return len(lines) >= count

        wait_for(found, timeout_s=20, what=f"{parts} in the log")

    def seen(self, what: str = "", role: str = "") -> list[dict[str, Any]]:
        """What the roles wrote down, in order."""
        path = self.folder / "seen"
        if not path.exists():
            return []
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return [each for each in lines if what in ("", each["what"]) and role in ("", each["role"])]

    def titles(self) -> dict[int, str]:
        return titles(children(self.pid))

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        """The master's exit status; nothing of it may be left: no process, nothing in run/."""
        assert self.process is not None
        pids = children(self.process.pid)
        status = self.process.wait(20)
        wait_for(lambda: not any(alive(pid) for pid in pids), timeout_s=10, what="all processes gone")
        wait_for(lambda: not list(self.run.iterdir()), timeout_s=10, what="run/ is empty")
        return status

    def ask(self, *lines: bytes) -> list[Any]:
        """Requests over the control socket, one answer each."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.run / "control.sock"))
            connection.sendall(b"".join(line + b"\n" for line in lines))
            with connection.makefile("rb") as answers:
                return [json.loads(answers.readline()) for _ in lines]
