"""qmgr: brings queued mail to its transports.

runs as          forkd-queue where root starts us, else the service's user
holds            the spool (reads, removes), Maildirs, the flock that keeps a spool to one qmgr
reads from       spool files, pokes and requests to deliver now (workers wrote them: names and bytes are
                 checked), admin's requests, the launcher's answers
if taken over    queued mail can be read, lost, altered; mailboxes written
restart rule     respawned with back-off; what was under way is found again in the spool. A locked spool
                 ends forkd (Exit.IN_USE): somebody else delivers from it
"""

from __future__ import annotations

import collections
import fcntl
import os
import select
import socket
import time
from collections.abc import Callable

from forkd import log
from forkd.config.schema import Config
from forkd.exits import Exit
from forkd.qmgr import proxying, requests
from forkd.qmgr.lanes import Pass
from forkd.qmgr.manager import Manager, open_lock
from forkd.qmgr.programs import Launcher
from forkd.queue import recovery
from forkd.queue.spool import spool_root
from forkd.rpc import channel
from forkd.rpc.messages import Deliver, Delivered, Heartbeat, QueueRequest, Ready, Stop
from forkd.rpc.start import RoleStart
from forkd.smtp import replies
from forkd.smtp.reply import Reply

BEAT_S = 1.0
MOST_WAITED = 256
"""Clients of one worker that wait for a next hop: half of what one transport has places for."""
TIDY_S = 60.0
"""Between two looks for files of workers that were killed."""
ORPHAN_STOP_S = 5.0
"""What running deliveries get when master is gone."""
GATHER_S = 0.005
"""Pokes are taken at most so often: under load that makes batches of them, alone it costs nobody a thing."""
POKE_BYTES = 65_536
"""A pipe's capacity: one read empties it."""
WALK_BITE = 500
"""Names of the walk per turn of the loop, below 1 ms."""
WALK_SHARE = 50
"""The walk may take 1/50 of the time, however long the queue: then it comes less often than scan_interval."""


def main(start: RoleStart) -> int:
    """Run until told to stop or until master is gone; return the exit status."""
    config: Config = start.config
    root = str(spool_root(config.server.data_dir))
    lock = open_lock(root)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.queue_event(
            act="locked", detail=f"another qmgr delivers from {root}; stop it first", level="error"
        )
        return Exit.IN_USE
    loop = Loop(start, config, root)
    start.title("recovering")
    loop.manager.recover()
    channel.send(start.master, Ready())
    start.title("running")
    loop.run()
    return Exit.OK


class Loop:
    """The one loop thread: everything that qmgr waits for."""

    def __init__(self, start: RoleStart, config: Config, root: str) -> None:
        self._start = start
        self._scan_interval_s = float(config.queue.scan_interval)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        programs = Launcher(start.launcher) if start.launcher else None
        self.manager = Manager(config, root, self._wake, programs=programs)
        self._listeners = {
            sock.fileno(): (sock, serve)
            for name, serve in (("qmgr", self._asked), ("proxy", self._told_to_deliver))
            if (sock := start.sockets.get(name)) is not None
        }
        self._clients: dict[int, tuple[socket.socket, Callable[[int], None]]] = {}
        self._waited: collections.Counter[socket.socket] = collections.Counter()
        """Of each worker's connection: clients that wait."""
        self._draining = False
        self._deadline: float | None = None
        """Monotonic; None while draining: no limit."""
        self._next_beat = 0.0
        self._next_tidy = time.monotonic() + TIDY_S
        self._next_walk = time.monotonic() + self._scan_interval_s
        self._walk_cost_s = 0.0
        self._gathered_at = 0.0
        self._poll = select.epoll()
        for fd in (start.master.fileno(), self._wake_fd, start.poke):
            if fd >= 0:
                self._poll.register(fd, select.EPOLLIN)
        for fd, (listener, _) in self._listeners.items():
            listener.setblocking(False)
            self._poll.register(fd, select.EPOLLIN)

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def run(self) -> None:
        """Until stopped and nothing runs any more, or the deadline has passed."""
        while not self._over():
            timeout_s = self._turn()
            for fd, _ in self._poll.poll(timeout_s):
                self._ready(fd)

    def _over(self) -> bool:
        if not self._draining:
            return False
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return late or not self.manager.active

    def _turn(self) -> float:
        """Do what the clock asks for; return how long the loop may sleep, seconds."""
        manager, now, wall = self.manager, time.monotonic(), time.time()
        manager.take_back()
        if now >= self._next_beat:
            self._next_beat = now + BEAT_S
            self._beat()
            for fd in self._listeners:
                self._poll.modify(fd, select.EPOLLIN)
        if self._draining:
            return max(0.0, min(self._next_beat, self._deadline or self._next_beat) - now)
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_S
            self._tidy()
        if now >= self._next_walk:
            self._walk(now, wall)
        manager.pump(wall)
        sleep_s = min(self._next_beat, self._next_walk, self._next_tidy) - now
        due = manager.schedule.next_due()
        if due is not None:
            sleep_s = min(sleep_s, due - wall)
        return max(0.0, sleep_s)

    def _walk(self, now: float, wall: float) -> None:
        try:
            through = self.manager.walk(WALK_BITE, wall)
        except OSError as error:
            log.queue_event(act="unreadable", detail=f"spool: {error.strerror}", level="error")
            through = True
        self._walk_cost_s += time.monotonic() - now
        if through:
            self._next_walk = now + max(self._scan_interval_s, WALK_SHARE * self._walk_cost_s)
            self._walk_cost_s = 0.0
        # Else it goes on in the next turn, after whatever is ready meanwhile.

    def _tidy(self) -> None:
        try:
            recovery.clean_temporary(self.manager.root, fs=self.manager.fs)
        except OSError as error:
            log.queue_event(act="unreadable", detail=f"spool: {error.strerror}", level="error")

    def _beat(self) -> None:
        manager = self.manager
        state = "draining" if self._draining else "running"
        channel.try_send(
            self._start.master,
            Heartbeat(
                state=state,
                transactions=manager.active,
                counters={**manager.counters, "queued": len(manager.schedule)},
            ),
        )
        self._start.title(f"{state} {len(manager.schedule)} queued")
        log.flush()

    # --- what is ready ------------------------------------------------------------------------------

    def _ready(self, fd: int) -> None:
        if fd == self._start.poke:
            self._take_pokes()
        elif fd == self._wake_fd:
            os.eventfd_read(fd)
        elif fd == self._start.master.fileno():
            self._told()
        elif fd in self._listeners:
            self._accept(*self._listeners[fd])
        elif fd in self._clients:
            self._clients[fd][1](fd)

    def _take_pokes(self) -> None:
        now = time.monotonic()
        early_s = self._gathered_at + GATHER_S - now
        if early_s > 0:
            # The loop's only sleep: 5 ms at most, in which nothing it serves is in a hurry.
            time.sleep(early_s)
        self._gathered_at = time.monotonic()
        try:
            data = os.read(self._start.poke, POKE_BYTES)
        except BlockingIOError:
            return
        if not data:
            # Every worker and master are gone; master's channel says so too.
            self._poll.unregister(self._start.poke)
            return
        self.manager.poked(data, time.time())

    def _told(self) -> None:
        told: list[Stop]
        try:
            told, ended = channel.drain(self._start.master, Stop)
        except channel.BadRecord:
            return  # a message for other roles
        for stop in told:
            self._drain(stop.deadline_s)
        if ended:
            self._poll.unregister(self._start.master.fileno())
            self._drain(ORPHAN_STOP_S)

    def _drain(self, limit_s: float | None) -> None:
        deadline = None if limit_s is None else time.monotonic() + limit_s
        if not self._draining:
            self._draining = True
            self.manager.stop_starting()
            self._deadline = deadline
        elif deadline is not None:
            self._deadline = min(deadline, self._deadline or deadline)
        self._next_beat = 0.0

    def _accept(self, listener: socket.socket, serve: Callable[[int], None]) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return  # gone again
        except OSError as error:
            # No descriptors, say. It would be ready again at once: not before the next beat.
            self._poll.modify(listener.fileno(), 0)
            log.queue_event(act="refused", detail=f"a connection: {error.strerror}", level="error")
            return
        client.setblocking(False)
        self._clients[client.fileno()] = client, serve
        self._poll.register(client.fileno(), select.EPOLLIN)

    def _hang_up(self, fd: int) -> None:
        self._poll.unregister(fd)
        client, _ = self._clients.pop(fd)
        self._waited.pop(client, None)
        client.close()

    def _asked(self, fd: int) -> None:
        """By admin."""
        client, _ = self._clients[fd]
        asked: list[QueueRequest]
        try:
            asked, ended = channel.drain(client, QueueRequest, at_most=16)
        except channel.BadRecord as error:
            log.queue_event(act="bad_request", detail=str(error), level="warning")
            asked, ended = [], True
        for request in asked:
            answer = requests.answer(self.manager, request, time.time())
            if request.act == "flush" and (answer.count or not request.ids):
                log.queue_event(act="flushed", count=answer.count, who=request.who)
            # Who does not read its answers is not worth waiting for.
            ended = not channel.try_send(client, answer) or ended
        if ended:
            self._hang_up(fd)

    def _told_to_deliver(self, fd: int) -> None:
        """By a worker, whose client waits."""
        client, _ = self._clients[fd]
        asked: list[Deliver]
        try:
            asked, ended = channel.drain(client, Deliver)
        except channel.BadRecord as error:
            log.queue_event(act="bad_request", detail=str(error), level="warning")
            asked, ended = [], True
        if ended:
            self._hang_up(fd)  # and its clients are gone too
            return
        for request in asked:
            self._deliver_now(client, request)

    def _deliver_now(self, client: socket.socket, request: Deliver) -> None:
        def tell(attempt: Pass) -> None:
            if client in self._waited:
                self._waited[client] -= 1
            results = [result for _, result in attempt.results]
            if why := attempt.damage or attempt.dropped:
                log.queue_event(act="not_delivered", id=attempt.message.id, detail=why, level="warning")
            _answer(client, request, proxying.reply(results, attempt.wanted))

        # While draining, lanes answer with nothing; workers have ended before, unless somebody killed us.
        refused = "stopping" if self._draining else ""
        if self._waited[client] >= MOST_WAITED:
            refused = "too many clients of this worker wait already"
        refused = refused or self.manager.deliver_now(request.slot, request.name, tell, time.time())
        if refused:
            log.queue_event(act="not_delivered", id=request.name[:20], detail=refused, level="warning")
            _answer(client, request, replies.NOT_TAKEN_NOW)
        else:
            self._waited[client] += 1


def _answer(client: socket.socket, request: Deliver, reply: Reply) -> None:
    """A worker that is gone, or does not read, has no client any more."""
    channel.try_send(
        client, Delivered(n=request.n, code=reply.code, enhanced=reply.enhanced or "", lines=reply.lines)
    )
