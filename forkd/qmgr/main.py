"""qmgr: brings queued mail to its transports.

runs as          forkd-queue where root starts us, else the service's user
holds            the spool (reads, removes), Maildirs, the flock that keeps a spool to one qmgr; passwords and
                 certificates for next hops, and the network to them, where the configuration has some
reads from       spool files, pokes and requests to deliver now (workers wrote them: names and bytes are
                 checked), admin's requests, the launcher's answers, next hops, name servers
if taken over    queued mail can be read, lost, altered, sent on; mailboxes written
restart rule     respawned with back-off; what was under way is found again in the spool. A locked spool
                 ends forkd (Exit.IN_USE): somebody else delivers from it
"""

from __future__ import annotations

import fcntl
import gc
import math
import os
import select
import time

from forkd import log
from forkd.config.aliases import NO_ALIASES
from forkd.config.schema import Config
from forkd.exits import Exit
from forkd.metrics_events import counting
from forkd.metrics_slot import Slot
from forkd.qmgr.clients import Clients
from forkd.qmgr.manager import Manager
from forkd.qmgr.measuring import Measuring
from forkd.qmgr.pipes import Pipes
from forkd.qmgr.programs import Launcher
from forkd.qmgr.relays import Relays
from forkd.qmgr.requests import Queue
from forkd.qmgr.requests_desk import Desk
from forkd.qmgr.routing import KINDS
from forkd.queue import recovery
from forkd.queue.spool import spool_root
from forkd.rpc import channel, tracing
from forkd.rpc.messages import Ready
from forkd.rpc.messages_pool import Heartbeat, Stop
from forkd.rpc.start import RoleStart
from forkd.rpc.tracing import FLUSH_S

BEAT_S = 1.0
TIDY_S = 60.0
"""Between two looks for files of workers that were killed."""
ORPHAN_STOP_S = 5.0
"""What running deliveries get when master is gone."""
CUT_SHORT_S = 1.0
"""Before the end of the time for stopping: what waits for others is cancelled, what was said is recorded."""
GOOD_BYE_S = 1.0
"""For next hops whose connections are kept."""
SET_BACK_S = 5.0
"""A clock that loses more against the monotonic one was set; less is what keeps it right (adjtimex)."""
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
    lock = _open_lock(root)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.queue_event(
            act="locked", detail=f"another qmgr delivers from {root}; stop it first", level="error"
        )
        return Exit.IN_USE
    loop = Loop(start, config, root)
    start.title("recovering")
    # The collector need not look through a queue that stays: for 200,000 messages it stops all threads
    # for 0.2 to 0.4 s, while they are learnt again and again.
    gc.disable()
    loop.manager.intake.recover()
    gc.freeze()
    gc.enable()
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
        pipes = Pipes(config, start.plugins)
        kinds = {**KINDS, **Relays(config, start.next_hops).kinds}
        aliases = start.aliases or NO_ALIASES
        self.manager = Manager(
            config, root, self._wake, programs=programs, pipes=pipes, aliases=aliases, kinds=kinds
        )
        self._poll = select.epoll()
        self._clients = Clients(
            self.manager, Desk(Queue(self.manager), self._wake), self._poll, start.sockets
        )
        self._tracer = tracing.of(start)
        self._measuring = Measuring(Slot(start.metrics))
        log.observe(self._tracer, counting(self._measuring.slot))
        self._traced_at = 0.0
        self._draining = False
        self._deadline: float | None = None
        """Monotonic; None while draining: no limit."""
        self._cut_at = math.inf
        """Monotonic."""
        self._next_beat = 0.0
        self._next_tidy = time.monotonic() + TIDY_S
        self._next_walk = time.monotonic() + self._scan_interval_s
        self._walk_cost_s = 0.0
        self._gathered_at = 0.0
        self._ahead_s = time.time() - time.monotonic()
        for fd in (start.master.fileno(), self._wake_fd, start.poke):
            if fd >= 0:
                self._poll.register(fd, select.EPOLLIN)

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def run(self) -> None:
        """Until stopped and nothing runs any more, or the deadline has passed."""
        while not self._over():
            timeout_s = self._turn()
            for fd, _ in self._poll.poll(timeout_s):
                self._ready(fd)
        self.manager.close(GOOD_BYE_S)
        self._beat()  # what was counted since the last one
        self._measuring.slot.end()
        if self._tracer is not None:
            self._tracer.finish()

    def _over(self) -> bool:
        if not self._draining:
            return False
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return late or not self.manager.active

    def _turn(self) -> float:
        """Do what the clock asks for; return how long the loop may sleep, seconds."""
        manager, now, wall = self.manager, time.monotonic(), time.time()
        self._see_clock(wall - now)
        manager.take_back()
        self._clients.take_back()
        trace_s = self._trace(now)
        if now >= self._next_beat:
            self._next_beat = now + BEAT_S
            self._beat()
            self._clients.listen()
        if self._draining:
            if now >= self._cut_at:
                self._cut_at = math.inf
                manager.cut_short()
            wake_at = min(self._next_beat, self._cut_at, self._deadline or self._next_beat)
            return max(0.0, min(wake_at - now, trace_s))
        if now >= self._next_tidy:
            self._next_tidy = now + TIDY_S
            self._tidy()
        if now >= self._next_walk:
            self._walk(now, wall)
        manager.pump(wall)
        sleep_s = min(min(self._next_beat, self._next_walk, self._next_tidy) - now, trace_s)
        wake = manager.next_wake()
        if wake is not None:
            sleep_s = min(sleep_s, wake - wall)
        return max(0.0, sleep_s)

    def _trace(self, now: float) -> float:
        """Tell admin what happened, FLUSH_S after the last time at the earliest; seconds until the next one.

        What threads log meanwhile is told when they wake the loop, or with the next beat.
        """
        if self._tracer is None or not self._tracer.waits:
            return BEAT_S
        early_s = self._traced_at + FLUSH_S - now
        if early_s > 0:
            return early_s
        self._traced_at = now
        self._tracer.flush()
        return FLUSH_S if self._tracer.waits else BEAT_S

    def _see_clock(self, ahead_s: float) -> None:
        """Set forward, what waits is due early, as it should be; set back, it would wait for the old time."""
        by_s = self._ahead_s - ahead_s
        self._ahead_s = ahead_s
        if by_s > SET_BACK_S:
            log.queue_event(act="clock", detail=f"set back by {by_s:.0f} s", level="warning")
            self.manager.clock_set_back(by_s)

    def _walk(self, now: float, wall: float) -> None:
        try:
            through = self.manager.intake.walk(WALK_BITE, wall)
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
                counters=dict(manager.counters),
                info={"queued": str(len(manager.schedule))},
            ),
        )
        self._start.title(f"{state} {len(manager.schedule)} queued")
        self._measuring.now(manager.schedule)
        log.flush()
        if self._tracer is not None:
            self._tracer.flush()

    # --- what is ready ------------------------------------------------------------------------------

    def _ready(self, fd: int) -> None:
        if fd == self._start.poke:
            self._take_pokes()
        elif fd == self._wake_fd:
            os.eventfd_read(fd)
        elif fd == self._start.master.fileno():
            self._told()
        else:
            self._clients.ready(fd)

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
        self.manager.intake.poked(data, time.time())

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
            self._clients.draining = True
            self.manager.stop_starting()
            self._deadline = deadline
        elif deadline is not None:
            self._deadline = min(deadline, self._deadline or deadline)
        if self._deadline is not None and limit_s is not None:
            self._cut_at = self._deadline - min(CUT_SHORT_S, limit_s / 4)
        self._next_beat = 0.0


def _open_lock(root: str) -> int:
    """The descriptor of root/lock, to be locked by the one qmgr of this spool. Raises OSError."""
    return os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
