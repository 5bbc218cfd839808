"""What admin asks of a worker (worker/control.py): which sessions there are, and: end that one."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from forkd.rpc import channel
from forkd.rpc.messages_sessions import AskSessions, FromWorker, Kick, Kicked
from forkd.sdk import Plugin
from forkd.smtp import replies
from forkd.worker import control, ending
from tests.support.fake_host import FakePlugin
from tests.support.working import Gate, GatedHop, SlowHost, Working, run, working


class Admin:
    """Listens where a worker looks for it."""

    def __init__(self, folder: Path) -> None:
        path = folder / "workers.sock"
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)

    async def accept(self) -> socket.socket:
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        connection.setblocking(False)
        return connection

    def close(self) -> None:
        self._listener.close()


async def hear(connection: socket.socket) -> FromWorker:
    record = await asyncio.get_running_loop().sock_recv(connection, channel.MAX_RECORD_BYTES)
    return channel.decode(record, FromWorker)


async def kick(worker: Working, folder: Path) -> socket.socket:
    """Ask for the only session's end; it was said that it will."""
    admin, who = Admin(folder), worker.session.id
    worker.control.look()
    connection = await admin.accept()
    admin.close()
    channel.send(connection, Kick(n=1, ids=(who,)))
    assert await hear(connection) == Kicked(n=1, ids=(who,))
    return connection


def test_who_waits_for_the_next_hop_is_answered_before_he_is_kicked(tmp_path: Path):
    """The next hop may have the message already: after a 421 its client would send it again."""

    async def test() -> None:
        hop = GatedHop(replies.queued("X"))
        async with working(tmp_path, next_hop=hop) as worker:
            client = await worker.client()
            await client.send_mail()
            client.writer.write(b"NOOP\r\n")
            await hop.gate.reached.wait()
            with await kick(worker, tmp_path):
                hop.gate.open.set()
                assert (await client.hear()).startswith(b"250 2.0.0")
                assert (await client.hear()).startswith(b"421 4.3.2 Connection closed by the administrator")
                assert await client.rest() == b""
        assert hop.had == 1

    run(test())


def test_mail_of_who_is_kicked_in_the_message_hook_is_not_kept(tmp_path: Path):
    """The plugin's answer comes in the moment of the 421: the message is the client's, who sends it again."""

    async def test() -> None:
        gate = Gate()
        plugins = (FakePlugin("p", ("message",)),)
        host = SlowHost({"p": Plugin(message=lambda *_: None)}, plugins, gate=gate)
        async with working(tmp_path, plugins=plugins, host=host) as worker:
            client = await worker.client()
            await client.send_mail()
            await gate.reached.wait()
            gate.open.set()
            ending.kick(worker.session)
            assert (await client.rest()).startswith(b"421 4.3.2 Connection closed")
            worker.services.committer.close()
            assert worker.kept == []

    run(test())


def test_the_rest_of_an_answer_is_not_for_the_next_admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It has not asked, and takes what it did not ask for as a lie."""
    monkeypatch.setattr(control, "RECORD_BYTES", 1)

    async def test() -> None:
        async with working(tmp_path) as worker:
            for _ in range(40):
                await worker.client()
            first = Admin(tmp_path)
            worker.control.look()
            with await first.accept() as one:
                first.close()
                channel.send(one, AskSessions(n=7, limit=1000))
                assert (await hear(one)).n == 7
                second = Admin(tmp_path)
            with await second.accept() as two:
                second.close()
                channel.send(two, AskSessions(n=8, limit=1))
                assert (await hear(two)).n == 8

    run(test())
