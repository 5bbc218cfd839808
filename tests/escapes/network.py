"""Attacks 54 to 61: a plugin has no network, no socket of the machine, no side channel."""

from __future__ import annotations

from tests.escapes.attack import Attack


def _sockets(name: str, *kinds: str) -> Attack:
    """One family and type each."""
    return Attack(
        name=name,
        code=f"""
def attack(_):
    return " ".join(sorted({{tried(socket.socket, *kind) for kind in [{", ".join(kinds)}]}}))
""",
        says="EACCES",
        by=("seccomp",),
    )


ATTACKS = (
    _sockets("54 TCP", "(2, 1)", "(10, 1)"),
    _sockets("55 UDP, a tunnel through DNS", "(2, 2)", "(10, 2)"),
    _sockets(
        "56 raw, packet, netlink, vsock, AF_ALG", "(2, 3, 1)", "(17, 3)", "(16, 3)", "(40, 1)", "(38, 5)"
    ),
    _sockets("57-58 sockets of this machine", "(1, 1)", "(1, 2)", "(1, 5)"),
    Attack(
        name="54-58 connect, bind and listen on the channel it has",
        code="""
def attack(_):
    channel = socket.socket(fileno=3)
    said = {
        tried(channel.connect, b"\\0name"), tried(channel.connect, "/run/docker.sock"),
        tried(channel.bind, b"\\0name"), tried(channel.bind, "/tmp/forkd-escape"),
        tried(channel.listen, 1), tried(channel.setsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20),
        tried(channel.sendto, b"x", "/run/systemd/notify"),
    }
    channel.detach()
    return " ".join(sorted(said))
""",
        says="EACCES",
        by=("seccomp",),
    ),
    Attack(
        name="59 names through libc",
        code="""
def attack(_):
    # One that needs no network: the file that has it is out of reach too.
    return " ".join((tried(socket.gethostbyname, "example.org"), tried(socket.gethostbyname, "localhost")))
""",
        says=r"(?!done)\w+ (?!done)\w+",
        timeout_s=2.0,
        by=("files", "mount_root"),
    ),
    Attack(
        name="60 pipes and pairs",
        code="""
def attack(_):
    return " ".join((tried(socket.socketpair), tried(os.pipe), tried(os.eventfd, 0), tried(select.epoll),
                     call("signalfd4", 2**64 - 1, 0, 8, 0), call("timerfd_create", 0, 0),
                     call("inotify_init1", 0)))
""",
        says="EACCES EPERM EPERM EPERM EPERM EPERM EPERM",
        by=("seccomp",),
    ),
    Attack(
        name="61 descriptors upward",
        code="""
def attack(_):
    channel = socket.socket(fileno=3)
    said = {tried(socket.send_fds, channel, [b"x"], [0] * count) for count in (1, 50, 253)}
    channel.detach()
    return " ".join(sorted(said))
""",
        says="EPERM",
        # The second wall is the worker's: its socket refuses descriptors, so the sender hears the same.
        by=("seccomp", "worker"),
    ),
)
