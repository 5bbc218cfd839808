"""How does a worker get, call and kill sandboxes? The worker's handle on all its plugins.

The worker makes a sandbox's three descriptors itself: the channel (SEQPACKET, one call in flight), the
leash (closing it kills) and the output pipe. It uses the channel at once: the first frame waits in the
socket while the zygote still forks, so taking a sandbox never waits.

Everything that comes up a channel is hostile: one frame per call, of at most MAX_FRAME_BYTES, decoded
strictly, from one kernel-checked pid. Anything else is a breach, and a breach, a deadline or a death
all end the same way: CallFailed, leash dropped, the sandbox gone.
"""

from __future__ import annotations

import _socket
import asyncio
import dataclasses
import itertools
import os
import select
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from forkd import log
from forkd.rpc.calls import MAX_FRAME_BYTES, Answer, CallFailed, Overloaded
from forkd.sandbox import output
from forkd.sandbox.link import Link, refuse_descriptors
from forkd.sandbox.pool import Demand
from forkd.sandbox.report import Report, cause, report
from forkd.sandbox.wire import Death

REFILL_DELAY_S = 0.003
"""Spares are made a little later: the session that took one gets the processor first."""
LINGER_S = 0.01
"""End of file on a channel: who ends is reported within that; who only closed it is killed."""
REPORT_WAIT_S = 0.05
"""How long a call whose sandbox was killed for that waits for the zygote's word; its client fails anyway."""
SURVIVOR_S = 1.0
"""A process not dead so long after its leash was dropped: its zygote is not to be trusted."""
HOUSEKEEPING_S = 0.5
SHOWN_BYTES = 64
"""First bytes of a frame that broke the protocol, for the log."""

_MSG_DONTWAIT = socket.MSG_DONTWAIT
_CREDENTIALS = struct.Struct("=iII")
# Room for the credentials and nothing else: a descriptor sent beside them cannot even be received.
_CREDENTIALS_SPACE = socket.CMSG_LEN(_CREDENTIALS.size)
_decode = msgspec.json.Decoder(Answer).decode


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostPlugin:
    """What a worker knows of a plugin's sandboxes.

    sandboxes   alive at once in this worker, spares included (the plugin's limit over the number of workers).
    spare       most warm sandboxes held ready.
    cpu_s       the processor allowance, only to name the cause when it is used up.
    """

    name: str
    socket_path: str
    sandboxes: int = 128
    spare: int = 2
    cpu_s: float = 2.0


class Host:
    """All plugins' sandboxes of one worker.

    on_report   told of every dead sandbox (a claim of its zygote); default: a debug line in the log.
    on_output   told plugin, session, pid, escaped text and dropped bytes; default: a warning in the log.
    on_blame    told plugin and reason when a sandbox outlived its leash; master should end that zygote.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plugins: Iterable[HostPlugin],
        *,
        on_report: Callable[[Report], None] | None = None,
        on_output: Callable[[str, str, int, str, int], None] | None = None,
        on_blame: Callable[[str, str], None] | None = None,
    ) -> None:
        self._loop = loop
        self._on_report = on_report or _log_report
        self._on_output = on_output or _log_output
        self._on_blame = on_blame
        # One epoll for all channels, itself one reader of the loop: adding a channel costs 1 us, not 3.
        self._epoll = select.epoll()
        self._readers: dict[int, Sandbox | _Kennel] = {}
        self._dying: deque[tuple[float, int, int, str]] = deque()
        """Time to be dead by, pidfd, pid, plugin."""
        self._kennels = {plugin.name: _Kennel(self, plugin) for plugin in plugins}
        loop.add_reader(self._epoll.fileno(), self._ready)
        self._timer = loop.call_later(HOUSEKEEPING_S, self._housekeeping)

    def take(self, plugin: str, session_id: str) -> Sandbox:
        """A fresh sandbox of `plugin` for one session; never waits.

        Costs about 20 microseconds with a spare at hand and 40 without. The session must close() it.
        Raises Overloaded when as many as allowed are alive. A zygote that cannot be reached shows at
        the first call: CallFailed("unavailable").
        """
        return self._kennels[plugin].take(session_id)

    def alive(self, plugin: str) -> int:
        """Sandboxes of `plugin` that this worker holds, spares included."""
        return self._kennels[plugin].alive

    async def close(self) -> None:
        """Let go of every sandbox; waits until the kernel has ended them, SURVIVOR_S at most."""
        self._timer.cancel()
        for kennel in self._kennels.values():
            kennel.close()
        until = time.monotonic() + SURVIVOR_S
        while self._dying and time.monotonic() < until:
            self._bury()
            if self._dying:
                await asyncio.sleep(0.005)
        for _, pidfd, _, _ in self._dying:
            os.close(pidfd)
        self._dying.clear()
        self._loop.remove_reader(self._epoll.fileno())
        for kennel in self._kennels.values():
            kennel.disconnect()
        self._epoll.close()

    def _ready(self) -> None:
        for fd, events in self._epoll.poll(0):
            reader = self._readers.get(fd)
            if reader is not None:
                reader.ready(events)

    def _forget(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _watch_death(self, sandbox: Sandbox) -> None:
        """Before the leash is dropped: hold the process by pidfd, so that its death can be seen.

        The pid came from the kernel, but may be another process' by now. Only while the channel's other end
        is open is it the sandbox's: nobody else holds that end.
        """
        try:
            pidfd = os.pidfd_open(sandbox.pid)
        except OSError:
            return
        try:
            sandbox.channel.recv(1, _MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            self._dying.append((time.monotonic() + SURVIVOR_S, pidfd, sandbox.pid, sandbox.plugin))
            return
        except OSError:
            pass
        os.close(pidfd)

    def _bury(self) -> None:
        """Forget the dead among the dying; blame the zygote of one that is overdue."""
        if not self._dying:
            return
        poll = select.poll()
        for _, pidfd, _, _ in self._dying:
            poll.register(pidfd, select.POLLIN)
        dead = {pidfd for pidfd, _ in poll.poll(0)}
        now = time.monotonic()
        waiting: deque[tuple[float, int, int, str]] = deque()
        for entry in self._dying:
            by, pidfd, pid, plugin = entry
            if pidfd not in dead and now < by:
                waiting.append(entry)
                continue
            os.close(pidfd)
            if pidfd not in dead and self._on_blame is not None:
                self._on_blame(plugin, f"pid {pid} lived {SURVIVOR_S:g} s after its leash was dropped")
        self._dying = waiting

    def _housekeeping(self) -> None:
        self._bury()
        now = time.monotonic()
        for kennel in self._kennels.values():
            kennel.adapt(now)
        self._timer = self._loop.call_later(HOUSEKEEPING_S, self._housekeeping)


class Sandbox:
    """The worker's end of one sandbox, for one session.

    pid          as the kernel says with its first answer; 0 until then.
    last_output  the last lines it printed, escaped and bounded; filled when it has failed or was closed.
    """

    __slots__ = (
        "_answer",
        "_closed",
        "_failure",
        "_gone",
        "_kennel",
        "_leash",
        "_lingered",
        "_n",
        "_output",
        "_unsent",
        "channel",
        "id",
        "last_output",
        "pid",
        "session",
        "theirs",
    )

    def __init__(self, kennel: _Kennel, id_: int) -> None:
        self._kennel = kennel
        self.id = id_
        self.session = ""
        self.pid = 0
        self.last_output = ""
        self._answer: asyncio.Future[Answer] | None = None
        self._n = 0
        self._unsent: tuple[bytes, int] | None = None
        self._failure: tuple[str, str] | None = None
        self._closed = False
        self._gone = False
        self._lingered = False
        # Blocking objects, used with MSG_DONTWAIT: the flag is of the description, and the sandbox blocks.
        self.channel, channel = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0)
        self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        refuse_descriptors(self.channel)
        leash, self._leash = os.pipe2(os.O_CLOEXEC)
        self._output, printed = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.theirs = (channel.detach(), leash, printed)

    @property
    def plugin(self) -> str:
        """The plugin's name."""
        return self._kennel.plugin.name

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        """Send call `n` and wait for its answer, `timeout_s` in all.

        message_fd  goes with the frame (a sealed copy of the message); stays the caller's.
        Raises CallFailed with a cause of forkd.rpc.calls; the sandbox is dead then, and every later
        call fails too. Cancelled: likewise dead.
        """
        assert self._answer is None, "one call at a time"
        assert len(frame) <= MAX_FRAME_BYTES
        if self._failure is not None:
            raise CallFailed(*self._failure)
        if self._closed:
            raise CallFailed("unavailable", "the sandbox was closed")
        if self.pid and not self._gone:
            # Whatever it sent since its last answer was sent unasked: never the answer to this call.
            self._receive()
            if self._failure is not None:
                raise CallFailed(*self._failure)
        loop = self._kennel.host._loop
        self._n = n
        answer = self._answer = loop.create_future()
        timer = loop.call_later(timeout_s, self._late, timeout_s)
        self._send(frame, message_fd)
        try:
            result: Answer = await answer
            return result
        except asyncio.CancelledError:
            self._fail("unavailable", "the call was cancelled")
            raise
        finally:
            timer.cancel()
            self._answer = None

    def close(self) -> None:
        """Drop the leash: the kernel kills the sandbox at once. Idempotent, never raises."""
        if self._closed:
            return
        self._closed = True
        kennel = self._kennel
        if self.pid:
            kennel.host._watch_death(self)
        if text := output.read(self._output):
            self._printed(text)
        os.close(self._leash)
        kennel.host._forget(self.channel.fileno())
        self.channel.close()
        os.close(self._output)
        kennel.released(self)

    # --- what the channel brings -------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """The channel can be read, or written where something waits."""
        if events & select.EPOLLOUT and self._unsent is not None:
            frame, message_fd = self._unsent
            self._unsent = None
            self._kennel.host._epoll.modify(self.channel.fileno(), select.EPOLLIN)
            self._send(frame, message_fd)
        if events & ~select.EPOLLOUT and not self._closed:
            self._receive()

    def _send(self, frame: bytes, message_fd: int) -> None:
        try:
            if message_fd < 0:
                self.channel.send(frame, _MSG_DONTWAIT)
            else:
                rights = struct.pack("i", message_fd)
                self.channel.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], _MSG_DONTWAIT)
        except BlockingIOError:
            # A sandbox that does not read: it has until the deadline, and only this session waits.
            self._unsent = (frame, message_fd)
            self._kennel.host._epoll.modify(self.channel.fileno(), select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self._lost()

    def _receive(self) -> None:
        try:
            frame, ancillary, flags, _ = self.channel.recvmsg(
                MAX_FRAME_BYTES + 1, _CREDENTIALS_SPACE, _MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        if not frame and not ancillary:
            self._lost()
            return
        try:
            answer = self._checked(frame, ancillary, flags)
        except _BreachError as breach:
            self._fail("protocol", str(breach))
            return
        if answer.error:
            self._fail("memory" if answer.error.startswith("MemoryError") else "exception", answer.error)
            return
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _checked(self, frame: bytes, ancillary: list[tuple[int, int, bytes]], flags: int) -> Answer:
        """The frame as the answer to the call in flight, or _BreachError."""
        if len(ancillary) != 1 or ancillary[0][1] != _SCM_CREDENTIALS:
            raise _BreachError("a frame without credentials")
        pid = _CREDENTIALS.unpack(ancillary[0][2])[0]
        if self.pid and pid != self.pid:
            raise _BreachError(f"a frame of pid {pid} on the channel of pid {self.pid}")
        self.pid = pid
        if flags & socket.MSG_CTRUNC:
            raise _BreachError("a frame with descriptors")
        if flags & socket.MSG_TRUNC or len(frame) > MAX_FRAME_BYTES:
            raise _BreachError("a frame too long")
        if not frame:
            raise _BreachError("an empty frame")
        if self._answer is None or self._answer.done() or self._unsent is not None:
            raise _BreachError(f"a frame nobody asked for: {frame[:SHOWN_BYTES]!r}")
        try:
            answer = _decode(frame)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _BreachError(f"{error}: {frame[:SHOWN_BYTES]!r}") from error
        if answer.n != self._n:
            raise _BreachError(f"answer {answer.n} to call {self._n}")
        return answer

    # --- ends ---------------------------------------------------------------------------------------

    def _late(self, timeout_s: float) -> None:
        if self._closed and self._failure is None and self._answer is not None:
            # It died, and the zygote has not said how within the call's time.
            self._fail("crash", "the sandbox ended without an answer")
        else:
            self._fail("deadline", f"no answer within {timeout_s:g} s")

    def _lost(self) -> None:
        """End of file: it is dead or has closed its channel. Wait a moment for the zygote's word on how."""
        if self._closed or self._gone:
            return
        self._gone = True
        kennel = self._kennel
        if kennel.connected:
            kennel.host._forget(self.channel.fileno())
            kennel.unspare(self)
            kennel.host._loop.call_later(LINGER_S, self._linger)
        else:
            self._ended(None)

    def _linger(self) -> None:
        """Not reported dead in time: it closed its channel and lives, or the machine is slow."""
        if self._closed:
            return
        self._lingered = True
        self.close()
        self._kennel.host._loop.call_later(REPORT_WAIT_S, self._ended, None)

    def _ended(self, death: Death | None) -> None:
        """Its death was reported, or will not be in time."""
        if self._failure is not None:
            return
        if death is None:
            self._fail("crash" if self.pid else "unavailable", "the sandbox ended without an answer")
        elif self._lingered and os.WIFSIGNALED(death.status) and os.WTERMSIG(death.status) == signal.SIGKILL:
            self._fail("crash", "it closed its channel without an answer, and was killed")
        else:
            self._fail(*cause(death, cpu_s=self._kennel.plugin.cpu_s))

    def died(self, death: Death) -> None:
        """The zygote reports its death."""
        ours = self._closed and not self._gone
        self._kennel.host._on_report(report(death, plugin=self.plugin, session=self.session, ours=ours))
        if not ours:
            # The end of file may still be to come, or a call may wait for this word.
            self._gone = True
            self.close()
            self._ended(death)

    def _fail(self, why: str, detail: str) -> None:
        if self._failure is None:
            self._failure = (why, detail)
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(CallFailed(*self._failure))

    def _printed(self, text: bytes) -> None:
        shown = output.escape(text)
        self.last_output = output.last_lines(shown)
        kennel = self._kennel
        meter = kennel.meter
        if meter.take(len(text), time.monotonic()):
            dropped, meter.dropped = meter.dropped, 0
            kennel.host._on_output(self.plugin, self.session, self.pid, shown, dropped)


_SCM_CREDENTIALS = 2  # socket.SCM_CREDENTIALS, unknown to the type stubs of other systems


class _BreachError(Exception):
    """A frame that is not in the protocol."""


class _Kennel:
    """One plugin's sandboxes in this worker: spares, those at work, those whose death is awaited."""

    def __init__(self, host: Host, plugin: HostPlugin) -> None:
        self.host = host
        self.plugin = plugin
        self.alive = 0
        now = time.monotonic()
        self.meter = output.Meter(now)
        self._demand = Demand(now)
        self._ids = itertools.count(1)
        self._spares: deque[Sandbox] = deque()
        self._unreported: dict[int, Sandbox] = {}
        self._working: set[Sandbox] = set()
        self._link = Link(plugin.socket_path)
        self._registered = -1
        self._flush_due = False
        self._refill_due = False
        self._closing = False

    @property
    def connected(self) -> bool:
        """A zygote may still report."""
        return self._link.fd >= 0

    def take(self, session: str) -> Sandbox:
        now = time.monotonic()
        self._demand.arrived(now)
        if self._spares:
            sandbox = self._spares.popleft()
        else:
            if self.alive >= self.plugin.sandboxes:
                raise Overloaded(f"{self.alive} sandboxes of {self.plugin.name} are alive")
            sandbox = self._make()
        sandbox.session = session
        self._working.add(sandbox)
        self._refill_later()
        return sandbox

    def _make(self) -> Sandbox:
        try:
            sandbox = Sandbox(self, next(self._ids) & 0xFFFF_FFFF)
        except OSError as error:  # EMFILE: the worker is full
            raise Overloaded(str(error)) from error
        self.alive += 1
        self._unreported[sandbox.id] = sandbox
        fd = sandbox.channel.fileno()
        self.host._readers[fd] = sandbox
        self.host._epoll.register(fd, select.EPOLLIN)
        self._link.ask(sandbox)
        if not self._flush_due:
            # At the end of this turn of the loop: whoever else asks in it shares the request.
            self._flush_due = True
            self.host._loop.call_soon(self._flush)
        return sandbox

    def _flush(self) -> None:
        self._flush_due = False
        if self._closing:
            return
        for last in (False, True):
            try:
                sent = self._link.flush()
            except OSError as error:
                # The connection was a dead zygote's: once more, with its successor.
                self._disconnected()
                if last:
                    self._unreachable(error)
                continue
            self._listen(write=not sent)
            return

    def _unreachable(self, error: OSError) -> None:
        for birth in self._link.abandon():
            sandbox = self._unreported.pop(birth.id, None)
            if sandbox is not None:
                sandbox._fail("unavailable", f"no zygote: {error.strerror}")

    def _listen(self, *, write: bool) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if write else 0)
        if self._registered < 0:
            self._registered = self._link.fd
            self.host._readers[self._registered] = self
            self.host._epoll.register(self._registered, events)
        else:
            self.host._epoll.modify(self._registered, events)

    def ready(self, events: int) -> None:
        """The zygote's connection can be read or written."""
        if events & ~select.EPOLLOUT:
            deaths = self._link.receive()
            if deaths is None:
                self._disconnected()
                return
            for death in deaths:
                sandbox = self._unreported.pop(death.id, None)
                if sandbox is not None:
                    sandbox.died(death)
        if events & select.EPOLLOUT and not self._flush_due:
            self._flush()

    def _disconnected(self) -> None:
        """The zygote is dead (or spoke nonsense): nobody will report on what it forked."""
        if self._registered >= 0:
            self.host._forget(self._registered)
            self._registered = -1
        self._link.drop()
        waiting = {birth.id for birth in self._link._waiting}
        orphans = [sandbox for id_, sandbox in self._unreported.items() if id_ not in waiting]
        self._unreported = {id_: self._unreported[id_] for id_ in waiting if id_ in self._unreported}
        for sandbox in orphans:
            if sandbox._closed:
                sandbox._ended(None)  # no word will come
        if self._link.waiting and not self._flush_due and not self._closing:
            self._flush_due = True
            self.host._loop.call_soon(self._flush)

    def released(self, sandbox: Sandbox) -> None:
        """A sandbox was closed."""
        self.alive -= 1
        self._working.discard(sandbox)
        self.unspare(sandbox)

    def unspare(self, sandbox: Sandbox) -> None:
        """It is dead or dying: no session may get it."""
        if not sandbox.session and sandbox in self._spares:
            self._spares.remove(sandbox)

    def adapt(self, now: float) -> None:
        """Hold as many spares as are wanted now; fewer where nobody comes."""
        wanted = self._demand.spares(now, self.plugin.spare)
        while len(self._spares) > wanted:
            self._spares[-1].close()

    def _refill_later(self) -> None:
        if not self._refill_due and len(self._spares) < self.plugin.spare:
            self._refill_due = True
            self.host._loop.call_later(REFILL_DELAY_S, self._refill)

    def _refill(self) -> None:
        self._refill_due = False
        if self._closing:
            return
        wanted = self._demand.spares(time.monotonic(), self.plugin.spare)
        while len(self._spares) < wanted and self.alive < self.plugin.sandboxes:
            try:
                self._spares.append(self._make())
            except Overloaded:
                return

    def close(self) -> None:
        self._closing = True
        self._link.abandon()
        for sandbox in (*self._spares, *self._working):
            sandbox._fail("unavailable", "the worker stops")

    def disconnect(self) -> None:
        self._disconnected()


def _log_report(dead: Report) -> None:
    log.sandbox_end(
        plugin=dead.plugin,
        pid=dead.pid,
        status=dead.status,
        session=dead.session,
        user_ms=dead.user_s * 1000,
        system_ms=dead.system_s * 1000,
        memory_kib=dead.memory >> 10,
    )


def _log_output(plugin: str, session: str, pid: int, text: str, dropped: int) -> None:
    log.plugin_output(plugin=plugin, session=session, pid=pid, text=text, dropped=dropped)
