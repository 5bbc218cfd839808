"""Who comes in, and how the doors close (worker/doors.py)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable

from forkd.rpc import hush
from forkd.worker.doors import Doors
from tests.support.working import run

MOST = 5000


class Coming(asyncio.Protocol):
    """A session: it is one from connection_made() on."""

    made = 0

    def __init__(self, then: Callable[[], object]) -> None:
        self._then = then

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Coming.made += 1
        self.transport = transport
        self._then()

    def connection_lost(self, exc: Exception | None) -> None: ...


class Street:
    """A listening socket that others have too, its doors, and all clients that knock."""

    def __init__(self, *listeners: socket.socket, full: bool = False) -> None:
        self.full = full
        self.sessions: list[Coming] = []
        self.clients: list[socket.socket] = []
        self.address = listeners[0].getsockname()
        self.then: Callable[[], object] = lambda: None
        Coming.made = 0
        self.doors = Doors(
            asyncio.get_running_loop(),
            {f"l{number}": (sock, 100) for number, sock in enumerate(listeners)},
            welcome=self.welcome,
            full=lambda _: self.full,
        )

    def welcome(self, _name: str) -> asyncio.Protocol:
        self.sessions.append(Coming(self.then))
        return self.sessions[-1]

    def knock(self) -> None:
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(self.address)
        self.clients.append(client)

    def close(self) -> None:
        for session in self.sessions:
            session.transport.abort()
        for client in self.clients:
            client.close()


@contextlib.asynccontextmanager
async def street(*listeners: socket.socket, full: bool = False) -> AsyncIterator[Street]:
    made = Street(*listeners, full=full)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0), backlog=1000)
    sock.setblocking(False)
    return sock


def test_a_flood_does_not_keep_them_open():
    """Each who is let in brings the next one: there is always somebody coming. All that were let in are
    served, the rest are for whoever else has the socket."""

    async def test() -> None:
        sock = listening()
        with sock.dup() as others:
            async with street(sock) as here:
                await here.doors.begin()
                here.then = lambda: len(here.clients) < MOST and here.knock()
                here.knock()
                while len(here.sessions) < 10:
                    await asyncio.sleep(0)
                await here.doors.leave()
                assert len(here.clients) < MOST
                assert Coming.made == len(here.sessions)
                count = len(here.sessions)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        others.accept()[0].close()
                        count += 1
                assert count == len(here.clients), "nobody was cut off"

    run(test())


def test_whom_the_kernel_has_for_a_socket_that_ends_is_let_in():
    """Nobody else will: it would reset them."""

    async def test() -> None:
        sock = listening()
        async with street(sock, full=True) as here:
            for _ in range(3):
                here.knock()
            hush.hush(sock)
            here.knock()
            await here.doors.leave()
            assert Coming.made == 3

    run(test())


def test_whom_the_kernel_has_for_a_socket_that_lives_on_is_left_to_others():
    async def test() -> None:
        sock = listening()
        with sock.dup() as others:
            async with street(sock) as here:
                here.knock()
                await here.doors.leave()
                assert here.sessions == []
                others.accept()[0].close()

    run(test())


class Scarce(socket.socket):
    """One of which there is no copy while descriptors are scarce."""

    scarce = False

    def dup(self) -> socket.socket:
        if self.scarce:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().dup()


def test_without_descriptors_they_open_as_far_as_they_can_and_later_wholly():
    """A worker that is full of sessions may have none left when it opens again."""

    async def test() -> None:
        first = listening()
        second = Scarce(fileno=listening().detach())
        async with street(first, second, full=True) as here:
            await here.doors.begin()
            here.doors.elsewhere = True
            here.doors.look()
            assert not here.doors.open
            here.full, second.scarce = False, True
            for _ in range(2):
                here.doors.look()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert not here.doors.open
            here.knock()
            while not here.sessions:
                await asyncio.sleep(0)
            second.scarce = False
            here.doors.look()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert here.doors.open
            await here.doors.leave()

    run(test())
