"""PROCESS admin: the control socket; the tidying-up when master was killed.

runs as        `forkd-admin` where root started us, else the calling user
holds          the control socket, workers' socket, the lock on data_dir, what `forkd explain` knows, ways to
               qmgr and to the workers' probe socket
reads from     local admins (who they are is looked at first), master, qmgr, workers (distrusted); what others
               tell of mail
if taken over  what admins may do
restart        by master, with back-off
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from forkd import log
from forkd.admin import health, traces
from forkd.admin.access import Roles
from forkd.admin.control import Control
from forkd.admin.exposition import Exposition
from forkd.admin.http import Server
from forkd.admin.peers import Master, Qmgr
from forkd.admin.prober import Prober
from forkd.admin.rows import Others
from forkd.admin.workers import Workers
from forkd.config.schema import Config
from forkd.rpc import places
from forkd.rpc.channel import RequestClient
from forkd.rpc.link import MasterLink
from forkd.rpc.message import Message
from forkd.rpc.messages import QueueAnswer, ToRole
from forkd.rpc.messages_pool import Heartbeat
from forkd.rpc.start import RoleStart

STOP_WAIT_S = 0.2
"""For answers under way, when master says stop."""

HTTP_WAIT_S = 1.0
"""The same over HTTP, where master is asked first; who connects and says nothing is not waited for longer."""

OTHERS_WAIT_S = 10.0
"""After master's death: for the other roles to end (5 s by their own rule) before the lock's file goes."""


def main(start: RoleStart) -> int:
    """Answer until master says stop, or is gone; return the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        orphaned = runner.run(Admin(start).run())
    if orphaned:
        tidy_up(places.run_folder(start.config.server.data_dir), start.lock)
    return 0


def tidy_up(run: Path, lock: int) -> None:
    """Master was killed: remove what it would have removed.

    The sockets at once, while our hold on the lock still keeps a successor away. The lock's file when
    the other roles are gone too: then nobody holds the lock, and we can take it for ourselves; if a
    successor was quicker, the file is its own.
    """
    places.clear(run)
    path = run / places.LOCK
    with contextlib.suppress(OSError):
        os.close(lock)
        ours = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        deadline = time.monotonic() + OTHERS_WAIT_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
                continue
            if os.path.samestat(os.fstat(ours), path.stat()):
                path.unlink()
            return
        log.service(act="left_over", level="error", detail="some process of a killed forkd does not end")


class Admin:
    """The process: what it opens, its end."""

    def __init__(self, start: RoleStart) -> None:
        self._start = start

    async def run(self) -> bool:
        """Open, serve, let answers under way go out. True when master is gone without a word."""
        start = self._start
        config: Config = start.config
        loop = asyncio.get_running_loop()
        run = places.run_folder(config.server.data_dir)
        qmgr = RequestClient(loop, run / places.QMGR, QueueAnswer)

        store = traces.of(start, loop)

        def beat() -> Heartbeat:
            log.flush()
            info = {} if store is None else store.info()
            return Heartbeat(counters={"requests": control.answered}, info=info)

        def heard(message: Message) -> None:
            master.answer(message)

        def passed(message: Message, descriptors: Sequence[int]) -> None:
            exposition.made(message, descriptors)

        link = MasterLink(start, accepts=ToRole, beat=beat, on_message=heard, on_passed=passed)
        master = Master(link.send)
        exposition = Exposition(start.slots, master)
        proxied = any(listener.accept == "proxy" for listener in config.listener.values())
        prober = Prober(config.probe, master, qmgr, run / places.PROBE, proxied=proxied)
        workers = Workers(start.sockets["workers"], master.processes)
        control = Control(
            start.sockets["control"],
            Roles(config.admin, own=os.getuid(), overflow=start.overflow),
            Others(master=master, qmgr=Qmgr(qmgr), prober=prober, workers=workers, traces=store),
        )
        if store is not None:
            store.open()
        link.open()
        serving = [loop.create_task(work) for work in (control.run(), prober.run(), workers.run())]
        paths = {"/metrics": exposition.answer, **health.paths(prober)}
        free = frozenset({0, os.getuid()})
        http = Server(start.sockets["metrics"], paths, free=free) if "metrics" in start.sockets else None
        if http is not None:
            serving.append(loop.create_task(http.run()))
        died = await ended(link.stopping, serving)
        for task in serving:
            task.cancel()
        if http is not None:
            await http.close(wait_s=0.0 if link.orphaned else HTTP_WAIT_S)
        await control.close(wait_s=0.0 if link.orphaned else STOP_WAIT_S)
        workers.close()
        qmgr.close()
        if store is not None:
            await store.close()
        link.close()
        if died is not None:
            raise died
        return link.orphaned


async def ended(stopping: asyncio.Event, serving: Sequence[asyncio.Task[None]]) -> BaseException | None:
    """Wait until it is to stop: None. Or until one of these is over, which none should be: what it died of.

    An admin that goes on without a part of it looks well to master, and would never be replaced.
    """
    told = asyncio.ensure_future(stopping.wait())
    done, _ = await asyncio.wait([told, *serving], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    return None if told in done else next(iter(done)).exception()
