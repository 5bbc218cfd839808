"""aiosmtpd on uvloop as a peer. usage: aiosmtpd_server.py PORT PROCESSES {sink,durable,checks,hooks} FOLDER

sink     accepts and discards
durable  a Maildir by hand: file and folder are synced before 250
checks   durable, with checks at MAIL, RCPT and end of data in handler methods, in the server's process;
         the recipients abort@, exit@, raise@, sleep@, spin@ and segv@ make them misbehave
hooks    the same checks, then discards
"""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import os
import socket
import sys
import time
from pathlib import Path

import uvloop
from aiosmtpd.smtp import SMTP, Envelope, Session


def misbehave(word: str) -> None:
    if word == "abort":
        os.abort()
    if word == "exit":
        os._exit(1)
    if word == "raise":
        raise RuntimeError("bug in the handler")
    if word == "segv":
        faulthandler._sigsegv()  # type: ignore[attr-defined]
    if word == "sleep":
        time.sleep(1e6)
    while word == "spin":
        pass


class Sink:
    """Accept, discard."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        return "250 OK"


class Durable:
    """250 only when the message and its name are on disk."""

    numbers = itertools.count()

    def __init__(self, folder: str) -> None:
        self.folder = folder
        for name in ("tmp", "new"):
            Path(folder, name).mkdir(parents=True, exist_ok=True)
        self.new = os.open(f"{folder}/new", os.O_RDONLY)

    def put(self, content: bytes) -> None:
        name = f"{time.time_ns()}.{os.getpid()}.{next(self.numbers)}"
        fd = os.open(f"{self.folder}/tmp/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(fd, content)
        os.fsync(fd)
        os.close(fd)
        os.rename(f"{self.folder}/tmp/{name}", f"{self.folder}/new/{name}")  # noqa: PTH104
        os.fsync(self.new)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        await asyncio.get_running_loop().run_in_executor(None, self.put, envelope.content)
        return "250 OK"


class Checks(Durable):
    """The three checks."""

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("bad@"):
            return "550 no"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        word = address.split("@", 1)[0]
        if word == "bad":
            return "550 no"
        misbehave(word)
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        if b"EICAR" in envelope.content:
            return "550 no"
        return await super().handle_DATA(server, session, envelope)


class Hooks(Checks):
    """The three checks, nothing kept."""

    def put(self, content: bytes) -> None:
        """Keep nothing."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        return "550 no" if b"EICAR" in envelope.content else "250 OK"


def main(port: int, processes: int, mode: str, folder: str) -> None:
    for _ in range(processes - 1):
        if os.fork() == 0:
            break
    handlers = {"durable": Durable, "checks": Checks, "hooks": Hooks}
    handler = Sink() if mode == "sink" else handlers[mode](folder)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    # Protocol named: else asyncio leaves Nagle on, and every multi-line reply costs 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))

    def session() -> SMTP:
        return SMTP(handler, hostname="test.local", loop=loop, enable_SMTPUTF8=False)

    loop.run_until_complete(loop.create_server(session, sock=listener, backlog=1024))
    loop.run_forever()


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
