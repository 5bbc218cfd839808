"""Which servers are compared, and how is each started? One class a server, one row of SERVERS a workload."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pwd
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from tests.bench.process import Running, free_port

HERE: Final = Path(__file__).resolve().parent
CHECKOUT: Final = HERE.parent.parent
CPUS: Final = len(os.sched_getaffinity(0))


class Missing(Exception):  # noqa: N818 - it reads as what it says
    """This server cannot be measured here; says why."""


class Server(ABC):
    """One server under test, in a folder of its own, on a free port of the loopback.

    `sent` counts the messages that were answered 250 to us, for counted(). A message that fails is
    the client's to report.
    """

    name = ""

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
        """Messages that lie in its queue though it is at rest; None: it has none."""
        return None

    @classmethod
    def version(cls) -> str:
        """For the record; empty when it is not here."""
        return ""


def python() -> str:
    """The interpreter for helpers that run as another user: the base one, not a link in a checkout."""
    return getattr(sys, "_base_executable", sys.executable) or sys.executable


def program(name: str) -> Path:
    """A program by name, also where only root's PATH has it. Raises Missing."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"{name} is not installed")
    return Path(found)


# --- smtp-sink ----------------------------------------------------------------------------------------


class SmtpSink(Server):
    """C, one process, no mail server at all: the floor."""

    name = "smtp-sink"

    def launch(self) -> None:
        command: list[str | Path] = [program("smtp-sink")]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        self.running.start(*command, f"127.0.0.1:{self.port}", "1024")

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


# --- aiosmtpd -----------------------------------------------------------------------------------------


class Aiosmtpd(Server):
    """Python in one address space, on uvloop, as many processes as there are CPUs."""

    name = "aiosmtpd"
    mode = "sink"

    def launch(self) -> None:
        if not self.version():
            raise Missing("aiosmtpd is not installed here (it comes with the extra `dev`)")
        self.running = Running(self.folder / "log", whole_group=True)
        script = HERE / "peers" / "aiosmtpd_server.py"
        self.running.start(
            sys.executable, script, str(self.port), str(CPUS), self.mode, self.folder / "maildir"
        )

    def counted(self) -> int | None:
        if self.mode == "sink":
            return None
        with os.scandir(self.folder / "maildir" / "new") as entries:
            return sum(1 for _ in entries)

    @classmethod
    def version(cls) -> str:
        try:
            return f"aiosmtpd {importlib.metadata.version('aiosmtpd')}"
        except importlib.metadata.PackageNotFoundError:
            return ""


class AiosmtpdDurable(Aiosmtpd):
    name = "aiosmtpd, synced Maildir"
    mode = "durable"


class AiosmtpdChecks(Aiosmtpd):
    name = "aiosmtpd, 3 handlers, synced Maildir"
    mode = "checks"


# --- forkd --------------------------------------------------------------------------------------------


class Forkd(Server):
    """forkd as it is in this checkout; workload A: accept and discard, nothing is written."""

    name = "forkd"
    at = "accept"
    plugins: tuple[str, ...] = ()
    limits = ""
    environment: Final = {"PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1"}

    def launch(self) -> None:
        config = self.folder / "forkd.toml"
        config.write_text(self.config())
        if self.plugins:
            (self.folder / "plugins.d").mkdir()
        for number, plugin in enumerate(self.plugins, start=1):
            path = self.folder / "plugins.d" / f"{number}0-{plugin}.toml"
            path.write_text(self.entry(plugin))
        self.running.start(
            sys.executable, "-m", "forkd", "run", "--config", config, environment=self.environment
        )

    def config(self) -> str:
        """forkd.toml. Root starts it as an admin would: each role drops to an ordinary user."""
        users = ""
        if os.geteuid() == 0:
            user = "forkd" if _exists("forkd") else "nobody"
            users = "".join(f'{key} = "{user}"\n' for key in ("user", "queue_user", "admin_user"))
        return f"""\
[server]
hostname = "test.local"
{users}
[listener.default]
address = "127.0.0.1:{self.port}"

[domain."test.local"]
transport = "drop"

[transport.drop]
kind = "discard"
at = "{self.at}"
"""

    def entry(self, plugin: str) -> str:
        """plugins.d/NN-plugin.toml."""
        grants = '\n[grants]\nreads = ["body"]\n' if plugin == "check_body" else ""
        return f'plugin = "{HERE / "plugins" / plugin}"\n{grants}\n[limits]\n{self.limits}\n'

    def counted(self) -> int | None:
        event = b"event=message " if self.at == "accept" else b"status=delivered"
        return (self.folder / "log").read_bytes().count(event)

    def left(self) -> int | None:
        return sum(1 for path in (self.folder / "var" / "spool").glob("new/*/*") if path.is_file())

    @classmethod
    def version(cls) -> str:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"], capture_output=True, check=False
        )
        commit = done.stdout.decode().strip() if done.returncode == 0 else "no commit"
        return f"forkd {importlib.metadata.version('forkd')} ({commit})"


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


class ForkdDurable(Forkd):
    """Workload B: spooled, synced, then dropped by qmgr."""

    name = "forkd, spool + discard"
    at = "queue"


class ForkdChecks(ForkdDurable):
    """Workload C: B with three plugins, each with a fresh sandbox for every session."""

    name = "forkd, 3 plugins, fresh sandboxes"
    plugins = ("check_sender", "check_recipient", "check_body")


class ForkdFaults(ForkdChecks):
    """Workload D: C with a deadline short enough to wait for."""

    name = "forkd, 3 plugins"
    deadline_s = 1.0
    limits = 'timeout = "1s"\ncpu = "10s"\nmemory = "64MiB"\nsandboxes = 512'
