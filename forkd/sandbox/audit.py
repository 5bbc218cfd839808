"""Which system call was a sandbox killed for? The kernel's audit records, by which a refused call has a name.

A process that the filter kills leaves status SIGSYS and nothing else: the number stands in an audit record
(type 1326) only. Records are sent to a netlink group that needs CAP_AUDIT_READ, so forkd must have been
started by root in the first user namespace; elsewhere the number stays unknown.

Master reads them: no other process of ours may see what the whole machine's audit tells (logins, other
services), and handing the socket to a role would give it just that. What master parses is text that the
kernel wrote, of one type, and of at most MAX_BYTES; a socket filter keeps all others away, so that master
is not even woken by them. In that text a hostile process has chosen two values, `comm` and `exe`. The kernel
writes them in hexadecimal digits as soon as they have a blank, a quote or a control character, so they can
neither end nor begin a field; the pattern below takes the whole record or nothing. Master then tells the
workers plugin, pid and name; which failure that belongs to, they know (named.py).
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import re
import socket
import struct
import sys

from forkd.sandbox import linux, policy

AF_NETLINK, NETLINK_AUDIT, NETLINK_ADD_MEMBERSHIP, SOL_NETLINK = 16, 9, 1, 270
AUDIT_NLGRP_READLOG = 1
AUDIT_SECCOMP = 1326
MAX_BYTES = 2048
"""Of one record; those of the kernel have about 300."""
AT_ONCE = 64
"""Records read in one turn of master's loop."""

_NATIVE = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}.get(platform.machine())
"""AUDIT_ARCH_* of this machine."""
_HEADER = struct.Struct("=IHHII")
_SO_ATTACH_FILTER = 26
_RECORD = re.compile(
    rb"audit\([0-9.:]+\): auid=\d+ uid=(?P<uid>\d+) gid=\d+ ses=\d+(?: subj=[!-~]+)? pid=(?P<pid>\d+)"
    rb' comm=(?:"[!#-~]*"|[0-9A-F]+) exe=(?:"[!#-~]*"|[0-9A-F]+|\(null\))'
    rb" sig=31 arch=(?P<arch>[0-9a-f]{1,8}) syscall=(?P<number>\d{1,10}) compat=[01] ip=0x[0-9a-f]+"
    rb" code=0x[0-9a-f]+"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A process was killed for a system call; numbers as the kernel outside of all namespaces has them."""

    pid: int
    uid: int
    arch: int
    number: int

    @property
    def call(self) -> str:
        """Its name: `keyctl`, `number 999`, and of another architecture than ours with that one's token."""
        return _name(self.arch, self.number)


def parse(record: bytes) -> Refusal | None:
    """What one netlink message says; None: nothing that we know."""
    if not _HEADER.size <= len(record) <= MAX_BYTES:
        return None
    if _HEADER.unpack_from(record)[1] != AUDIT_SECCOMP:
        return None
    found = _RECORD.fullmatch(record[_HEADER.size :].rstrip(b"\0 \n"))
    if found is None:
        return None
    pid, uid, number = (int(found[name]) for name in ("pid", "uid", "number"))
    return Refusal(pid, uid, int(found["arch"], 16), number)


def listen() -> socket.socket | None:
    """The group's socket, non-blocking; None where the kernel does not let us."""
    try:
        sock = socket.socket(AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                             NETLINK_AUDIT)  # fmt: skip
    except OSError:
        return None
    try:
        _attach(sock)
        sock.bind((0, 0))
        sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, AUDIT_NLGRP_READLOG)
    except OSError:
        sock.close()
        return None
    return sock


def read(sock: socket.socket) -> list[Refusal]:
    """What came since the last time, AT_ONCE at most. Never waits, never raises for what it reads."""
    found: list[Refusal] = []
    for _ in range(AT_ONCE):
        try:
            record, (sender, _groups) = sock.recvfrom(MAX_BYTES + 1)
        except BlockingIOError:
            break
        except OSError:
            continue  # ENOBUFS: there were more than fit, and some are lost
        if sender == 0 and (refusal := parse(record)) is not None:  # 0: the kernel
            found.append(refusal)
    return found


def _attach(sock: socket.socket) -> None:
    """Let nothing but records of refused calls in: a program of four instructions over the header's type."""
    # Loads are in network order, and the type is in the machine's.
    kind = int.from_bytes(AUDIT_SECCOMP.to_bytes(2, sys.byteorder), "big")
    program = b"".join(
        struct.pack("=HBBI", *step)
        for step in ((0x28, 0, 0, 4), (0x15, 0, 1, kind), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0))
    )
    filter_ = linux.seccomp_filter(program)  # the same struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(filter_))


@functools.lru_cache(maxsize=256)
def _name(arch: int, number: int) -> str:
    if arch != _NATIVE:
        return f"number {number} of architecture {arch:#x}"
    return policy.syscall_name(number) or f"number {number}"
