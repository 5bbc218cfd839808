"""Queue programs for tests, written from the table of exit codes, and a launcher that starts them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd import log
from forkd.config import schema
from forkd.config.units import Seconds
from forkd.exits import Exit
from forkd.rpc import channel
from forkd.rpc.messages import Ready, Stop
from forkd.rpc.start import RoleStart
from tests.support.waiting import wait_for

SOURCE = Path(__file__).with_name("queue_program.c")


@functools.cache
def _compiled() -> bytes:
    if shutil.which("cc") is None:
        pytest.skip("lack of the machine: no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        subprocess.run(["cc", "-O1", "-Wall", "-o", made, SOURCE], check=True)
        return made.read_bytes()


@dataclasses.dataclass(frozen=True)
class Queue:
    """A queue program and what it has queued; `argv()` says how it is to behave (queue_program.c)."""

    folder: Path

    @property
    def program(self) -> Path:
        path = self.folder / "queue-program"
        if not path.exists():
            path.write_bytes(_compiled())
            path.chmod(0o755)
            (self.folder / "queued").mkdir()
            (self.folder / "queued").chmod(0o777)
        return path

    def argv(self, *acts: str) -> tuple[str, ...]:
        return (str(self.program), str(self.folder / "queued"), *acts)

    def mails(self) -> list[tuple[bytes, bytes]]:
        """(message, envelope) of each that was queued, oldest first."""
        paths = sorted((self.folder / "queued").glob("*.env"), key=lambda path: path.stat().st_mtime_ns)
        return [(path.with_suffix(".msg").read_bytes(), path.read_bytes()) for path in paths]

    def pids(self) -> list[int]:
        """Those that said (act `here`) that they run."""
        return [int(path.stem) for path in sorted((self.folder / "queued").glob("*.here"))]


def a_table(queue: Queue, *acts: str, **settings: Any) -> schema.QmailQueue:
    """[transport.NAME]: a program that does that."""
    settings.setdefault("timeout", Seconds(30))
    return schema.QmailQueue(argv=queue.argv(*acts), **settings)


def queue_config(data_dir: Path, **transports: schema.Transport) -> schema.Config:
    """test.local goes to the first of them; every further one has the domain NAME.local."""
    names = list(transports)
    return schema.Config(
        server=schema.Server(hostname="mx.test.local", data_dir=data_dir),
        domain={f"{name}.local": schema.Domain(transport=name) for name in names}
        | {"test.local": schema.Domain(transport=names[0])},
        transport={"local": schema.Maildir(), **transports},
    )


@dataclasses.dataclass
class RunningLauncher:
    """A launcher in a process of its own."""

    pid: int
    master: socket.socket
    path: Path
    status: int | None = None

    def stop(self) -> int:
        channel.send(self.master, Stop(deadline_s=5))
        return self.ended()

    def ended(self) -> int:
        if self.status is None:
            self.status = wait_for(self._reap, what="launcher ends")[0]
        return self.status

    def _reap(self) -> tuple[int] | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return (os.waitstatus_to_exitcode(status),) if pid else None


@contextlib.contextmanager
def running_launcher(config: schema.Config, *, uid: int = -1) -> Iterator[RunningLauncher]:
    """Fork a launcher as master does, without its supervision; as another user where root asks for it."""
    from forkd.launcher.main import main
    from forkd.master.child import close_others

    path = config.server.data_dir / "launcher.sock"
    path.unlink(missing_ok=True)
    ours, theirs = channel.pair()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(64)
    pid = os.fork()
    if pid == 0:
        status: int = Exit.BUG
        try:
            close_others([theirs.fileno(), listener.fileno(), log.descriptor()])
            os.setresuid(uid, uid, uid)
            status = main(
                RoleStart(
                    role="launcher", slot=0, generation=1, config=config, master=theirs,
                    sockets={"launcher": listener},
                )
            )  # fmt: skip
        finally:
            os._exit(status)
    theirs.close()
    launcher = RunningLauncher(pid, ours, path)
    try:
        assert isinstance(channel.receive(ours, Ready), Ready)
        yield launcher
    finally:
        if launcher.status is None:
            launcher.stop()  # as master does: killed, it would leave the programs that hang
        ours.close()
        listener.close()
