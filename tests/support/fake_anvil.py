"""A peer that speaks anvil's side of PROTOCOL.md, with counts that the test chooses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from forkd.rpc import channel
from forkd.rpc.messages import ClientConnect, ClientCounts, FromAnvil, Happened, LastMinute, ToAnvil


class FakeAnvil:
    """`said` holds every message; `counts` answers connect, `times` (by key) answers happened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.setblocking(False)
        self.said: list[object] = []
        self.counts = ClientCounts(n=0, sessions=1, connections_last_minute=1)
        self.times: dict[str, int] = {}

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        peer, _ = await loop.sock_accept(self.listener)
        with peer:
            peer.setblocking(False)
            while record := await loop.sock_recv(peer, channel.MAX_RECORD_BYTES):
                message: ToAnvil = channel.decode(record, ToAnvil)
                self.said.append(message)
                answer: FromAnvil | None = None
                if isinstance(message, ClientConnect):
                    answer = msgspec.structs.replace(self.counts, n=message.n)
                elif isinstance(message, Happened) and message.n:
                    times = tuple(self.times.get(key, message.times) for key in message.keys)
                    answer = LastMinute(n=message.n, times=times)
                if answer is not None:
                    await loop.sock_sendall(peer, channel.encode(answer))


@contextlib.asynccontextmanager
async def fake_anvil(folder: Path) -> AsyncIterator[tuple[FakeAnvil, channel.RequestClient]]:
    """The peer, served, and a worker's way to it."""
    anvil = FakeAnvil(folder / "anvil.sock")
    serving = asyncio.create_task(anvil.serve())
    client = channel.RequestClient(asyncio.get_running_loop(), str(anvil.path), FromAnvil)
    try:
        yield anvil, client
    finally:
        client.close()
        serving.cancel()
        anvil.listener.close()


def nobody(folder: Path) -> channel.RequestClient:
    """A way to an anvil that is away."""
    return channel.RequestClient(asyncio.get_running_loop(), str(folder / "nobody"), FromAnvil)
