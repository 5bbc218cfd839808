"""When worker or zygote have nothing left to give: what was begun is undone, and nothing stays held."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forkd.rpc.calls import CallFailed, Overloaded
from forkd.sandbox.host import Host, HostPlugin


@contextmanager
def only(free: int) -> Iterator[None]:
    """This process may open `free` descriptors more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 64, limits[1]))
    pads = [lowest]
    try:
        while True:
            pads.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        pass
    try:
        for _ in range(free):
            os.close(pads.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in pads:
            os.close(fd)


def descriptors() -> int:
    """Open in this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[str]:
    """A broker's socket that takes connections and is never read."""
    path = str(tmp_path / "broker.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(16)
        yield path


def run(scenario: Callable[[Host], Coroutine[Any, Any, None]], broker: str = "") -> list[str]:
    """With a host of one plugin that has one place and no zygote; what the loop was told of bugs."""
    bugs: list[str] = []

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: bugs.append(str(context.get("exception"))))
        plugin = HostPlugin(name="p", socket_path="/missing", sandboxes=1, spare=0, broker=bool(broker))
        host = Host(loop, [plugin], broker=broker, overload_wait_s=0.01)
        try:
            await scenario(host)
        finally:
            await host.close()

    asyncio.run(whole())
    return bugs


@pytest.mark.parametrize("free", range(11))
def test_a_worker_without_descriptors_is_overloaded_and_recovers(free: int, listening: str):
    """Wherever EMFILE strikes: no descriptor stays open, and the place is free again."""

    async def scenario(host: Host) -> None:
        async def session() -> None:
            sandbox = await host.take("p", "S1")
            await asyncio.sleep(0)
            sandbox.close()

        await session()
        host.brokering.close()
        before = descriptors()
        with only(free):
            try:
                await session()
            except Overloaded as why:
                assert "open files" in str(why)
        host.brokering.close()
        assert descriptors() == before
        assert host.alive("p") == 0
        await session()

    assert run(scenario, listening) == []


def test_what_cannot_be_told_to_the_broker_holds_no_place(listening: str):
    """Nobody would give it back."""

    async def scenario(host: Host) -> None:
        with pytest.raises(UnicodeEncodeError):
            await host.take("p", "\ud800")
        assert host.alive("p") == 0
        (await host.take("p", "S2")).close()

    assert run(scenario, listening) == []


def test_a_zygote_that_cannot_be_reached_is_no_bug():
    """Each call says unavailable, and that is all: no traceback in the log."""

    async def scenario(host: Host) -> None:
        for n in range(3):
            sandbox = await host.take("p", f"S{n}")
            with pytest.raises(CallFailed, match="unavailable"):
                await sandbox.call(b"{}", 1, timeout_s=10)
            for _ in range(3):
                await asyncio.sleep(0)

    assert run(scenario) == []
