"""How do many scripted SMTP sessions run in one thread, with every wait measured? Generators on epoll.

A session is a generator that yields what it wants done: Connect, Command, Sleep, Close. Connect and
Command give it back a Reply, or raise SessionError inside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import heapq
import re
import select
import socket
import time
from collections.abc import Callable, Generator
from typing import Final

now: Final = time.perf_counter
IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Of <linux/in.h>: the port is chosen by connect(), so that one port serves several servers."""
_LAST_LINE: Final = re.compile(rb"^(\d\d\d)(?: [^\n]*)?\r?\n\Z", re.M)


class SessionError(Exception):
    """kind: refused, reset, eof, timeout, or reply (another code than wanted); step: at which command."""

    def __init__(self, kind: str, step: str, code: int = 0, text: str = "", waited_s: float = 0.0) -> None:
        super().__init__(f"{kind} at {step} {text}".strip())
        self.kind = kind
        self.step = step
        self.code = code
        self.waited_s = waited_s


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """What the server said, and how long that took since the last octet was handed to the kernel."""

    code: int
    text: str
    waited_s: float


@dataclasses.dataclass(slots=True)
class Sleep:
    seconds: float


@dataclasses.dataclass(slots=True)
class Connect:
    """Connect, and wait for the greeting. `source`: the address to connect from."""

    port: int
    timeout_s: float = 30.0
    source: str = "127.0.0.1"
    name: str = "connect"
    want: int | None = 2


@dataclasses.dataclass(slots=True)
class Command:
    """Send `data`, wait for one whole reply. `want`: first digit of the code, or None for any."""

    name: str
    data: bytes
    want: int | None = 2
    timeout_s: float = 30.0


@dataclasses.dataclass(slots=True)
class Close:
    pass


Step = Sleep | Connect | Command | Close
Script = Generator[Step, Reply | None, None]


def transaction(message: bytes, recipient: str) -> tuple[Command, ...]:
    """The commands of one session with one message."""
    return (
        Command("EHLO", b"EHLO bench.test\r\n"),
        Command("MAIL", b"MAIL FROM:<a@b.c>\r\n"),
        Command("RCPT", b"RCPT TO:<%s>\r\n" % recipient.encode()),
        Command("DATA", b"DATA\r\n", want=3),
        Command("dot", message),
        Command("QUIT", b"QUIT\r\n"),
    )


def message(size: int) -> bytes:
    """About `size` octets with header and final dot."""
    head = (
        b"From: <a@b.c>\r\nTo: <rcpt@test.local>\r\nSubject: benchmark\r\n"
        b"Date: Sun, 22 Nov 2026 00:00:00 +0000\r\nMessage-Id: <1@bench.test>\r\n\r\n"
    )
    line = b"X" * 76 + b"\r\n"
    return head + line * max(1, (size - len(head)) // len(line)) + b".\r\n"


class _Session:
    __slots__ = ("buffer", "out", "script", "sequence", "sock", "state", "step", "t0")

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sock: socket.socket | None = None
        self.buffer = self.out = b""
        self.step: Step = Sleep(0)
        self.t0 = 0.0
        self.sequence = 0
        self.state = "asleep"  # asleep, connecting, waiting, failing, done


class Loop:
    """Runs sessions until all are done or a point in time is reached."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._by_fd: dict[int, _Session | Callable[[], None]] = {}
        self._timers: list[tuple[float, int, _Session, int]] = []
        self._count = 0
        self.live = 0

    def add(self, script: Script) -> None:
        """One more session; begins in run()."""
        self.live += 1
        self._timer(0, _Session(script))

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call once when `fd` becomes readable (a pidfd: when its process is dead)."""
        self._by_fd[fd] = call
        self._epoll.register(fd, select.EPOLLIN)

    def connections(self) -> int:
        """How many sessions have a connection that the server has not closed."""
        return sum(isinstance(found, _Session) for found in self._by_fd.values())

    def run(self, until: float | None = None) -> None:
        """Until all sessions are done, or until `until` on the clock now()."""
        while self.live:
            if until is not None and now() >= until:
                break
            while self._timers and self._timers[0][0] <= now():
                _, _, session, sequence = heapq.heappop(self._timers)
                if session.sequence == sequence and session.state != "done":
                    self._due(session)
            if not self.live:
                break
            wait = 1.0
            if self._timers:
                wait = min(wait, max(0.0, self._timers[0][0] - now()))
            if until is not None:
                wait = min(wait, max(0.0, until - now()))
            for fd, events in self._epoll.poll(wait, 512):
                found = self._by_fd.get(fd)
                if isinstance(found, _Session):
                    self._ready(found, events)
                elif found is not None:
                    self._epoll.unregister(fd)
                    del self._by_fd[fd]
                    found()

    def close(self) -> None:
        """Drop all connections."""
        for found in list(self._by_fd.values()):
            if isinstance(found, _Session):
                self._drop(found)
        self._epoll.close()

    def _timer(self, delay_s: float, session: _Session) -> None:
        session.sequence += 1
        self._count += 1
        heapq.heappush(self._timers, (now() + delay_s, self._count, session, session.sequence))

    def _due(self, session: _Session) -> None:
        if session.state == "asleep":
            self._go(session, None)
        elif session.state == "failing":
            self._fail(session, session.buffer.decode())
        else:
            self._fail(session, "timeout")

    def _drop(self, session: _Session) -> None:
        if session.sock is not None:
            fd = session.sock.fileno()
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(fd)
            self._by_fd.pop(fd, None)
            session.sock.close()
            session.sock = None
            session.buffer = session.out = b""

    def _go(self, session: _Session, reply: Reply | None, error: SessionError | None = None) -> None:
        session.sequence += 1  # whatever timer is set no longer counts
        try:
            step = session.script.throw(error) if error is not None else session.script.send(reply)
        except StopIteration:
            self._drop(session)
            session.state = "done"
            self.live -= 1
            return
        session.step = step
        session.t0 = now()
        if isinstance(step, Sleep):
            session.state = "asleep"
            self._timer(step.seconds, session)
        elif isinstance(step, Close):
            self._drop(session)
            session.state = "asleep"
            self._timer(0, session)
        elif isinstance(step, Connect):
            self._connect(session, step)
        elif session.sock is None:
            self._later(session, b"eof")
        else:
            session.state = "waiting"
            session.buffer = b""
            session.out = step.data
            self._timer(step.timeout_s, session)
            self._send(session)

    def _later(self, session: _Session, kind: bytes) -> None:
        session.state = "failing"
        session.buffer = kind
        self._timer(0, session)

    def _connect(self, session: _Session, step: Connect) -> None:
        self._drop(session)
        session.state = "connecting"
        sock = session.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._by_fd[sock.fileno()] = session
        try:
            if step.source != "127.0.0.1":
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((step.source, 0))
            sock.connect(("127.0.0.1", step.port))
        except BlockingIOError:
            pass
        except OSError:
            self._later(session, b"refused")
            return
        self._epoll.register(sock.fileno(), select.EPOLLOUT | select.EPOLLIN)
        self._timer(step.timeout_s, session)

    def _send(self, session: _Session) -> None:
        assert session.sock is not None
        try:
            while session.out:
                session.out = session.out[session.sock.send(session.out) :]
        except BlockingIOError:
            pass
        except OSError:
            session.out = b""  # the reading side will see why
        wanted = select.EPOLLIN | (select.EPOLLOUT if session.out else 0)
        self._epoll.modify(session.sock.fileno(), wanted)

    def _fail(self, session: _Session, kind: str, code: int = 0, text: str = "") -> None:
        name = getattr(session.step, "name", "")
        waited_s = now() - session.t0
        self._drop(session)
        self._go(session, None, SessionError(kind, name, code, text, waited_s))

    def _ready(self, session: _Session, events: int) -> None:
        sock = session.sock
        assert sock is not None
        if session.state == "connecting":
            problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                self._fail(session, "refused" if problem == errno.ECONNREFUSED else "reset")
                return
            self._epoll.modify(sock.fileno(), select.EPOLLIN)
            session.state = "waiting"
            session.buffer = b""
        if events & select.EPOLLOUT and session.out:
            self._send(session)
        if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        try:
            data = sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            self._fail(session, "reset")
            return
        if session.state != "waiting":
            if not data:
                self._drop(session)  # closed while the script slept: its next command says so
            return
        if not data:
            self._fail(session, "eof")
            return
        session.buffer += data
        match = _LAST_LINE.search(session.buffer)
        if match is None:
            return
        code, text = int(match.group(1)), session.buffer.decode("latin-1").strip()
        want = getattr(session.step, "want", None)
        if want is not None and code // 100 != want:
            self._fail(session, "reply", code, text)
            return
        session.state = "asleep"
        self._go(session, Reply(code, text, now() - session.t0))
