"""Attacks 54 to 61: a plugin has no network, no socket of the machine, no side channel."""

from __future__ import annotations

import pytest

from tests.escapes.attack import Attack, perform
from tests.support.sandboxes import MODES

ATTACKS = (
    Attack(
        name="54-58 every kind of socket",
        code="""
def attack(_):
    kinds = [(f, t) for f in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK,
                              socket.AF_PACKET, 38, 40)
             for t in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW)]
    return " ".join(sorted({tried(socket.socket, *kind) for kind in kinds}))
""",
        says="EACCES",
    ),
    Attack(
        name="54-58 connect, bind and listen on the channel it has",
        code="""
def attack(_):
    channel = socket.socket(fileno=3)
    said = (
        tried(channel.connect, b"\\0name"), tried(channel.connect, "/run/docker.sock"),
        tried(channel.bind, b"\\0name"),
        tried(channel.listen, 1), tried(channel.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20),
        tried(channel.sendto, b"x", "/run/systemd/notify"),
    )
    channel.detach()
    return " ".join(said)
""",
        says="EACCES EACCES EACCES EACCES EACCES EACCES",
    ),
    Attack(
        name="59 names through libc",
        code="""
def attack(_):
    return tried(socket.gethostbyname, "example.org") + " " + tried(socket.getaddrinfo, "example.org", 25)
""",
        says="(gaierror|herror|EAI\\w*|\\w+) (gaierror|\\w+)",
        timeout_s=2.0,
    ),
    Attack(
        name="60 pipes and pairs",
        code="""
def attack(_):
    return " ".join((tried(socket.socketpair), tried(os.pipe), tried(os.eventfd, 0)))
""",
        says="EACCES EPERM EPERM",
    ),
    Attack(
        name="61 descriptors upward",
        code="""
def attack(_):
    channel = socket.socket(fileno=3)
    said = [tried(socket.send_fds, channel, [b"x"], [0] * count) for count in (1, 50, 253)]
    channel.detach()
    return " ".join(said)
""",
        says="EPERM EPERM EPERM",
    ),
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_there_is_no_network(attack: Attack, mode: str):
    """Sandbox.md, "Layers": no socket can be made; what Landlock adds is shown by the self-test alone."""
    perform(attack, mode)
