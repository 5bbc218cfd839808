"""A next hop for tests: a real SMTP or LMTP server on a socket, which says and does what a script tells it.

    async with NextHop({"RCPT": [b"250 ok", b"550 5.1.1 no"]}) as server:
        server.port, server.mails, server.dialogues

A script has, for each moment, what is done at it the first time, the second …; the last one goes on for ever.
Moments: `GREETING`, a verb, `BODY` (behind 354, once `body_octets` of the message have come), `TLS` (behind
the answer to STARTTLS), `.` (the end of the message; in LMTP once for each recipient that was accepted).

    b"…"         is said, with CRLF
    STALL        nothing, until the client goes away
    DROP         the connection is closed; RESET: as if the power failed there
    (a, b, …)    one after the other
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import socket
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class Act(enum.Enum):
    STALL = "stall"
    DROP = "drop"
    RESET = "reset"


STALL, DROP, RESET = Act
Step = bytes | Act | tuple["bytes | Act", ...]


def keywords(*words: str) -> tuple[bytes, ...]:
    """The reply to EHLO that offers those."""
    lines = ["mx.test", *words]
    return tuple(f"250{' ' if n == len(lines) else '-'}{line}".encode() for n, line in enumerate(lines, 1))


EHLO = keywords("PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 100000000", "ENHANCEDSTATUSCODES")
PLAIN = keywords()


@dataclasses.dataclass
class Mail:
    """One transaction that was ended as a transaction is."""

    sender: str
    recipients: list[str]
    message: bytes


@dataclasses.dataclass
class Dialogue:
    """One connection."""

    heard: list[bytes] = dataclasses.field(default_factory=list)
    """Lines, but not those of messages."""
    mails: list[Mail] = dataclasses.field(default_factory=list)
    octets: int = 0
    """Of messages, whether they came to an end or not."""
    tls: bool = False
    peer: str = ""
    over: bool = False

    def verbs(self) -> list[str]:
        return [line.split(b" ")[0].upper().decode("ascii", "replace") for line in self.heard]


class _Over(Exception):  # noqa: N818
    """The dialogue is."""


class NextHop:
    """The server; serves while the context is open.

    script       see above; `EHLO` is a row of lines here, as EHLO and keywords() are
    keep         messages are kept, or only counted
    tls          for STARTTLS, or from the first octet where `implicit`
    deaf         behind 354 nothing is read
    pause_s      before each thing that is said
    """

    def __init__(
        self,
        script: Mapping[str, Sequence[Step]] | None = None,
        *,
        path: str = "",
        keep: bool = True,
        body_octets: int = 0,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        deaf: bool = False,
        pause_s: float = 0.0,
        port: int = 0,
    ) -> None:
        self.script: dict[str, list[Step]] = {verb: list(steps) for verb, steps in (script or {}).items()}
        self.dialogues: list[Dialogue] = []
        self.port = port
        self.lmtp = bool(path)
        self._path = path
        self._keep = keep
        self._body_octets = body_octets
        self._tls = tls
        self._implicit = implicit
        self._deaf = deaf
        self._pause_s = pause_s
        self.pauses: dict[str, float] = {}
        """Before what is done at that moment, beside `pause_s`."""
        self._server: asyncio.Server | None = None
        self._servings: list[_Serving] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def mails(self) -> list[Mail]:
        return [mail for dialogue in self.dialogues for mail in dialogue.mails]

    async def __aenter__(self) -> NextHop:
        context = self._tls if self._implicit else None
        if self._path:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=1 << 20)
        else:
            listener = socket.create_server(("127.0.0.1", self.port))
            self._server = await asyncio.start_server(self._serve, sock=listener, ssl=context, limit=1 << 20)
            self.port = listener.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = writer.get_extra_info("peername")
        dialogue = Dialogue(tls=self._implicit, peer=peer[0] if peer else "")
        self.dialogues.append(dialogue)
        try:
            self._servings.append(_Serving(self, dialogue, reader, writer))
            await self._servings[-1].run()
        except (_Over, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            dialogue.over = True
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    async def say(self, number: int, step: Step) -> None:
        """Out of turn, on that connection."""
        with contextlib.suppress(_Over):
            await self._servings[number].act(step)
        if step is DROP:
            self._servings[number].writer.close()

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the others go on until it holds."""
        while not condition():
            await asyncio.sleep(0.001)

    async def all_over(self) -> None:
        """Until each dialogue is: what was sent has been read, and acted on."""
        await self.until(lambda: all(dialogue.over for dialogue in self.dialogues))

    def step(self, moment: str, default: Step) -> Step:
        steps = self.script.get(moment)
        if not steps:
            return default
        return steps.pop(0) if len(steps) > 1 else steps[0]


class _Serving:
    def __init__(
        self, hop: NextHop, dialogue: Dialogue, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.hop = hop
        self.dialogue = dialogue
        self.reader = reader
        self.writer = writer
        self.sender = ""
        self.recipients: list[str] = []
        self.chunks = b""

    async def run(self) -> None:
        await self.act(self.hop.step("GREETING", b"220 mx.test ESMTP"))
        while True:
            line = await self.reader.readline()
            if not line.endswith(b"\n"):
                raise _Over
            line = line.rstrip(b"\r\n")
            self.dialogue.heard.append(line)
            verb = line.split(b" ")[0].upper().decode("ascii", "replace")
            await self.command(verb, line)

    async def command(self, verb: str, line: bytes) -> None:
        if verb in ("EHLO", "LHLO"):
            self.sender, self.recipients = "", []
            await self.act(self.hop.step("EHLO", EHLO))
        elif verb == "STARTTLS":
            await self.starttls()
        elif verb == "MAIL":
            if await self.act(self.hop.step(verb, b"250 2.1.0 ok")):
                self.sender, self.recipients = _path(line), []
        elif verb == "RCPT":
            if await self.act(self.hop.step(verb, b"250 2.1.5 ok")):
                self.recipients.append(_path(line))
        elif verb == "DATA":
            await self.data()
        elif verb == "BDAT":
            await self.bdat(line)
        elif verb == "QUIT":
            await self.act(self.hop.step(verb, b"221 2.0.0 bye"))
            raise _Over
        else:
            if verb == "RSET":
                self.recipients, self.chunks = [], b""
            await self.act(self.hop.step(verb, b"250 2.0.0 ok"))

    async def starttls(self) -> None:
        if not await self.act(self.hop.step("STARTTLS", b"220 2.0.0 go")):
            return
        step = self.hop.script.get("TLS")
        if step:
            await self.act(self.hop.step("TLS", DROP))
            return
        assert self.hop._tls is not None
        await self.writer.start_tls(self.hop._tls)
        self.dialogue.tls = True

    async def data(self) -> None:
        step = self.hop.step("DATA", b"354 go on" if self.recipients else b"554 5.5.1 nobody")
        if not await self.act(step) or not (isinstance(step, bytes) and step.startswith(b"354")):
            return
        if self.hop._deaf:
            await asyncio.Event().wait()
        kept = bytearray()
        acted = False
        while True:
            line = await self.reader.readline()
            if not line.endswith(b"\n"):
                raise _Over
            if line == b".\r\n":
                break
            self.dialogue.octets += len(line)
            if self.hop._keep:
                kept += line[1:] if line.startswith(b".") else line
            if not acted and self.dialogue.octets > self.hop._body_octets and "BODY" in self.hop.script:
                acted = True
                await self.act(self.hop.step("BODY", b""))
        await self.ended(bytes(kept))

    async def bdat(self, line: bytes) -> None:
        words = line.split()
        octets = await self.reader.readexactly(int(words[1]))
        self.dialogue.octets += len(octets)
        if self.hop._keep:
            self.chunks += octets
        if words[-1].upper() == b"LAST":
            chunks, self.chunks = self.chunks, b""
            await self.ended(chunks)
        else:
            await self.act(self.hop.step("BDAT", b"250 2.0.0 more"))

    async def ended(self, message: bytes) -> None:
        recipients, self.recipients = self.recipients, []
        if not recipients:
            await self.act(self.hop.step(".", b"554 5.5.1 nobody"))
            return
        taken = []
        await asyncio.sleep(self.hop.pauses.get(".", 0.0))
        for each in recipients if self.hop.lmtp else [None]:
            if await self.act(self.hop.step(".", b"250 2.0.0 taken")):
                taken += recipients if each is None else [each]
        if taken:
            self.dialogue.mails.append(Mail(self.sender, taken, message))

    async def act(self, step: Step) -> bool:
        """Do it; whether the last thing said was yes."""
        yes = False
        for each in step if isinstance(step, tuple) else (step,):
            if each is STALL:
                while await self.reader.read(65536):
                    pass
                raise _Over
            if each is DROP:
                raise _Over
            if each is RESET:
                raw = self.writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.writer.transport.abort()
                raise _Over
            assert isinstance(each, bytes)
            if each:
                await asyncio.sleep(self.hop._pause_s)
                self.writer.write(each + b"\r\n")
                await self.writer.drain()
            yes = each[:1] in (b"2", b"3")
        return yes


def _path(line: bytes) -> str:
    return line[line.index(b"<") + 1 : line.index(b">")].decode()
