"""What the log is told of readiness (admin/prober.py), and when a part of admin dies."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forkd import log
from forkd.admin.main import ended
from forkd.admin.peers import Master
from forkd.admin.prober import Prober
from forkd.config.probe_schema import Probe
from forkd.config.units import Seconds
from forkd.rpc import channel
from forkd.rpc.channel import RequestClient
from forkd.rpc.message import Message
from forkd.rpc.messages import QueueAnswer, QueueRequest
from forkd.rpc.messages_status import ProcessStatus, Status


@pytest.fixture
def told() -> Iterator[list[tuple[bool, str]]]:
    """Each line of readiness: is it, and why not."""
    lines: list[tuple[bool, str]] = []

    def observe(event: str, fields: dict[str, object]) -> None:
        if event == "readiness":
            lines.append((bool(fields["ready"]), str(fields.get("reason", ""))))

    log.observe(observe)
    yield lines
    log.observe()


def test_the_log_is_told_when_master_falls_silent_and_when_it_is_back(
    tmp_path: Path, told: list[tuple[bool, str]]
):
    """The worst case of all; a start and a stop are no news."""
    state = "starting"

    async def run() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(tmp_path / "qmgr"))
        listener.listen()
        listener.setblocking(False)

        async def qmgr() -> None:
            connection, _ = await loop.sock_accept(listener)
            with connection:
                while record := await loop.sock_recv(connection, 65_536):
                    asked: QueueRequest = channel.decode(record, QueueRequest)
                    channel.send(connection, QueueAnswer(n=asked.n))

        def send(message: Message) -> bool:
            answer = Status(
                n=message.n, version="1", state=state, pid=1, started_at=1.0, hostname="h", listeners={},
                durability="sync", processes=(), sandbox={},
            )  # fmt: skip
            loop.call_soon(master.answer, answer)
            return bool(state)

        master, client = Master(send), RequestClient(loop, tmp_path / "qmgr", QueueAnswer)
        prober = Prober(Probe(enabled=False, interval=Seconds(0.2)), master, client, tmp_path / "probe")
        answering, looking = loop.create_task(qmgr()), loop.create_task(prober.run())

        async def becomes(new: str) -> None:
            nonlocal state
            state = new
            async with asyncio.timeout(20):
                while (await prober.checks_now())["service"] != ("" if new == "running" else new or SILENT):
                    await asyncio.sleep(0.01)
                await prober._look()

        for new in ("starting", "running", "", "running", "stopping"):
            await becomes(new)
        looking.cancel()
        answering.cancel()
        client.close()
        listener.close()

    asyncio.run(run())
    assert told == [(False, f"service: {SILENT}"), (True, "")]


def test_a_reload_that_replaces_qmgr_is_no_reason_to_go_elsewhere(
    tmp_path: Path, told: list[tuple[bool, str]]
):
    """It ends its deliveries, and the next one looks through the spool: meanwhile mail is taken, and waits. A
    qmgr that is away without a reload, or runs and says nothing, is one."""

    async def run() -> None:
        said: dict[str, Any] = {"reloading": True, "state": "draining"}
        loop = asyncio.get_running_loop()

        def send(message: Message) -> bool:
            qmgr = ProcessStatus(role="qmgr", slot=0, pid=2, state=said["state"], started_at=1.0, restarts=0)
            answer = Status(
                n=message.n, version="1", state="running", pid=1, started_at=1.0, hostname="h", listeners={},
                durability="sync", processes=(qmgr,), sandbox={}, reloading=said["reloading"],
            )  # fmt: skip
            loop.call_soon(master.answer, answer)
            return True

        master, client = Master(send), RequestClient(loop, tmp_path / "nobody", QueueAnswer)
        prober = Prober(Probe(enabled=False), master, client, tmp_path / "probe")
        for state in ("draining", "starting"):
            said["state"] = state
            await prober._look()
            assert (await prober.checks_now())["queue"] == ""
        assert told == []
        for reloading, state in ((True, "running"), (False, "starting")):
            said |= {"reloading": reloading, "state": state}
            await prober._look()
            assert (await prober.checks_now())["queue"] == "qmgr does not answer"
        client.close()

    asyncio.run(run())
    assert told == [(False, "queue: qmgr does not answer")]


SILENT = "master does not read its channel"


def test_a_part_that_dies_is_the_end_of_the_whole():
    """Its exception is for the log, its end for master, which starts another one."""

    async def run(*, stop: bool) -> BaseException | None:
        stopping = asyncio.Event()

        async def serve() -> None:
            await asyncio.Event().wait()

        async def die() -> None:
            raise RuntimeError("a bug of ours")

        parts = [asyncio.ensure_future(part()) for part in ((serve,) if stop else (serve, die))]
        if stop:
            asyncio.get_running_loop().call_soon(stopping.set)
        return await ended(stopping, parts)

    assert asyncio.run(run(stop=True)) is None
    assert isinstance(asyncio.run(run(stop=False)), RuntimeError)
