"""How does a plugin get a connection to a target of the admin's? We connect, and hand the socket over.

What goes over is always a connected stream socket: nothing that listens, no datagrams. The plugin acts as
forkd towards the target; what it says there the target must bear.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from typing import Any, Final

TIMEOUT_S: Final = 5.0
"""For one connection, the look-up of a host's name with it."""


class TargetError(ValueError):
    """The admin wrote no address."""


class TargetUnavailable(Exception):  # noqa: N818 - a state of the world
    """There was no connection; the text is for the plugin's author: what the system said."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where a target is: path of a unix socket, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0


def parse(text: str) -> Target:
    """ "HOST:PORT", "[::1]:3310" or "unix:/path". Raises TargetError."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise TargetError(f"{text}: the path of a unix socket begins with /")
        return Target(path=path)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise TargetError(f'{text}: a target is "HOST:PORT" or "unix:/path"')
    return Target(host=host, port=int(port))


async def connect(target: Target) -> socket.socket:
    """A connected stream socket, blocking as a plugin expects it; the caller closes it.

    Raises TargetUnavailable, after TIMEOUT_S at most.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if target.path:
                return await _try(loop, socket.AF_UNIX, target.path)
            problem = OSError("no address")
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            for family, _, _, _, address in found:
                try:
                    return await _try(loop, family, address)
                except OSError as error:
                    problem = error
            raise problem
    except TimeoutError:
        raise TargetUnavailable(f"no connection within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise TargetUnavailable(error.strerror or str(error)) from error


async def _try(loop: asyncio.AbstractEventLoop, family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setblocking(False)
        await loop.sock_connect(made, address)
        made.setblocking(True)
    except BaseException:
        made.close()
        raise
    return made
