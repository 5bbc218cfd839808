"""Clients of the control socket that do not behave (admin/control.py), over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from forkd.admin import control
from forkd.admin.access import Roles
from forkd.admin.control import MOST_TOLD, TOLD_S, Control, Refusals
from forkd.admin.peers import Master, Qmgr
from forkd.admin.prober import Prober
from forkd.admin.rows import Others
from forkd.admin.workers import Workers
from forkd.config.probe_schema import Probe
from forkd.config.schema import Admin
from forkd.rpc.channel import RequestClient
from forkd.rpc.messages import QueueAnswer


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[Path, Control]]:
    """The control socket of an admin whom nobody else answers."""
    path = folder / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as workers:
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        master, qmgr = Master(lambda _: False), RequestClient(loop, folder / "qmgr", QueueAnswer)
        others = Others(
            master=master,
            qmgr=Qmgr(qmgr),
            prober=Prober(Probe(), master, qmgr, folder / "probe"),
            workers=Workers(workers, master.processes),
        )
        served = Control(listener, Roles(Admin(), own=os.getuid()), others)
        running = loop.create_task(served.run())
        try:
            yield path, served
        finally:
            running.cancel()
            await served.close(wait_s=0)


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not reached():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ends", [False, True], ids=["stays", "says that it is at its end"])
def test_who_never_reads_keeps_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool):
    """Neither a descriptor nor an answer: places are given back, and so must be what they held."""
    monkeypatch.setattr(control, "IDLE_S", 0.3)
    requests = b'{"request":"x"}\n' * 4000  # each answered by more octets than it has

    def ours() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def run() -> None:
        async with served(tmp_path) as (path, control):
            before = ours()
            clients = [socket.socket(socket.AF_UNIX) for _ in range(20)]
            try:
                for client in clients:
                    client.setblocking(False)
                    client.connect(str(path))
                    client.send(requests)
                    if ends:
                        client.shutdown(socket.SHUT_WR)
                await until(lambda: control.answered > 20 * 500)  # more than sockets hold
                # Some more: what the loop itself opens when it first needs it.
                await until(lambda: ours() < before + len(clients) + 5)
            finally:
                for client in clients:
                    client.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_the_log_has_one_refusal_of_each_user_in_a_minute():
    """And how many there were since; with uids without end there is an end as well."""
    refusals = Refusals()
    assert refusals.one_more(1000, 0.0) == 0
    assert [refusals.one_more(1000, at / 10) for at in range(500)] == [None] * 500
    assert refusals.one_more(1001, 50.0) == 500
    assert refusals.one_more(1000, TOLD_S) == 0
    told = [refusals.one_more(uid, TOLD_S + 1) for uid in range(2000, 3000)]
    assert told.count(0) == MOST_TOLD - 1
    assert refusals.one_more(1000, 2 * TOLD_S) == 1000 - (MOST_TOLD - 1)
