"""A worker's sessions in this process: real sockets, real spool, plugins of a fake host, no other process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from forkd.config.aliases import NO_ALIASES
from forkd.config.expansion import AliasedRecipients
from forkd.config.recipients import Recipients
from forkd.config.schema import Config, Domain, Listener, Server
from forkd.fs import REAL, Fs
from forkd.metrics_slot import Slot
from forkd.queue.envelope import Envelope
from forkd.queue.ids import Ids
from forkd.queue.spool import SpoolFile
from forkd.rpc.channel import RequestClient
from forkd.rpc.messages import FromAnvil
from forkd.smtp.reply import Reply
from forkd.worker.authenticator import Authenticator
from forkd.worker.control import Control
from forkd.worker.copies import CopyBudget
from forkd.worker.failures import Failures
from forkd.worker.measuring import Measuring
from forkd.worker.names import Resolver
from forkd.worker.rates import Rates
from forkd.worker.services import Services
from forkd.worker.session import Session
from forkd.worker.tls import Certificates
from tests.support.fake_host import FakeHost, FakePlugin, FakeSandbox, dispatcher_for
from tests.support.spooling import a_spool


def run(test: Coroutine[Any, Any, None]) -> None:
    """On the loop that workers have."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test, 20))


class Gate:
    """Where somebody waits until the test lets him go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def pass_through(self) -> None:
        self.reached.set()
        await self.open.wait()


class SlowDisk(Fs):
    """Syncs a file when it is told to."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def sync(self, fd: int) -> None:
        self.reached.set()
        assert self.open.wait(60)


class SlowHost(FakeHost):
    """Its plugins are asked when the gate is open."""

    def __init__(self, *arguments: Any, gate: Gate) -> None:
        super().__init__(*arguments)
        self._gate = gate

    async def take(self, plugin: str, session_id: str, **how: Any) -> FakeSandbox:
        await self._gate.pass_through()
        return await super().take(plugin, session_id, **how)


class GatedHop:
    """NextHop, as a session sees it: has the message, and answers when the gate is open."""

    def __init__(self, answer: Reply) -> None:
        self.gate = Gate()
        self.answer = answer
        self.had = 0

    async def deliver(self, _file: SpoolFile, _envelope: Envelope) -> Reply:
        self.had += 1
        await self.gate.pass_through()
        return self.answer

    def close(self) -> None: ...


class Client:
    """One that speaks by lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def hear(self) -> bytes:
        """One reply, its last line; empty: the connection is over."""
        while (line := await self.reader.readline())[3:4] == b"-":
            pass
        return line

    async def say(self, *lines: str) -> bytes:
        """The reply to the last of them."""
        heard = b""
        for line in lines:
            self.writer.write(f"{line}\r\n".encode())
            heard = await self.hear()
        return heard

    async def to_data(self) -> None:
        assert (await self.say("EHLO a", "MAIL FROM:<a@example.org>", "RCPT TO:<b@test.local>")).startswith(
            b"250"
        )
        assert (await self.say("DATA")).startswith(b"354")

    async def send_mail(self) -> None:
        """All of it; the reply is to come."""
        await self.to_data()
        self.writer.write(b"Subject: x\r\n\r\nhello\r\n.\r\n")

    async def rest(self) -> bytes:
        """All that still comes, until the end, however that comes."""
        heard = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(4096):
                heard += piece
        return heard


class Working:
    """`services` as a worker has them, one listener, and what admin would ask through."""

    def __init__(self, services: Services, control: Control, port: int) -> None:
        self.services = services
        self.control = control
        self.port = port
        self._clients: list[Client] = []

    async def client(self) -> Client:
        """Greeted."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        assert (await client.hear()).startswith(b"220")
        return client

    def close(self) -> None:
        """The clients' ends."""
        for client in self._clients:
            client.writer.close()

    @property
    def session(self) -> Session:
        """The only one."""
        (session,) = self.services.sessions
        return session

    @property
    def kept(self) -> list[Path]:
        """Mail that is ours."""
        return [*Path(self.services.spool.new).iterdir()]


@contextlib.asynccontextmanager
async def working(
    folder: Path,
    *,
    plugins: Sequence[FakePlugin] = (),
    host: FakeHost | None = None,
    next_hop: Any = None,
    fs: Fs = REAL,
) -> AsyncIterator[Working]:
    """A worker; of `next_hop` it has accept = "proxy"."""
    loop = asyncio.get_running_loop()
    listener = Listener(accept="queue" if next_hop is None else "proxy")
    config = msgspec.structs.replace(
        Config(),
        server=Server(hostname="mx.test.local"),
        domain={"test.local": Domain()},
        listener={"default": listener},
    )
    tasks: set[asyncio.Task[None]] = set()

    def background(work: Coroutine[Any, Any, None]) -> None:
        task = loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    anvil = RequestClient(loop, str(folder / "anvil.sock"), FromAnvil)
    rates = Rates(config.limits, workers=1, anvil=anvil)
    dispatcher = dispatcher_for(plugins, host or FakeHost({}))
    services = Services(
        config,
        loop=loop,
        slot=0,
        hostname="mx.test.local",
        poke=-1,
        dispatcher=dispatcher,
        budget=CopyBudget(config.sandbox.message_copies),
        failures=Failures(plugins, background=background, ids=Ids("w0")),  # type: ignore[arg-type]
        measuring=Measuring(Slot(-1)),
        recipients=AliasedRecipients(Recipients.from_config(config), NO_ALIASES),
        anvil=anvil,
        workers=1,
        rates=rates,
        names=Resolver(config.names, loop),
        certificates=Certificates(config, {}),
        authenticator=Authenticator(config, loop, host=None, rates=rates, dispatcher=dispatcher),  # type: ignore[arg-type]
        spool=a_spool(folder / "spool", fs=fs),
        background=background,
        next_hop=next_hop,
    )
    await services.authenticator.open(services)
    server = await loop.create_server(lambda: Session(services, "default"), "127.0.0.1", 0)
    control = Control(str(folder / "workers.sock"), services, background)
    worker = Working(services, control, server.sockets[0].getsockname()[1])
    try:
        yield worker
    finally:
        worker.close()
        control.close()
        server.close()
        for session in tuple(services.sessions):
            session.transport.abort()
        services.committer.close()
        await services.names.close()
        while services.sessions:
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        anvil.close()
