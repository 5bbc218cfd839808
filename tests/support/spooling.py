"""Spools, messages and a running qmgr for tests."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forkd.config import schema
from forkd.fs import REAL, Fs
from forkd.queue.commit import commit
from forkd.queue.envelope import Envelope, Recipient
from forkd.queue.ids import QueueId
from forkd.queue.spool import Spool
from forkd.rpc import channel
from forkd.rpc.messages import Deliver, Delivered, QueueAnswer, QueueRequest, Stop
from forkd.rpc.start import RoleStart
from tests.support.waiting import wait_for

MAIL = b"Subject: hello\r\nTo: a@test.local\r\n\r\nfirst line\r\n.dot\r\nlast\r\n"


def an_envelope(*recipients: str, **fields: Any) -> Envelope:
    """An envelope with a trace header, to those recipients or to one."""
    facts: dict[str, Any] = {
        "session": "S1",
        "received_at": 1_700_000_000.0,
        "sender": "sender@example.org",
        "trace": "Received: from x ([192.0.2.1])\r\n\tby mx (forkd) with ESMTP id X;\r\n\tdate\r\n",
        **fields,
    }
    facts.setdefault("recipients", tuple(Recipient(address=r) for r in recipients or ("a@test.local",)))
    return Envelope(**facts)


def a_spool(root: Path, slot: str = "w0", *, durable: bool = True, fs: Fs = REAL) -> Spool:
    """A prepared spool's receiving side."""
    Spool.prepare(root, [slot])
    return Spool(root, slot, durable=durable, fs=fs)


def queued(spool: Spool, *recipients: str, message: bytes = MAIL, **fields: Any) -> QueueId:
    """Commit one message; its id."""
    file = spool.begin()
    file.write(message)
    (result,) = commit(spool, [(file, an_envelope(*recipients, **fields))])
    assert isinstance(result, str), result
    return result


def a_config(data_dir: Path, **queue: Any) -> schema.Config:
    """test.local to Maildirs, discard.local discarded, gone.local to a transport that is not there."""
    return schema.Config(
        server=schema.Server(hostname="mx.test.local", data_dir=data_dir),
        domain={
            "test.local": schema.Domain(),
            "discard.local": schema.Domain(transport="drop"),
        },
        transport={"local": schema.Maildir(), "drop": schema.Discard()},
        queue=schema.Queue(**queue),
    )


@dataclasses.dataclass
class RunningQmgr:
    """A qmgr in a process of its own."""

    pid: int
    master: socket.socket
    poke_fd: int
    listener: socket.socket
    path: Path
    status: int | None = None

    def poke(self, spool: Spool, queue_id: QueueId) -> None:
        """As a worker does."""
        os.write(self.poke_fd, f"{Path(spool.new).name}/{queue_id}\n".encode())

    def ask(self, act: str, *ids: str, **fields: Any) -> QueueAnswer:
        """As admin does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(10)
            client.connect(str(self.path))
            channel.send(client, QueueRequest(n=1, act=act, ids=ids, **fields))
            answer = channel.receive(client, QueueAnswer)
            assert answer is not None
            return answer

    def ask_to_deliver(self, slot: str, name: str) -> socket.socket:
        """As a worker does while its client waits; the answer comes there."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(30)
        client.connect(str(self.path.with_name("proxy.sock")))
        channel.send(client, Deliver(n=7, slot=slot, name=name))
        return client

    def deliver(self, slot: str, name: str) -> Delivered:
        """The answer to that."""
        return delivered(self.ask_to_deliver(slot, name))

    def stop(self, deadline_s: float | None = 10) -> int:
        """Tell it to stop; its exit status."""
        with contextlib.suppress(OSError):
            channel.send(self.master, Stop(deadline_s=deadline_s))
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        if self.status is None:
            self.status = wait_for(self._reap, what="qmgr ends")[0]
        return self.status

    def _reap(self) -> tuple[int] | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return (os.waitstatus_to_exitcode(status),) if pid else None


def delivered(client: socket.socket) -> Delivered:
    """What ask_to_deliver() brought."""
    with client:
        answer = channel.receive(client, Delivered)
        assert answer is not None
        assert answer.n == 7
        return answer


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(8)
    return listener


@contextlib.contextmanager
def running_qmgr(config: schema.Config, *, launcher: str = "") -> Iterator[RunningQmgr]:
    """Fork a qmgr as master does, without its supervision."""
    from forkd.qmgr.main import main

    path = config.server.data_dir / "q.sock"
    ours, theirs = channel.pair()
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    listener, proxy = _listen(path), _listen(path.with_name("proxy.sock"))
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            ours.close()
            os.close(write_end)
            status = main(
                RoleStart(
                    role="qmgr", slot=0, generation=1, config=config, master=theirs,
                    sockets={"qmgr": listener, "proxy": proxy}, poke=read_end, launcher=launcher,
                )
            )  # fmt: skip
        finally:
            os._exit(status)
    theirs.close()
    os.close(read_end)
    qmgr = RunningQmgr(pid, ours, write_end, listener, path)
    try:
        yield qmgr
    finally:
        if qmgr.status is None:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        ours.close()
        listener.close()
        proxy.close()
        os.close(write_end)
