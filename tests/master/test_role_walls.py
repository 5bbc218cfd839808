"""The walls of our own roles, tried in real processes behind them (sandbox.md, README.md "Processes")."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forkd.master import child, rights
from forkd.master.privileges import Identity
from forkd.master.roles import ROLES
from forkd.sandbox import linux, policy, role_syscalls, role_walls
from forkd.sandbox.role_walls import READ, TIDY, TREE, WRITE, Walls
from forkd.sandbox.syscalls import KILL, LOAD

CONFINED = [role for role in ROLES if role.may is not None]


def walls(*paths: tuple[Path, str], network: str = "none", ports: tuple[int, ...] = ()) -> Walls:
    rows = role_syscalls.rows(network=network, scoped=role_walls.scoped())
    granted = [*rights.code(), *paths]
    return Walls(
        paths=tuple((str(path), right) for path, right in granted),
        ports=ports,
        program=policy.compile_refusals(rows),
    )


def behind(raised: Walls, act: Callable[[], Any], identity: Identity | None = None) -> str:
    """What came of `act` in a process behind these walls: `done`, an errno's name, or a signal's."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            child.put_on(identity, raised)
            try:
                act()
                said = "done"
            except OSError as error:
                said = errno.errorcode.get(error.errno or 0, str(error))
            os.write(writer, said.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(pid, 0)
    return said if not os.WIFSIGNALED(status) else signal.Signals(os.WTERMSIG(status)).name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("secret")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "file").write_text("ours")
    return tmp_path


def call(number: int, *arguments: int) -> Callable[[], None]:
    """A system call by number."""

    def act() -> None:
        if linux.syscall(number, *(ctypes.c_long(each) for each in arguments)) < 0:
            raise OSError(ctypes.get_errno(), "")

    return act


# --- the table -----------------------------------------------------------------------------------------


def test_every_role_but_master_zygotes_and_launcher_is_walled_in():
    """README.md: every role but master confines itself before its loop; zygotes do it themselves, and the
    launcher cannot: what it starts is setuid (THREATS.md)."""
    assert {role.name for role in ROLES if role.may is None} == {"zygote", "launcher"}
    assert {role.name for role in ROLES if role.may_gain} == {"launcher"}


def test_what_is_an_exploit_for_a_plugin_is_refused_to_a_role():
    """Two tables of calls: what kills a plugin must not be forgotten in the roles'."""
    refused = {name for row in role_syscalls.EVERY for name in row.names.split()}
    exploits = {name for row in LOAD if row.action == KILL for name in row.names.split()}
    assert exploits - refused == set()


# --- files ---------------------------------------------------------------------------------------------

FILE_ACTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "read in a folder to write in": (WRITE, lambda own: (own / "file").read_text(), "done"),
    "make a file": (WRITE, lambda own: (own / "new").write_text("x"), "done"),
    "empty a file": (WRITE, lambda own: (own / "file").write_text(""), "done"),
    "rename": (WRITE, lambda own: (own / "file").rename(own / "renamed"), "done"),
    "remove": (WRITE, lambda own: (own / "file").unlink(), "done"),
    "no folder": (WRITE, lambda own: (own / "folder").mkdir(), "EACCES"),
    "no link": (WRITE, lambda own: (own / "link").symlink_to("file"), "EACCES"),
    "no pipe": (WRITE, lambda own: os.mkfifo(own / "pipe"), "EPERM"),
    "no mode by name": (WRITE, lambda own: (own / "file").chmod(0o777), "EPERM"),
    "no time": (WRITE, lambda own: os.utime(own / "file"), "EPERM"),
    "no attribute": (WRITE, lambda own: os.setxattr(own / "file", "user.x", b""), "EPERM"),
    "a folder in a tree": (TREE, lambda own: (own / "folder").mkdir(), "done"),
    "only read": (READ, lambda own: (own / "new").write_text("x"), "EACCES"),
    "only tidy": (TIDY, lambda own: (own / "new").write_text("x"), "EACCES"),
    "tidy": (TIDY, lambda own: (own / "file").unlink(), "done"),
    "read elsewhere": (TREE, lambda own: (own.parent / "other" / "file").read_text(), "EACCES"),
    "list elsewhere": (TREE, lambda own: os.scandir(own.parent / "other"), "EACCES"),
    "write elsewhere": (TREE, lambda own: (own.parent / "other" / "new").write_text("x"), "EACCES"),
    "empty elsewhere": (TREE, lambda own: os.truncate(own.parent / "other" / "file", 0), "EACCES"),
    "move elsewhere": (TREE, lambda own: (own / "file").rename(own.parent / "other" / "file"), "EACCES"),
    "fetch from elsewhere": (TREE, lambda own: (own.parent / "other" / "file").rename(own / "got"), "EACCES"),
}


@pytest.mark.parametrize("name", FILE_ACTS)
def test_files_as_far_as_granted(folder: Path, name: str):
    """Landlock, and what it does not see by the filter."""
    right, act, expected = FILE_ACTS[name]
    own = folder / "own"
    assert behind(walls((own, right)), lambda: act(own)) == expected


def test_a_rename_between_two_granted_folders_works(folder: Path):
    """A commit renames from tmp/ or free/ to new/ (queue/commit.py)."""
    raised = walls((folder / "own", WRITE), (folder / "other", WRITE))
    assert behind(raised, lambda: (folder / "own" / "file").rename(folder / "other" / "moved")) == "done"


# --- the rest ------------------------------------------------------------------------------------------


def _abstract(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + name)


def _thread() -> None:
    thread = threading.Thread(target=len, args=("",))
    thread.start()
    thread.join()


ACTS: dict[str, tuple[Callable[[], Any], str]] = {
    "exec": (lambda: os.execv(sys.executable, [sys.executable, "-c", ""]), "EACCES"),
    "fork": (os.fork, "EPERM"),
    "a thread": (_thread, "done"),
    "signal to its parent": (lambda: os.kill(os.getppid(), signal.SIGURG), "EPERM"),
    "to itself": (lambda: signal.raise_signal(signal.SIGURG), "done"),
    "limits of its parent": (lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (9, 9)), "EPERM"),
    "own limits": (lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)), "done"),
    "its parent's priority": (lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19), "EPERM"),
    "its parent's processors": (lambda: os.sched_setaffinity(os.getppid(), {0}), "EPERM"),
    "to become dumpable": (lambda: linux.prctl(linux.PR_SET_DUMPABLE, 1), "EPERM"),
    "memory as code": (lambda: __import__("mmap").mmap(-1, 4096, prot=7), "EACCES"),
    "netlink": (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), "EAFNOSUPPORT"),
    "vsock": (lambda: socket.socket(socket.AF_VSOCK), "EAFNOSUPPORT"),
    "a unix socket": (socket.socketpair, "done"),
    "io_uring": (call(425, 1, 0), "ENOSYS"),
    "setresuid": (lambda: os.setresuid(0, 0, 0), "SIGSYS"),
    "unshare": (call({"x86_64": 272, "aarch64": 97}[os.uname().machine], 0), "SIGSYS"),
    "bpf": (call({"x86_64": 321, "aarch64": 280}[os.uname().machine], 0), "SIGSYS"),
    "keyctl": (call({"x86_64": 250, "aarch64": 219}[os.uname().machine], 0), "SIGSYS"),
}


@pytest.mark.parametrize("name", ACTS)
def test_what_a_role_that_was_taken_over_would_try(name: str):
    """Habits get an errno, exploits end the process; what roles live by works."""
    act, expected = ACTS[name]
    assert behind(walls(), act) == expected


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x32 is x86_64's")
def test_a_call_by_another_table_of_numbers_dies():
    """x32: the same calls, past a filter that looks at numbers alone."""
    assert behind(walls(), call(0x4000_0000 + 39)) == "SIGSYS"


def test_an_abstract_socket_is_out_of_reach():
    """Landlock's scope, ABI 6: dbus and the like have such."""
    with socket.socket(socket.AF_UNIX) as server:
        name = f"forkd-test-{os.getpid()}"
        server.bind("\0" + name)
        server.listen()
        assert behind(walls(), lambda: _abstract(name)) == "EPERM"


def _datagram() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(b"", ("127.0.0.1", 9))


@pytest.mark.parametrize(
    ("network", "udp", "tcp_socket", "granted", "other"),
    [
        ("none", "EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT", "EAFNOSUPPORT"),
        ("ask", "done", "EACCES", "EACCES", "EACCES"),
        ("connect", "done", "done", "done", "EACCES"),
    ],
)
def test_network_as_far_as_granted(network: str, udp: str, tcp_socket: str, granted: str, other: str):
    """None; questions; connections to the ports that were granted."""
    with socket.create_server(("127.0.0.1", 0)) as open_, socket.create_server(("127.0.0.1", 0)) as closed:
        raised = walls(network=network, ports=(open_.getsockname()[1],))
        assert behind(raised, _datagram) == udp
        assert behind(raised, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) == tcp_socket
        assert behind(raised, lambda: socket.create_connection(open_.getsockname())) == granted
        assert behind(raised, lambda: socket.create_connection(closed.getsockname())) == other
        assert behind(raised, lambda: socket.create_server(("127.0.0.1", 0))) != "done"


_FASTOPEN = 0x2000_0000
_SENDMMSG = {"x86_64": 307, "aarch64": 269}[os.uname().machine]


def _disconnect(sock: socket.socket) -> None:
    """connect(AF_UNSPEC): Landlock allows it, and the socket of a client is as good as new."""
    nowhere = ctypes.create_string_buffer(16)
    assert ctypes.CDLL(None).connect(sock.fileno(), nowhere, 16) == 0


@pytest.mark.parametrize("network", role_syscalls.NETWORKS)
def test_a_clients_socket_does_not_become_a_connection_elsewhere(network: str):
    """TCP_FASTOPEN connects by sending, and Landlock does not see it (sendto, sendmsg, sendmmsg)."""
    with (
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
        server.accept()[0] as accepted,
    ):
        elsewhere.setblocking(False)
        _disconnect(accepted)
        where = elsewhere.getsockname()
        acts: list[Callable[[], Any]] = [
            lambda: accepted.sendto(b"secret", _FASTOPEN, where),
            lambda: accepted.sendmsg([b"secret"], (), _FASTOPEN, where),
            call(_SENDMMSG, -1, 0, 0, _FASTOPEN),
        ]
        raised = walls(network=network)
        assert [behind(raised, act) for act in acts] == ["EPERM"] * 3
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


_MPTCP, _SCTP = 262, 132
PROTOCOLS: dict[str, tuple[int, int, str, str]] = {
    "TCP": (socket.SOCK_STREAM, socket.IPPROTO_TCP, "EACCES", "done"),
    "UDP": (socket.SOCK_DGRAM, socket.IPPROTO_UDP, "done", "done"),
    "non-blocking": (socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0, "done", "done"),
    "MPTCP": (socket.SOCK_STREAM, _MPTCP, "EACCES", "EPROTONOSUPPORT"),
    "SCTP": (socket.SOCK_STREAM, _SCTP, "EACCES", "EPROTONOSUPPORT"),
    "SCTP with records": (socket.SOCK_SEQPACKET, _SCTP, "EACCES", "EACCES"),
    "raw": (socket.SOCK_RAW, socket.IPPROTO_TCP, "EACCES", "EACCES"),
    "ping": (socket.SOCK_DGRAM, socket.IPPROTO_ICMP, "EPROTONOSUPPORT", "EPROTONOSUPPORT"),
    "UDP-Lite": (socket.SOCK_DGRAM, 136, "EPROTONOSUPPORT", "EPROTONOSUPPORT"),
    "IGMP": (socket.SOCK_STREAM, 2, "EACCES", "EPROTONOSUPPORT"),
}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["4", "6"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_no_protocol_but_those_that_are_walled_in(name: str, family: int):
    """Landlock's ports are TCP's alone."""
    kind, protocol, asking, connecting = PROTOCOLS[name]

    def act() -> None:
        socket.socket(family, kind, protocol).close()

    assert behind(walls(network="none"), act) == "EAFNOSUPPORT"
    assert behind(walls(network="ask"), act) == asking
    assert behind(walls(network="connect"), act) == connecting


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_a_role_of_roots_has_no_capability_and_cannot_have_one():
    """The bounding set is emptied: not even a setuid program could give one back."""
    nobody = Identity(65_534, 65_534, "nobody")

    def act() -> None:
        lines = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
        assert {lines[name] for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")

    assert behind(walls((Path("/proc"), READ)), act, nobody) == "done"
