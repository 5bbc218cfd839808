"""How does a process tell admin what the log is told, without ever waiting? For `forkd explain`.

A Tracer observes the log (log.observe): every event about a session or a message is kept for a moment, then
what happened to each of them leaves together in one record (messages_trace.py). What admin does not take is
kept up to KEPT events, then dropped and counted, so that the store knows what it does not know.

Measured (2 CPUs, 20 sessions, one message of 4 KiB each, no plugin; trace.keep 1d beside 0s): 52 of 625 µs of
CPU per message over all processes (python -m tests.bench O). When the processes were measured apart: 8 of the
worker's 450, where a client waits, and 17 to 30 of admin's, where nobody does.
Events are encoded once, here; admin keeps them as they came and reads none until somebody asks.
"""

from __future__ import annotations

import asyncio
import collections
import re
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from forkd.rpc.channel import encode
from forkd.rpc.messages_trace import ID, Event, Story, Traces
from forkd.rpc.start import RoleStart

FLUSH_S = 0.1
"""How long an event may wait for others: a session of one message is one story then, as a rule."""
KEPT = 5000
"""Events that wait for admin, at most: some megabytes, ten seconds of a busy worker."""
RECORD_BYTES = 48_000
"""Of stories in one record, below channel.MAX_RECORD_BYTES."""
MAX_EVENT_BYTES = 8192
"""A longer event is cut."""
STILL_THERE_S = 2.0
"""Without an event a record says so often that the process is there (cli/explain_story.py waits longer)."""

BESIDE_BYTES = socket.CMSG_SPACE(struct.calcsize("3i"))
"""What recvmsg() needs for pid_of()."""

PROBE = "@probe"
"""Of forkd's own probe nothing is told (forkd/probe/configured.py, NAME)."""

_encoder = msgspec.msgpack.Encoder(enc_hook=str)
_is_id = re.compile(ID).match


class Tracer:
    """One process' way to admin. Called on any thread; flush() on one alone.

    sock    write end of the pair, shared with others: never made non-blocking, each send says it
    writer  our name in the log
    soon    called when an event begins to wait: flush() is to be called FLUSH_S later
    """

    def __init__(self, sock: socket.socket, writer: str, soon: Callable[[], object] = lambda: None) -> None:
        self._socket = sock
        self._writer = writer
        self._since = time.time()
        self._soon = soon
        self._soon_called = False
        self._waiting: collections.deque[Event] = collections.deque()
        self._unsent: tuple[bytes, int] | None = None
        """A record that the socket had no room for, and its events."""
        self._told = 0
        self._dropped = 0
        self._told_at = 0.0

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        """Observe an event (logwriter.Observer)."""
        if "session" not in fields and "id" not in fields:
            return
        if event == "debug" or fields.get("plugin") == PROBE or fields.get("listener") == PROBE:
            return
        if len(self._waiting) >= KEPT:
            self._dropped += 1  # two threads may count as one here: it is many, not how many, that matters
            return
        self._waiting.append((time.time(), event, fields))
        if not self._soon_called:
            self._soon_called = True
            self._soon()

    @property
    def waits(self) -> bool:
        """There is something to flush."""
        return bool(self._waiting) or self._unsent is not None

    def flush(self) -> bool:
        """Send what waits, as far as it goes without waiting; true when nothing is left."""
        self._soon_called = False
        while True:
            if self._unsent is None:
                self._unsent = self._next()
            if self._unsent is None:
                return True
            octets, count = self._unsent
            if not self._send(octets):
                return False
            self._unsent = None
            self._told += count

    def finish(self) -> None:
        """The process ends: send what is left, and that it ended in order."""
        if self.flush():
            self._send(self._record((), 0, ended=True))

    def _send(self, record: bytes) -> bool:
        try:
            self._socket.send(record, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            pass  # nobody has the other end: master is gone, and there will be nobody to ask
        self._told_at = time.monotonic()
        return True

    def _record(self, stories: Iterable[Story], count: int, *, ended: bool = False) -> bytes:
        dropped, self._dropped = self._dropped, 0
        return encode(
            Traces(
                writer=self._writer,
                since=self._since,
                before=self._told,
                count=count,
                dropped=dropped,
                stories=tuple(stories),
                ended=ended,
            )
        )

    def _next(self) -> tuple[bytes, int] | None:
        """The next record, and how many events it has; None: there is nothing to tell."""
        if not self._waiting and time.monotonic() - self._told_at < STILL_THERE_S:
            return None
        gathered: dict[str, _Gathered] = {}
        room, count = RECORD_BYTES, 0
        while self._waiting and room > 0:
            event = self._waiting.popleft()
            id_ = str(event[2].get("id") or "")
            key = str(event[2].get("session") or id_)
            count += 1
            story = gathered.get(key)
            if story is None and not _is_id(key):
                continue  # the name of a stray file, say
            octets = _encoded(event)
            if story is None:
                story = gathered[key] = _Gathered(event[0])
                room -= 60
            story.add(event[1], "" if id_ == key else id_, octets)
            room -= len(octets)
        return self._record((story.told(key) for key, story in gathered.items()), count), count


class _Gathered:
    """A story while its events are collected."""

    __slots__ = ("at", "begins", "events", "ids")

    def __init__(self, at: float) -> None:
        self.at = at
        self.begins = False
        self.ids: list[str] = []
        self.events: list[bytes] = []

    def add(self, event: str, id_: str, octets: bytes) -> None:
        self.events.append(octets)
        if event == "connected":
            self.begins = True
        elif event == "message" and _is_id(id_):  # `-`: it has none
            self.ids.append(id_)

    def told(self, key: str) -> Story:
        # An array of msgpack: its size, then one after the other what was encoded already.
        events = b"\xdd" + len(self.events).to_bytes(4, "big") + b"".join(self.events)
        return Story(key, tuple(self.ids), self.at, self.begins, msgspec.Raw(events))


def _encoded(event: Event) -> bytes:
    octets = _encode(event)
    room = 1024
    while len(octets) > MAX_EVENT_BYTES and room > 1:
        at, name, fields = event
        octets = _encode((at, name, {key: _cut(value, room) for key, value in fields.items()}))
        room //= 4
    return octets


def _encode(event: Event) -> bytes:
    try:
        return _encoder.encode(event)
    except (
        UnicodeEncodeError,
        TypeError,
        OverflowError,
    ):  # half of a surrogate pair, a value that is no value
        at, name, fields = event
        plain = {key: repr(value) for key, value in fields.items()}
        return _encoder.encode((at, name, plain))


def _cut(value: object, room: int) -> object:
    if isinstance(value, str):
        return value if len(value) <= room else value[:room] + "…"
    if isinstance(value, list | tuple):
        most = max(1, room // 32)
        kept = [_cut(item, room) for item in value[:most]]
        return kept if len(kept) == len(value) else [*kept, f"… {len(value)} in all"]
    return value


def of(start: RoleStart, soon: Callable[[], object] = lambda: None) -> Tracer | None:
    """The Tracer of a role, to be given to log.observe(); None: nobody keeps anything."""
    return Tracer(start.trace, f"{start.role}.{start.slot}", soon) if start.trace is not None else None


def on_loop(start: RoleStart, loop: asyncio.AbstractEventLoop) -> Tracer | None:
    """The same for a role with this loop: it flushes itself. The role's timer calls flush() too, once a
    second, and its end finish()."""

    def soon() -> None:
        loop.call_soon_threadsafe(loop.call_later, FLUSH_S, flush)

    def flush() -> None:
        if tracer is not None:
            tracer.flush()

    tracer = of(start, soon)
    return tracer


def pair() -> tuple[socket.socket, socket.socket]:
    """(read end, write end); the kernel tells the reader who wrote each record."""
    reads, writes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reads.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return reads, writes


def pid_of(ancillary: Iterable[tuple[int, int, bytes]]) -> int:
    """Who wrote a record, from what recvmsg() gave beside it; 0: the kernel does not say."""
    for level, kind, octets in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(octets) >= 4:
            return int(struct.unpack("i", octets[:4])[0])
    return 0
