"""Dovecot's auth protocol: the lines, and the client that outlives its server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from forkd.auth import dovecot_lines
from forkd.auth.dovecot import Client
from forkd.auth.dovecot_lines import Continue, Dialogue, Ready, Right, Unreachable, Wrong

GREETING = (
    b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tscram-sha-256\tmutual-auth\n"
    b"SPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n"
)
TALK = (
    GREETING + b"CONT\t1\tcj1h\nOK\t1\tuser=anna\tnologin\nFAIL\t2\tuser=otto\n"
    b"FAIL\t3\ttemp\treason=no\x01tlookup\nFAIL\t4\tcode=temp_fail\nNEWS\t5\nCONT\t6\t\n"
)
EVENTS = [
    Ready(frozenset({"PLAIN", "SCRAM-SHA-256"})),
    Continue(1, b"r=a"),
    Right(1, "anna"),
    Wrong(2, False, ""),
    Wrong(3, True, "no\tlookup"),
    Wrong(4, True, "temp_fail"),
    Continue(6, b""),
]


def test_lines_become_events():
    """VERSION, MECH, DONE, CONT, OK, FAIL; what is not known is passed over."""
    assert Dialogue().receive(TALK) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_lines_may_be_cut_anywhere(size: int):
    """A stream has no borders."""
    dialogue = Dialogue()
    events = []
    for at in range(0, len(TALK), size):
        events += dialogue.receive(TALK[at : at + size])
    assert events == EVENTS


@pytest.mark.parametrize(
    "line",
    [b"VERSION\t2\t0\n", b"OK\tx\n", b"CONT\t1\t!!\n", b"FAIL\t99999999999\n", b"x" * 40_000],
    ids=["version", "no number", "no base64", "huge number", "endless"],
)
def test_another_language_is_not_understood(line: bytes):
    """Nothing is guessed: 454 for who waits."""
    with pytest.raises(Unreachable):
        Dialogue().receive(line)


def test_what_the_client_says():
    """resp comes last; tabs and line ends in a value are escaped; too long is not sent."""
    assert dovecot_lines.auth_line(7, "PLAIN", ["secured", "session=a\tb\nc"], b"\0u\0p") == (
        b"AUTH\t7\tPLAIN\tservice=smtp\tsecured\tsession=a\x01tb\x01nc\tresp=AHUAcA==\n"
    )
    assert dovecot_lines.auth_line(8, "PLAIN", [], None) == b"AUTH\t8\tPLAIN\tservice=smtp\n"
    assert dovecot_lines.cont_line(7, b"") == b"CONT\t7\t\n"
    assert dovecot_lines.cancel_line(7) == b"CANCEL\t7\n"
    with pytest.raises(ValueError, match="longer"):
        dovecot_lines.auth_line(1, "PLAIN", [], bytes(9000))


# --- on a socket ---------------------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(path: Path, serve: Serve, greeting: bytes = GREETING) -> AsyncIterator[None]:
    """A stand-in for Dovecot: greets, then `serve`; at the end every connection is closed."""
    talks: list[asyncio.Task[None]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            writer.write(greeting)
            await reader.readline()
            await serve(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    listening = await asyncio.start_unix_server(connected, str(path))
    try:
        yield
    finally:
        listening.close()
        await listening.wait_closed()
        path.unlink(missing_ok=True)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """right -> OK, wrong -> FAIL, scram -> a challenge, hang -> nothing, leave -> hang up."""
    while line := await reader.readline():
        if line.startswith(b"CPID"):
            continue
        verb, n, *rest = line.decode().rstrip("\n").split("\t")
        data = base64.b64decode(rest[-1].removeprefix("resp=")) if rest else b""
        match verb, data:
            case "AUTH", b"right":
                writer.write(f"OK\t{n}\tuser=Anna\n".encode())
            case "AUTH", b"wrong":
                writer.write(f"FAIL\t{n}\tuser=anna\n".encode())
            case "AUTH", b"scram":
                writer.write(f"CONT\t{n}\t{base64.b64encode(b'nonce').decode()}\n".encode())
            case "CONT", b"proof":
                writer.write(f"OK\t{n}\tuser=anna\n".encode())
            case "AUTH", b"leave":
                return
            case "CANCEL", _:
                writer.write(f"OK\t{n}\tuser=nobody\n".encode())


@pytest.fixture
def socket_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder) / "auth"


async def ask(client: Client, what: bytes) -> object:
    return await (await client.begin("PLAIN", [], what)).answer()


def test_many_ask_on_one_connection(socket_path: Path):
    """Answers find who asked, whatever their order; one connection for all."""

    async def run() -> None:
        states: list[str] = []
        client = Client(socket_path, on_state=lambda act, _: states.append(act))
        async with server(socket_path, answers):
            told = await asyncio.gather(*(ask(client, what) for what in (b"right", b"wrong") * 10))
            assert [type(each) for each in told] == [Right, Wrong] * 10
            exchange = await client.begin("SCRAM-SHA-256", [], b"scram")
            assert await exchange.answer() == Continue(exchange.n, b"nonce")
            exchange.respond(b"proof")
            assert await exchange.answer() == Right(exchange.n, "anna")
            client.close()
        assert states == ["connected"]

    asyncio.run(run())


def test_the_server_may_come_and_go(socket_path: Path):
    """Not there: said once; there: found; gone: who waits hears it; there again: found."""

    async def run() -> None:
        states: list[str] = []
        client = Client(socket_path, on_state=lambda act, _: states.append(act))
        for _ in range(3):
            with pytest.raises(Unreachable):
                await ask(client, b"right")
        for _ in range(2):
            async with server(socket_path, answers):
                await _until_found(client)
                hanging = asyncio.create_task(ask(client, b"hang"))
                with pytest.raises(Unreachable):
                    await ask(client, b"leave")
                with pytest.raises(Unreachable):
                    await hanging
        assert states == ["unreachable", "connected", "lost", "connected", "lost"]
        client.close()

    asyncio.run(run())


async def _until_found(client: Client) -> None:
    while True:
        try:
            assert isinstance(await ask(client, b"right"), Right)
            return
        except Unreachable:
            await asyncio.sleep(0.01)


def test_who_gives_up_is_forgotten(socket_path: Path):
    """CANCEL is sent, a late answer is nobody's."""

    async def run() -> None:
        client = Client(socket_path)
        async with server(socket_path, answers):
            task = asyncio.create_task(ask(client, b"hang"))
            while not client._waiting:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not client._waiting
            assert isinstance(await ask(client, b"right"), Right)
            client.close()

    asyncio.run(run())


def test_a_server_that_speaks_something_else(socket_path: Path):
    """Wrong version: Unreachable with the reason, and no endless tries."""

    async def run() -> None:
        client = Client(socket_path)
        async with server(socket_path, answers, b"VERSION\t3\t0\n"):
            with pytest.raises(Unreachable, match="version 3"):
                await ask(client, b"right")
            with pytest.raises(Unreachable, match="a moment ago"):
                await ask(client, b"right")
        client.close()

    asyncio.run(run())
