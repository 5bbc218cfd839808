"""What does a worker hold of one sandbox? Its channel, leash and output, and how a call ends.

What comes up a channel is hostile (answers.py): an answer, or a breach of the protocol. A breach, a deadline
and a death all end the same way: CallFailed, leash dropped, the sandbox gone.
"""

from __future__ import annotations

import _socket
import asyncio
import os
import select
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING

from forkd.rpc.calls import MAX_FRAME_BYTES, Answer, CallFailed
from forkd.sandbox import answers, output, wear
from forkd.sandbox.link import refuse_descriptors
from forkd.sandbox.report import cause, report
from forkd.sandbox.wire import Death

if TYPE_CHECKING:
    from forkd.sandbox.kennel import Kennel
    from forkd.sandbox.shares import Place

LINGER_S = 0.01
"""End of file on a channel: who ends is reported within that; who only closed it is killed."""
REPORT_WAIT_S = 0.05
"""How long a call whose sandbox was killed for that waits for the zygote's word; its client fails anyway."""

# Plain numbers: an operation on socket's enumerations costs a microsecond each.
_MSG_DONTWAIT, _MSG_PEEK = int(socket.MSG_DONTWAIT), int(socket.MSG_PEEK)


class Sandbox:
    """The worker's end of one sandbox, for one session.

    pid          as the kernel says with its first answer; 0 until then.
    last_output  the last lines it printed, escaped and bounded; filled when it has failed or was closed.
    """

    __slots__ = (
        "_answer",
        "_failure",
        "_gone",
        "_kennel",
        "_leash",
        "_lingered",
        "_n",
        "_output",
        "_served",
        "_size",
        "_unsent",
        "channel",
        "closed",
        "id",
        "last_output",
        "pid",
        "place",
        "session",
        "theirs",
    )

    def __init__(self, kennel: Kennel, id_: int) -> None:
        self._kennel = kennel
        self.id = id_
        self.session = ""
        self.place: Place | None = None
        self.pid = 0
        self.last_output = ""
        self._served = 0
        self._size = 0
        self._answer: asyncio.Future[Answer] | None = None
        self._n = 0
        self._unsent: tuple[bytes, int] | None = None
        self._failure: tuple[str, str] | None = None
        self.closed = False
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
        if self.closed:
            raise CallFailed("unavailable", "the sandbox was closed")
        if self.pid and not self._gone:
            # Whatever it sent since its last answer was sent unasked: never the answer to this call.
            self._receive()
            if self._failure is not None:
                raise CallFailed(*self._failure)
        loop = self._kennel.host.loop
        place = self.place
        if place is not None:
            place.idle_since = None
        self._n = n
        answer = self._answer = loop.create_future()
        timer = loop.call_later(timeout_s, self._late, timeout_s)
        self._send(frame, message_fd)
        try:
            result: Answer = await answer
            return result
        except asyncio.CancelledError:
            self.fail("unavailable", "the call was cancelled")
            raise
        finally:
            timer.cancel()
            self._answer = None
            if place is not None:
                place.idle_since = loop.time()

    def begin(self, place: Place) -> None:
        """Serve the session that holds `place`, from now on."""
        self.place = place
        self.session = place.session
        self._served += 1

    def release(self) -> None:
        """The session is over (or, with limits.fresh "call", the call). Idempotent, never raises.

        With limits.reuse = 1 the sandbox is killed, as by close(). With more it may serve another session
        of the same plugin, `reuse` in all, and this object is dead. What that means for the limits: the CPU
        timer counts the process, so it is armed with two allowances, and a sandbox that has used one
        serves no further session: a session has at least its allowance, at most twice that. Memory is
        one allowance for the sandbox's whole life, and who has used half of it serves no further
        session. Who fails, or says anything while nobody asks, is killed.
        """
        if not self.closed and not self._kennel.rest(self):
            self.close()

    def close(self) -> None:
        """Drop the leash: the kernel kills the sandbox at once. Idempotent, never raises."""
        if self.closed:
            return
        self.closed = True
        kennel = self._kennel
        if self.pid:
            kennel.host.watch_death(self)
        if text := output.read(self._output):
            self._printed(text)
        os.close(self._leash)
        kennel.host.forget(self.channel.fileno())
        self.channel.close()
        os.close(self._output)
        kennel.released(self)

    # --- from one session to the next -----------------------------------------------------------------

    def may_serve_again(self) -> bool:
        """Is it as fit for another session as the limits ask? Costs two system calls."""
        plugin = self._kennel.plugin
        if self._served >= plugin.reuse or not self.pid or self._gone or self._answer is not None:
            return False
        if self._failure is not None or not self.silent():
            return False
        if wear.processor_s(self.pid) >= plugin.cpu_s:
            return False
        size = wear.address_space(self.pid)
        if not self._size:
            self._size = size
        return size - self._size < plugin.memory // 2

    def behaved(self) -> bool:
        """It answered, and did nothing that ends a sandbox."""
        return self.pid > 0 and self._failure is None and not self._gone

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
        heir.place = heir._answer = heir._unsent = heir._failure = None
        heir._n = 0
        heir.closed = heir._gone = heir._lingered = False
        self.closed = True
        return heir

    # --- what the channel brings -------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """The channel can be read, or written where something waits."""
        if events & select.EPOLLOUT and self._unsent is not None:
            frame, message_fd = self._unsent
            self._unsent = None
            self._kennel.host.epoll.modify(self.channel.fileno(), select.EPOLLIN)
            self._send(frame, message_fd)
        if events & ~select.EPOLLOUT and not self.closed:
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
            self._kennel.host.epoll.modify(self.channel.fileno(), select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self._lost()

    def _receive(self) -> None:
        try:
            frame, ancillary, flags, _ = self.channel.recvmsg(
                MAX_FRAME_BYTES + 1, answers.CREDENTIALS_SPACE, _MSG_DONTWAIT
            )
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        if not frame and not ancillary:
            self._lost()
            return
        asked = 0 if self._answer is None or self._answer.done() or self._unsent is not None else self._n
        try:
            self.pid = answers.sender(ancillary, self.pid)
            answer = answers.read(frame, flags, asked)
        except answers.BreachError as breach:
            self.fail("protocol", str(breach))
            return
        if answer.error:
            self.fail("memory" if answer.error.startswith("MemoryError") else "exception", answer.error)
            return
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # --- ends ---------------------------------------------------------------------------------------

    def _late(self, timeout_s: float) -> None:
        if self.closed and self._failure is None and self._answer is not None:
            # It died, and the zygote has not said how within the call's time.
            self.fail("crash", "the sandbox ended without an answer")
        else:
            self.fail("deadline", f"no answer within {timeout_s:g} s")

    def _lost(self) -> None:
        """End of file: it is dead or has closed its channel. Wait a moment for the zygote's word on how."""
        if self.closed or self._gone:
            return
        self._gone = True
        kennel = self._kennel
        if kennel.connected:
            kennel.host.forget(self.channel.fileno())
            kennel.unspare(self)
            kennel.host.loop.call_later(LINGER_S, self._linger)
        else:
            self.ended(None)

    def _linger(self) -> None:
        """Not reported dead in time: it closed its channel and lives, or the machine is slow."""
        if self.closed:
            return
        self._lingered = True
        self.close()
        self._kennel.host.loop.call_later(REPORT_WAIT_S, self.ended, None)

    def ended(self, death: Death | None) -> None:
        """Its death was reported, or will not be in time."""
        if self._failure is not None:
            return
        if death is None:
            self.fail("crash" if self.pid else "unavailable", "the sandbox ended without an answer")
        elif self._lingered and os.WIFSIGNALED(death.status) and os.WTERMSIG(death.status) == signal.SIGKILL:
            self.fail("crash", "it closed its channel without an answer, and was killed")
        else:
            self.fail(*cause(death, cpu_s=self._kennel.plugin.cpu_s))

    def died(self, death: Death) -> None:
        """The zygote reports its death."""
        ours = self.closed and not self._gone
        self._kennel.host.on_report(report(death, plugin=self.plugin, session=self.session, ours=ours))
        if not ours:
            # The end of file may still be to come, or a call may wait for this word.
            self._gone = True
            self.close()
            self.ended(death)

    def fail(self, why: str, detail: str) -> None:
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
            kennel.host.on_output(self.plugin, self.session, self.pid, shown, dropped)


_PROCESS = ("_kennel", "_leash", "_output", "_served", "_size", "channel", "id", "pid", "theirs")
"""What of a Sandbox belongs to its process, not to a session."""
