"""The real daemon as tests use it: started as a user would, in a folder of its own, on a free port."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import shlex
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from forkd.sandbox import processes
from tests.support.waiting import wait_for

START_S = 60
"""Zygotes and the self-test on a busy two-core machine."""


_reserved: list[socket.socket] = []
atexit.register(lambda: [each.close() for each in _reserved])


def free_port() -> int:
    """A port for a server that must be told one. Nobody else is given it while this process lives.

    It stays bound here without listening: the kernel then hands it to no socket that asks for any port,
    while a server may listen on it with SO_REUSEADDR, as servers do.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _reserved.append(probe)
    return int(probe.getsockname()[1])


class Known(int):
    """A pid with its process' start: on a busy machine the number is another's within a minute."""

    started: int
    """As processes.Seen has it."""

    @classmethod
    def of(cls, pid: int, started: int) -> Known:
        known = cls(pid)
        known.started = started
        return known


def children(pid: int) -> set[Known]:
    """All living descendants of a process, zombies not counted."""
    parents: dict[Known, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if stat[0] not in "ZX":
                parents[Known.of(int(entry.name), int(stat[19]))] = int(stat[1])
    found: set[Known] = set()
    while True:
        more = {child for child, parent in parents.items() if parent == pid or parent in found} - found
        if not more:
            return found
        found |= more


def alive(pid: int) -> bool:
    """Running, not a zombie; of a Known one: still that process."""
    seen = processes.see(pid)
    if seen is None or seen.dead:
        return False
    return not isinstance(pid, Known) or seen.started == pid.started


def kill_left(pids: Iterable[Known]) -> None:
    """SIGKILL to those that still live, and to nobody who has one of their numbers by now."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def titles(pids: set[int]) -> dict[int, str]:
    """pid -> its command line as ps shows it."""
    found = {}
    for pid in pids:
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue
    return found


@dataclasses.dataclass
class Daemon:
    """One running forkd.

    folder  working directory; var/ and the configuration lie there
    prefix  e.g. setpriv and its arguments, to run it as somebody else
    """

    folder: Path
    config: str = ""
    plugins: dict[str, str] = dataclasses.field(default_factory=dict)
    """File name in plugins.d -> its text."""
    prefix: tuple[str, ...] = ()
    python: str = sys.executable
    root: Path = Path(__file__).parent.parent.parent
    """The checkout that is run."""
    json_log: bool = True
    listener: str = ""
    """More keys for [listener.default]."""
    descriptors: tuple[int, ...] = ()
    """What it inherits, beside the three of every process."""
    port: int = 0
    """Where it listens, once it is ready."""
    process: subprocess.Popen[bytes] | None = None
    clients: list[smtplib.SMTP | socket.socket] = dataclasses.field(default_factory=list)
    seen: set[Known] = dataclasses.field(default_factory=set)

    @property
    def log_path(self) -> Path:
        return self.folder / "forkd.log"

    @property
    def var(self) -> Path:
        return self.folder / "var"

    def write_config(self) -> Path:
        log = '\n[log]\nformat = "json"\n' if self.json_log and "[log]" not in self.config else ""
        text = f'[listener.default]\naddress = "127.0.0.1:0"\n{self.listener}\n{self.config}\n{log}'
        if "[domain" not in text:
            text += '\n[domain."test.local"]\n'
        path = self.folder / "forkd.toml"
        path.write_text(text)
        if self.plugins:
            (self.folder / "plugins.d").mkdir(exist_ok=True)
            for name, entry in self.plugins.items():
                (self.folder / "plugins.d" / name).write_text(entry)
        return path

    def start(self, *, ready: bool = True) -> Daemon:
        config = self.folder / "forkd.toml"
        if not config.exists():
            self.write_config()
        command = [*self.prefix, self.python, "-m", "forkd", "run", "--config", str(config)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                pass_fds=self.descriptors,
                env={
                    "PATH": os.environ["PATH"],
                    "FORKD_CONFIG": "",  # whatever forkd this machine has
                    "PYTHONPATH": str(self.root),
                    "LANG": "C.UTF-8",
                    "HOME": str(self.folder),
                },
            )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"forkd ended: {self.log_text()}"
            return any(
                line.get("event") == "service" and line.get("act") == "ready" for line in self.events()
            )

        wait_for(is_ready, timeout_s=START_S)
        # The kernel chose the port, and nobody can have taken it meanwhile.
        self.port = int(self.events("listening")[-1]["address"].rpartition(":")[2])
        self.seen |= self.pids()

    def pids(self) -> set[Known]:
        """All processes below master now (and remembered for the final check)."""
        assert self.process is not None
        found = children(self.process.pid)
        self.seen |= found
        return found

    def role(self, name: str) -> list[int]:
        """pids of a role, by process title: worker, qmgr, admin, anvil, zygote …"""
        return sorted(pid for pid, title in titles(self.pids()).items() if title.startswith(f"forkd: {name}"))

    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self, kind: str | None = None) -> list[dict]:
        found = []
        for line in self.log_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if kind is None or event.get("event") == kind:
                found.append(event)
        return found

    def told(self, kind: str, count: int = 1) -> list[dict]:
        """At least so many events of a kind; lines of sessions and messages may be a little late."""
        return wait_for(lambda: found if len(found := self.events(kind)) >= count else [], timeout_s=20)

    def smtp(self, **options) -> smtplib.SMTP:
        client = smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.example", timeout=30, **options)
        self.clients.append(client)
        return client

    def connect(self) -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.clients.append(peer)
        return peer

    def mailbox(self, user: str, domain: str = "test.local") -> list[Path]:
        """Files in a user's Maildir."""
        return sorted((self.var / "mail" / domain / user / "new").glob("*"))

    def forkd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as the one who runs this daemon."""
        return subprocess.run(
            [*self.prefix, self.python, "-m", "forkd", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "FORKD_CONFIG": "",
                "PYTHONPATH": str(self.root),
                "LANG": "C.UTF-8",
                "NO_COLOR": "1",
            },
        )

    def send_signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as a user would; asserts that nothing of it is left."""
        assert self.process is not None
        if self.process.poll() is None:
            self.pids()
            self.process.send_signal(number)
        status = self.process.wait(60)
        wait_for(lambda: not any(alive(pid) for pid in self.seen), timeout_s=10)
        leftover = [path for path in (self.var / "run").rglob("*") if path.is_socket()]
        if number != signal.SIGKILL:
            assert not leftover, f"socket files left: {leftover}"
        return status

    def __enter__(self) -> Daemon:
        return self.start() if self.process is None else self

    def __exit__(self, *_: object) -> None:
        for client in self.clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.stop()


def swaks(daemon: Daemon, arguments: str, *, data: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run swaks against the daemon; its transcript is stdout."""
    command = ["swaks", "--server", "127.0.0.1", "--port", str(daemon.port), *shlex.split(arguments)]
    if data is not None:
        command += ["--data", data]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
