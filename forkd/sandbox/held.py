"""What does a worker hold of one sandbox? Its channel, leash and output, and the call under way.

What comes up a channel is hostile (answers.py): an answer, or a breach of the protocol. A breach, a deadline
and a death (deaths.py) all end the same way: CallFailed, leash dropped, the sandbox gone.
"""

from __future__ import annotations

import _socket
import asyncio
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

import msgspec

from forkd.rpc import records
from forkd.rpc.calls import MAX_FRAME_BYTES, Answer, CallFailed
from forkd.sandbox import answers, deaths, output, wear
from forkd.sandbox.brokering import Asking
from forkd.sandbox.deaths import late, lost
from forkd.sandbox.link import refuse_descriptors

if TYPE_CHECKING:
    from forkd.sandbox.kennel import Kennel
    from forkd.sandbox.report import Report
    from forkd.sandbox.shares import Place

# Plain numbers: an operation on socket's enumerations costs a microsecond each.
_MSG_DONTWAIT, _MSG_PEEK = int(socket.MSG_DONTWAIT), int(socket.MSG_PEEK)

MOST_HIDDEN = 256
"""Passwords of one process (limits.reuse): earlier ones it may print."""


class Sandbox:
    """The worker's end of one sandbox, for one session.

    pid          as the kernel says with its first answer; 0 until then.
    hidden       arguments of auth calls that its process had: their passwords are kept from the log.
    last_output  the last lines it printed, escaped and bounded; filled when it has failed or was closed.
    """

    __slots__ = (
        "_asking",
        "_leash",
        "_n",
        "_output",
        "_served",
        "_size",
        "_unsent",
        "answer",
        "awaited",
        "channel",
        "closed",
        "failure",
        "gone",
        "hidden",
        "id",
        "kennel",
        "last_output",
        "lingered",
        "orphaned",
        "pid",
        "place",
        "report",
        "session",
        "theirs",
    )

    def __init__(self, kennel: Kennel, id_: int) -> None:
        self.kennel = kennel
        self.id = id_
        self.session = ""
        self.place: Place | None = None
        self.pid = 0
        self.last_output = ""
        self._served = 0
        self._size = 0
        self.answer: asyncio.Future[Answer] | None = None
        self._n = 0
        self._unsent: tuple[bytes, int] | None = None
        self.failure: tuple[str, str] | None = None
        self.closed = self.gone = self.lingered = False
        self.orphaned = False
        """The zygote that forked it is gone."""
        self.report: Report | None = None
        self.awaited: asyncio.Future[None] | None = None
        self.theirs: tuple[int, ...] = ()
        self._leash = self._output = -1
        self._asking: Asking | None = None
        self.hidden: tuple[bytes, ...] = ()
        # Blocking objects, used with MSG_DONTWAIT: the flag is of the description, and the sandbox blocks.
        self.channel, channel = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0)
        try:
            self.theirs = (channel.detach(),)
            self.channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            refuse_descriptors(self.channel)
            leash, self._leash = os.pipe2(os.O_CLOEXEC)
            self.theirs += (leash,)
            self._output, printed = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self.theirs += (printed,)
            if kennel.plugin.broker:
                self._asking = Asking(kennel.host.brokering)
                self.theirs += (self._asking.theirs,)
        except OSError:
            # EMFILE half-way: what there is of it must not stay open, or the next one fails as well.
            for fd in (*self.theirs, self._leash, self._output):
                if fd >= 0:
                    os.close(fd)
            self.channel.close()
            raise

    @property
    def plugin(self) -> str:
        """The plugin's name."""
        return self.kennel.plugin.name

    async def call(self, frame: bytes, n: int, *, timeout_s: float, message_fd: int = -1) -> Answer:
        """Send call `n` and wait for its answer, `timeout_s` in all.

        message_fd  goes with the frame (a sealed copy of the message); stays the caller's.
        Raises CallFailed with a cause of forkd.rpc.calls; the sandbox is dead then, and every later
        call fails too. Cancelled: likewise dead.
        """
        assert self.answer is None, "one call at a time"
        assert len(frame) <= MAX_FRAME_BYTES
        if self.failure is not None:
            raise CallFailed(*self.failure)
        if self.closed:
            raise CallFailed("unavailable", "the sandbox was closed")
        if self.pid and not self.gone:
            # Whatever it sent since its last answer was sent unasked: never the answer to this call.
            self.receive()
            if self.failure is not None:
                raise CallFailed(*self.failure)
        loop = self.kennel.host.loop
        place = self.place
        if place is not None:
            place.idle_since = None
        self._n = n
        answer = self.answer = loop.create_future()
        timer = loop.call_later(timeout_s, late, self, timeout_s)
        self._send(frame, message_fd)
        try:
            result: Answer = await answer
            return result
        except asyncio.CancelledError:
            self.fail("unavailable", "the call was cancelled")
            raise
        finally:
            timer.cancel()
            self.answer = None
            if place is not None:
                place.idle_since = loop.time()

    def begin(self, place: Place) -> None:
        """Serve the session that holds `place`, from now on."""
        self.place = place
        self.session = place.session
        self._served += 1
        if self._asking is not None:
            self._asking.begin(self.plugin, self.session)

    def has_broker(self) -> bool:
        """It has a channel to the living broker, or needs none."""
        return self._asking is None or self._asking.lives()

    def hide(self, arguments: bytes) -> None:
        """Its next call tells it the password in these."""
        if arguments not in self.hidden:
            self.hidden = (*self.hidden, arguments)[-MOST_HIDDEN:]

    def _scrubbed(self, text: str) -> str:
        return output.scrubbed(text, records.passwords(self.hidden))

    def release(self) -> None:
        """The session is over (or, with limits.fresh "call", the call). Idempotent, never raises.

        With limits.reuse = 1 the sandbox is killed, as by close(). With more it may serve another session
        of the same plugin, `reuse` in all, and this object is dead. What that means for the limits: the CPU
        timer counts the process, so it is armed with two allowances, and a sandbox that has used one
        serves no further session: a session has at least its allowance, at most twice that. Memory is
        one allowance for the sandbox's whole life, and who has used half of it serves no further
        session. Who fails, or says anything while nobody asks, is killed.
        """
        if not self.closed and not self.kennel.rest(self):
            self.close()

    def close(self) -> None:
        """Drop the leash: the kernel kills the sandbox at once. Idempotent, never raises."""
        if self.closed:
            return
        self.closed = True
        kennel = self.kennel
        if self.pid:
            kennel.host.watch_death(self)
        if text := output.read(self._output):
            self._printed(text)
        os.close(self._leash)
        kennel.host.forget(self.channel.fileno())
        self.channel.close()
        os.close(self._output)
        if self._asking is not None:
            self._asking.close()
        kennel.released(self)

    async def last_report(self) -> Report | None:
        """How it ended, as deaths.last_report()."""
        return await deaths.last_report(self)

    @property
    def untaken(self) -> bool:
        """It failed before it took its first call: no zygote made it."""
        return self.failure is not None and self.failure[0] == "unavailable" and not self.pid

    # --- from one session to the next -----------------------------------------------------------------

    def may_serve_again(self) -> bool:
        """Is it as fit for another session as the limits ask? Costs two system calls."""
        plugin = self.kennel.plugin
        if self._served >= plugin.reuse or not self.pid or self.gone or self.answer is not None:
            return False
        if self.failure is not None or not self.silent() or not self.has_broker():
            return False
        if wear.processor_s(self.pid) >= plugin.cpu_s:
            return False
        size = wear.address_space(self.pid)
        if not self._size:
            self._size = size
        return size - self._size < plugin.memory // 2

    def behaved(self) -> bool:
        """It answered, and did nothing that ends a sandbox."""
        return self.pid > 0 and self.failure is None and not self.gone

    def silent(self) -> bool:
        """It has nothing to say, and its channel is open."""
        try:
            self.channel.recv(1, _MSG_DONTWAIT | _MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def hand_over(self) -> Sandbox:
        """The same process for another session. This object is dead from now on.

        A new object, so that whoever still holds the old one cannot reach the next session.
        """
        if text := output.read(self._output):
            self._printed(text)
        heir = Sandbox.__new__(Sandbox)
        for name in _PROCESS:
            setattr(heir, name, getattr(self, name))
        heir.session = heir.last_output = ""
        heir.place = heir.answer = heir._unsent = heir.failure = None
        heir._n = 0
        heir.closed = heir.gone = heir.lingered = heir.orphaned = False
        heir.report = heir.awaited = None
        self.closed = True
        return heir

    # --- what the channel brings -------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """The channel can be read, or written where something waits."""
        if events & select.EPOLLOUT and self._unsent is not None:
            frame, message_fd = self._unsent
            self._unsent = None
            self.kennel.host.epoll.modify(self.channel.fileno(), select.EPOLLIN)
            self._send(frame, message_fd)
        if events & ~select.EPOLLOUT and not self.closed:
            self.receive()

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
            self.kennel.host.epoll.modify(self.channel.fileno(), select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            lost(self)

    def receive(self) -> None:
        """Take one record off the channel, if there is one: an answer, a breach, or its end."""
        try:
            frame, ancillary, flags, _ = self.channel.recvmsg(
                MAX_FRAME_BYTES + 1, answers.CREDENTIALS_SPACE, _MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        except OSError:
            lost(self)
            return
        if not frame and not ancillary:
            lost(self)
            return
        asked = 0 if self.answer is None or self.answer.done() or self._unsent is not None else self._n
        try:
            self.pid = answers.sender(ancillary, self.pid)
            answer = answers.read(frame, flags, asked)
        except answers.BreachError as breach:
            self.fail("protocol", str(breach))
            return
        if answer.error:
            self.fail("memory" if answer.error.startswith("MemoryError") else "exception", answer.error)
            return
        if self.hidden and answer.log:
            answer = msgspec.structs.replace(answer, log=tuple(map(self._scrubbed, answer.log)))
        waiting, self.answer = self.answer, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # --- its end ------------------------------------------------------------------------------------

    def fail(self, why: str, detail: str) -> None:
        if self.failure is None:
            self.failure = (why, self._scrubbed(detail) if self.hidden else detail)
        self.close()
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(CallFailed(*self.failure))

    def _printed(self, text: bytes) -> None:
        shown = output.escape(text)
        if self.hidden:
            shown = self._scrubbed(shown)  # before it is cut: half a password would not be found
        self.last_output = output.last_lines(shown)
        kennel = self.kennel
        meter = kennel.meter
        if meter.take(len(text), time.monotonic()):
            dropped, meter.dropped = meter.dropped, 0
            kennel.host.on_output(self.plugin, self.session, self.pid, shown, dropped)


_PROCESS = (
    *("_asking", "_leash", "_output", "_served", "_size"),
    *("channel", "hidden", "id", "kennel", "pid", "theirs"),
)
"""What of a Sandbox belongs to its process, not to a session."""
