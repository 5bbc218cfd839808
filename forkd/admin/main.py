"""PROCESS admin: the control socket; the tidying-up when master was killed.

runs as        `forkd-admin` where root started us, else the calling user
holds          the control socket, the lock on data_dir, a way to qmgr
reads from     local admins (their uid is looked at first), master, qmgr
if taken over  what admins may do
restart        by master, with back-off
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pwd
import socket
import struct
import time
from pathlib import Path

import uvloop

from forkd import log
from forkd.admin import requests
from forkd.admin.peers import Master, Qmgr
from forkd.admin.requests import MAX_LINE_BYTES, Context
from forkd.rpc import places
from forkd.rpc.channel import RequestClient
from forkd.rpc.link import MasterLink
from forkd.rpc.message import Message
from forkd.rpc.messages import QueueAnswer, ToRole
from forkd.rpc.messages_pool import Heartbeat
from forkd.rpc.start import RoleStart

IDLE_S = 60.0
"""Without a request, then the connection is closed."""

MAX_CLIENTS = 32
"""At once; the next one waits in the socket's backlog."""

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
    """The process: one listening socket, a few clients."""

    def __init__(self, start: RoleStart) -> None:
        self._start = start
        self._allowed = {0, os.getuid()}
        self._clients: set[asyncio.Task[None]] = set()
        self._answered = 0
        self._qmgr: Qmgr
        self._master: Master

    async def run(self) -> bool:
        """Open, serve, let answers under way go out. True when master is gone without a word."""
        loop = asyncio.get_running_loop()
        link = MasterLink(self._start, accepts=ToRole, beat=self._beat, on_message=self._from_master)
        self._master = Master(link.send)
        qmgr = places.run_folder(self._start.config.server.data_dir) / places.QMGR
        client = RequestClient(loop, qmgr, QueueAnswer)
        self._qmgr = Qmgr(client)
        link.open()
        accepting = loop.create_task(self._accept())
        await link.stopping.wait()
        accepting.cancel()
        if self._clients and not link.orphaned:
            await asyncio.wait(self._clients, timeout=0.2)
        for task in self._clients:
            task.cancel()
        client.close()
        link.close()
        return link.orphaned

    def _from_master(self, message: Message) -> None:
        self._master.answer(message)

    def _beat(self) -> Heartbeat:
        log.flush()
        return Heartbeat(counters={"requests": self._answered})

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(MAX_CLIENTS)
        while True:
            await room.acquire()
            try:
                connection, _ = await loop.sock_accept(self._start.sockets["control"])
            except OSError as error:
                # No descriptors left: without the pause this would be a hot loop.
                log.overload(what="control socket", detail=str(error))
                await asyncio.sleep(0.1)
                room.release()
                continue
            task = loop.create_task(self._serve(connection))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
            task.add_done_callback(lambda _: room.release())

    async def _serve(self, connection: socket.socket) -> None:
        """One client, until it hangs up, is silent for IDLE_S, or breaks the protocol."""
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        who = f"{_user(uid)}[{pid}]"
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE_BYTES)
        try:
            if uid not in self._allowed:
                log.admin_request(request="connect", who=who, result="refused", level="warning")
                writer.write(
                    requests.refusal(
                        f"user {_user(uid)} may not control this forkd; root may, and {self._names()}"
                    )
                )
                return
            context = Context(self._master, self._qmgr, who)
            while line := await asyncio.wait_for(reader.readline(), IDLE_S):
                self._answered += 1
                writer.write(await requests.answer(line, context))
                await writer.drain()
        except ValueError:
            writer.write(requests.refusal(f"a request has {MAX_LINE_BYTES} octets at most"))
        except (TimeoutError, ConnectionError):
            pass
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()

    def _names(self) -> str:
        return ", ".join(sorted(_user(uid) for uid in self._allowed if uid != 0)) or "nobody else"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
